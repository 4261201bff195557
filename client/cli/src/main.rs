//! `tokencache`, the command line of the broker.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::Parser as _;

mod args;
mod broker;
mod commands;
mod failure;
mod output;
mod settings;

use crate::{args::Arguments, failure::Failure, output::Output};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(code) => code,
        // The reader has what it wanted: `tokencache list | head -1`.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            // If stderr is closed as well, the exit code has to do.
            let _ = writeln!(io::stderr(), "error: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::Output)?;
    runtime.block_on(commands::run(arguments, &mut Output::stdout()))
}
