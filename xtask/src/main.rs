//! The chores of the repository: `cargo xtask test`, `e2e`, `torture`, `drill`, `bench`, `instructions`, `bugs`, `fuzz`,
//! `proto`, `promtool`, `python`, `release`, `tree` and `ci`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a chore talks to the person who runs it")]

mod bench;
mod bugs;
mod debian;
mod drill;
mod e2e;
mod fuzz;
mod instructions;
mod node;
mod pgbouncer;
mod postgres;
mod promtool;
mod proto;
mod python;
mod release;
mod step;
mod test;
mod torture;
mod tree;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The chores of the repository")]
struct Args {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Runs every test: finds or installs a Postgres and a pgbouncer, then `cargo test`, then the end-to-end run where Node is present, then a short torture run and short drills
    Test,
    /// Drives the real binaries against a real identity provider, over SQLite and Postgres; needs Node
    E2e,
    /// Hurts a fleet of replicas on one Postgres under load, and checks what clients and the upstream saw
    Torture(torture::Torture),
    /// Measures one promise of a fleet: `drill help` lists them, `drill all` measures all, shortly
    Drill(drill::Drill),
    /// Measures what is shipped beside what a user would pick instead, and writes docs/benchmarks; `bench --help` lists the options
    Bench(bench::Bench),
    /// Counts the instructions of a hit and its pieces under callgrind, and fails on 5 % more than are recorded
    Instructions {
        /// Write down what there is now
        #[arg(long)]
        record: bool,
    },
    /// Leaves out one rule of the broker after the other, and fails where no test misses it
    Bugs,
    /// Gives the broker inputs that a fuzzer makes up; needs the nightly toolchain
    Fuzz(fuzz::Fuzz),
    /// Compares the interface with the one that was released last
    Proto(proto::Proto),
    /// Runs the tests of the Python package in an environment of their own; needs Python
    Python,
    /// Has promtool check the alert rules, their tests and the configuration of Prometheus
    Promtool,
    /// Builds the binaries, each with a list of its dependencies inside and a bill of materials beside it, and checks these
    Release(release::Release),
    /// Checks that the central crates are compiled in one version each, with one crypto back end
    Tree,
    /// Runs what CI runs: the lints, then every test
    Ci {
        /// Stop before the tests
        #[arg(long)]
        lints_only: bool,
    },
}

fn main() -> ExitCode {
    let done = match Args::parse().chore {
        Chore::Test => test::run(),
        Chore::E2e => e2e::run(),
        Chore::Torture(torture) => torture::run(&torture),
        Chore::Drill(drill) => drill::run(&drill),
        Chore::Bench(bench) => bench::run(&bench),
        Chore::Instructions { record } => instructions::run(record).map(|told| println!("xtask instructions: {told}")),
        Chore::Bugs => bugs::run(),
        Chore::Fuzz(fuzz) => fuzz::run(&fuzz),
        Chore::Proto(proto) => proto::run(&proto),
        Chore::Python => python::prepare().and_then(|directory| python::test(&directory)),
        Chore::Promtool => promtool::ensure().and_then(|()| promtool::check()),
        Chore::Release(release) => release::run(&release),
        Chore::Tree => tree::run(),
        Chore::Ci { lints_only } => run_ci(lints_only),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The script is the one place that says what CI checks; this only finds it.
fn run_ci(lints_only: bool) -> Result<()> {
    let mut script = step::command(workspace_root().join(".ci/run"));
    script.args(lints_only.then_some("lints"));
    step::run("ci", &mut script)
}

/// The top of the repository.
fn workspace_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a directory of the repository").to_owned()
}
