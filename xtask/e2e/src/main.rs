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

use anyhow::{Result, ensure};
use clap::Parser;
use tokencache_testkit::Postgres;
use tokio::process::Command;

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
    the_configuration_of_the_compose_file_is_valid(&places).await?;
    over("SQLite", &places, Store::Sqlite).await?;
    let postgres = Postgres::start().await?;
    let password = postgres.password().map(str::to_owned);
    over("Postgres", &places, Store::Postgres { url: postgres.new_database().await?, password }).await
}

/// No engine is needed to find a misspelt key; the containers themselves are not started here.
async fn the_configuration_of_the_compose_file_is_valid(places: &Places) -> Result<()> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/compose/tokencached.toml");
    let mut command = Command::new(places.binaries.join("tokencached"));
    command.args(["check-config", file]);
    command
        .envs(["TOKENCACHE_DB_PASSWORD", "CI_SECRET", "SHORT_SECRET", "TOKENCACHE_KEY"].map(|name| (name, "secret")));
    let printed = cli::output(command).await?;
    ensure!(printed.code == 0, "deploy/compose/tokencached.toml: {}\n{}", printed.text, printed.complaint);
    println!("ok  the configuration of the compose file is valid");
    Ok(())
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
