//! The torture run and the drills: a fleet of real `tokencached` processes on a real Postgres under load, with an identity
//! provider that misbehaves and keeps the truth, while processes, networks and the database fail.
//!
//! A run does at random what can be done, records everything that clients and the upstream see, and checks it when all
//! faults are off again. A drill does one thing often, and measures one promise.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a run tells a person what it saw")]

mod adversary;
mod checks;
mod clock;
mod database;
mod drills;
mod fleet;
mod history;
mod idp;
mod load;
mod proxy;
mod replica;
mod run;
mod scene;
mod settle;
mod truth;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};

use crate::{drills::Drill, fleet::Fleet, run::Run};

/// Hurts a fleet, and checks what was seen.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    deed: Deed,
}

/// Where things are and go.
#[derive(Clone, Debug, clap::Args)]
struct Place {
    /// Where tokencached is
    #[arg(long, global = true, default_value = "target/debug")]
    binaries: PathBuf,
    /// Where the history and the logs of what failed go
    #[arg(long, global = true, default_value = "target/torture")]
    output: PathBuf,
}

#[derive(Subcommand)]
enum Deed {
    /// Hurts the fleet at random
    Run(Run),
    /// Measures one promise
    #[command(subcommand)]
    Drill(Drill),
}

#[tokio::main]
async fn main() -> ExitCode {
    let Args { place, deed } = Args::parse();
    let (what, done) = match &deed {
        Deed::Run(run) => (format!("torture: seed {}", run.seed), run::run(&place, run).await),
        Deed::Drill(drill) => (format!("drill {}", drill.name()), drills::run(&place, drill).await),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{what}: the run itself failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

impl Place {
    fn tokencached(&self) -> PathBuf {
        self.binaries.join("tokencached")
    }

    /// Keeps what a failure leaves behind.
    fn keep(&self, fleet: &Fleet, name: &str) -> Result<()> {
        let directory = self.output.join(name);
        history::write(&fleet.history.records(), &directory.join("history.jsonl"))?;
        for replica in &fleet.replicas {
            copy(&replica.log(), &directory.join(format!("r{}.log", replica.index)))?;
        }
        println!("the history and the logs are in {}", directory.display());
        Ok(())
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(())
}
