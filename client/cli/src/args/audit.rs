//! The arguments of `tokencache audit`.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::Format;

#[derive(Args, Debug)]
pub(crate) struct Audit {
    #[command(subcommand)]
    pub(crate) command: AuditCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Show recorded events, the oldest first
    List(AuditList),
    /// Show events as they are recorded, until interrupted
    Tail(AuditTail),
}

#[derive(Args, Debug)]
pub(crate) struct AuditList {
    #[command(flatten)]
    pub(crate) wanted: Wanted,

    /// At most this many
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub(crate) limit: usize,
}

#[derive(Args, Debug)]
pub(crate) struct AuditTail {
    #[command(flatten)]
    pub(crate) wanted: Wanted,
}

/// Which events, and how they are shown.
#[derive(Args, Debug)]
pub(crate) struct Wanted {
    /// No older than this, e.g. 10m
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(crate) since: Option<Duration>,

    /// Of this subject
    #[arg(long, value_name = "S")]
    pub(crate) subject: Option<String>,

    /// About this credential
    #[arg(long, value_name = "NAME")]
    pub(crate) credential: Option<String>,

    /// Of this kind, e.g. token_issued, rejection, refresh, admin_call, call_refused
    #[arg(long, value_name = "KIND")]
    pub(crate) kind: Option<String>,

    /// text: a line for people; json: the lines as they were recorded
    #[arg(long, short, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,
}
