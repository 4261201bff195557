//! `tokencache`, the command line of the broker.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::Parser as _;

mod args;
mod commands;
mod failure;
mod output;

use crate::{args::Arguments, failure::Failure, output::Output};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        // The reader has what it wanted: `tokencache list | head -1`.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            // If stderr is closed as well, the exit code has to do.
            let _ = writeln!(io::stderr(), "error: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::Output)?;
    runtime.block_on(commands::run(arguments, &mut Output::stdout()))
}
