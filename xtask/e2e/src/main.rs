//! The end-to-end run: the real `tokencached`, driven through the real `tokencache` and a gRPC client, against an
//! identity provider that nobody here wrote, over SQLite and then Postgres.
//!
//! The number of upstream calls is always the provider's own count, never the broker's.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the run tells a person what it saw")]

mod broker;
mod cli;
mod idp;
mod scenarios;
mod stage;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Parser;
use tokencache_testkit::Postgres;

use crate::{
    broker::Store,
    stage::{Places, Stage},
};

#[derive(Parser)]
struct Args {
    /// Where the identity provider and its node_modules are
    #[arg(long)]
    idp: PathBuf,
    /// Where tokencached and tokencache are
    #[arg(long)]
    binaries: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    match run(Places { idp: args.idp, binaries: args.binaries }).await {
        Ok(()) => {
            println!("\nend to end: passed over SQLite and Postgres");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("end to end: failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(places: Places) -> Result<()> {
    over("SQLite", &places, Store::Sqlite).await?;
    let postgres = Postgres::start().await?;
    let password = postgres.password().map(str::to_owned);
    over("Postgres", &places, Store::Postgres { url: postgres.new_database().await?, password }).await
}

/// Plays every scenario over one store; where one fails, the end of the broker's log is shown.
async fn over(title: &str, places: &Places, store: Store) -> Result<()> {
    println!("\n-- over {title}");
    let mut stage = Stage::set(places, store).await?;
    let played = scenarios::play(&mut stage).await;
    if played.is_err() {
        eprintln!("the end of the broker's log:\n{}", stage.broker.log_tail());
    }
    played
}
