//! The arguments of `tokencache exec`.

use std::{ffi::OsString, path::PathBuf};

use clap::Args;

use super::Ask;

#[derive(Args, Debug)]
pub(crate) struct Exec {
    /// The credentials. The command finds their tokens in TOKENCACHE_TOKEN_NAME, with NAME in capitals and _ for all but
    /// letters and digits; that of a single one in TOKENCACHE_TOKEN as well
    #[arg(value_name = "NAME", required_unless_present_any = ["refresh_files", "variables"])]
    pub(crate) names: Vec<String>,

    /// The variable for the token of a credential, instead of the ones above; may be repeated
    #[arg(long = "env", value_name = "VAR=NAME", value_parser = variable)]
    pub(crate) variables: Vec<(String, String)>,

    /// Keep the token of a credential in this file while the command runs; the file is replaced at once, readable by its
    /// owner alone, and removed at the end; may be repeated
    #[arg(long = "refresh-file", value_name = "NAME=PATH", value_parser = refresh_file)]
    pub(crate) refresh_files: Vec<(String, PathBuf)>,

    #[command(flatten)]
    pub(crate) ask: Ask,

    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((variable, name)) if !variable.is_empty() && !name.is_empty() => Ok((variable.into(), name.into())),
        _ => Err("write VARIABLE=NAME".into()),
    }
}

fn refresh_file(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() => Ok((name.into(), path.into())),
        _ => Err("write NAME=PATH".into()),
    }
}
