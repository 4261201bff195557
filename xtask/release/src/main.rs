//! Checks what a release says of its dependencies: the list inside each binary, and the bill of materials beside it.
//!
//! Both are compared with `Cargo.lock` and with what cargo says is compiled in. A list that lacks a crate is worse than none:
//! whoever asks it about a hole in that crate hears that all is well.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the check tells a person what it saw")]

mod bill;
mod crates;
mod embedded;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result};
use clap::Parser;

use crate::crates::Crates;

#[derive(Parser)]
struct Args {
    /// The lock file
    #[arg(long)]
    lock: PathBuf,
    /// The directory of the binaries and of their bills, `NAME.cdx.json`
    #[arg(long)]
    artifacts: PathBuf,
    /// A binary and the file with what `cargo tree --edges normal --prefix none` says of it: `NAME=FILE`
    #[arg(long = "binary", value_parser = pair, required = true)]
    binaries: Vec<(String, PathBuf)>,
    /// A path of this machine, which must be in none of the bills
    #[arg(long = "private")]
    private: Vec<String>,
}

fn pair(text: &str) -> Result<(String, PathBuf), String> {
    let (name, file) = text.split_once('=').ok_or("NAME=FILE is wanted")?;
    Ok((name.to_owned(), file.into()))
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let locked = Crates::of_lock_file(&args.lock)?;
    for (name, tree) in &args.binaries {
        let compiled = Crates::of_tree(tree)?;
        let embedded = embedded::read(&args.artifacts.join(name)).with_context(|| format!("the binary {name}"))?;
        embedded.check(&compiled, &locked).with_context(|| format!("what is embedded in {name}"))?;
        let file = args.artifacts.join(format!("{name}.cdx.json"));
        let bill = bill::read(&file, name, &args.private).with_context(|| format!("the bill of {name}"))?;
        bill.check(&compiled, &locked).with_context(|| format!("the bill of {name}"))?;
        println!(
            "{name}: {} crates embedded, {} in the bill, {} compiled in",
            embedded.len(),
            bill.len(),
            compiled.len()
        );
    }
    Ok(())
}
