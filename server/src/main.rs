//! `tokencached`: the broker.

use std::process::ExitCode;

use clap::Parser as _;
use tokencache_server::{cli, telemetry};

#[tokio::main]
async fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    telemetry::init();
    cli::run(cli).await
}
