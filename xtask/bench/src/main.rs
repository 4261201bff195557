//! Measures the broker beside what a user would pick instead: real servers on loopback, one after the other under the same
//! load, round by round, with the CPU time that the kernel counts for each.
//!
//! The generator has a core of its own, and the server another one. It talks to the servers' wires alone.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a run tells a person what it measured")]

mod chart;
mod clock;
mod contenders;
mod extras;
mod figures;
mod hpack;
mod load;
mod machine;
mod process;
mod report;
mod rounds;
mod run;
mod scale;
mod stand_in;
mod talk;
mod target;
mod upstream;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

/// Measures servers.
#[derive(Parser)]
struct Args {
    /// Where tokencached is
    #[arg(long, global = true, default_value = "target/release")]
    binaries: PathBuf,
    /// Where the reports go
    #[arg(long, global = true, default_value = "docs/benchmarks")]
    output: PathBuf,
    #[command(subcommand)]
    deed: Deed,
}

#[derive(Subcommand)]
enum Deed {
    /// Compares the contenders
    Run(run::Run),
    /// Measures how the broker grows
    Scale(scale::Scale),
    /// Serves a constant, until it is killed: what `run` compares with
    StandIn(stand_in::StandIn),
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match &args.deed {
        Deed::Run(run) => run.run(&args),
        Deed::Scale(scale) => scale.run(&args),
        Deed::StandIn(stand_in) => stand_in.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the measurement failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}
