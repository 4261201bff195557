//! `tokencached`: the broker.

use std::{io, process::ExitCode};

use clap::Parser as _;
use tokencache_server::{cli, telemetry};
use tokio::runtime::Builder;

/// A hit makes many small allocations: they were 15 % of its CPU time with glibc.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// After so many tasks that had their turn a worker looks at the network again. tokio's default is 61: a connection's turn
/// may answer a hundred calls, and an upstream's answer would wait for sixty such turns.
const TURNS_PER_LOOK: u32 = 16;

fn main() -> io::Result<ExitCode> {
    let cli = cli::Cli::parse();
    let runtime = Builder::new_multi_thread().enable_all().event_interval(TURNS_PER_LOOK).build()?;
    Ok(runtime.block_on(async {
        telemetry::init();
        cli::run(cli).await
    }))
}
