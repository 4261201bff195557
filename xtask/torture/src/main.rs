//! The torture run: a fleet of real `tokencached` processes on one real Postgres under load, with an identity provider
//! that misbehaves and keeps the truth, while processes, networks and the database fail.
//!
//! Everything that clients and the upstream see is recorded, and checked when all faults are off again.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the run tells a person what it saw")]

mod adversary;
mod checks;
mod clock;
mod database;
mod fleet;
mod history;
mod idp;
mod load;
mod proxy;
mod replica;
mod scene;
mod settle;
mod truth;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use tokio::{sync::mpsc, task::JoinSet, time::sleep};

use crate::{
    adversary::{Adversary, Damage},
    checks::Findings,
    clock::Clock,
    fleet::Fleet,
    history::History,
    load::Client,
    settle::Settled,
    truth::Truth,
};

#[derive(Parser)]
struct Args {
    /// Where tokencached is
    #[arg(long)]
    binaries: PathBuf,
    /// Where the history and the logs of a failed run go
    #[arg(long)]
    output: PathBuf,
    /// What is done and in which order
    #[arg(long)]
    seed: u64,
    /// How long the faults and the load last
    #[arg(long)]
    seconds: u64,
    /// How many replicas there are
    #[arg(long, default_value_t = 3)]
    replicas: usize,
    /// How many credentials there are; of six, two rotate with grace, two strictly
    #[arg(long, default_value_t = 18)]
    credentials: usize,
    /// How many clients work at a time
    #[arg(long, default_value_t = 12)]
    clients: u32,
    /// The longest time between two things that are done to the fleet, in milliseconds
    #[arg(long, default_value_t = 1800)]
    pause_ms: u64,
    /// The fewest tokens a second, of all clients together, with which a run passes; all replicas may be stopped at once
    #[arg(long, default_value_t = 5)]
    min_throughput: u64,
    /// Hold replicas to what an acknowledged rejection promises (I2), and to how far they may lag (I1)
    #[arg(long)]
    expect_acknowledged: bool,
    /// Break nothing: the load alone
    #[arg(long)]
    no_faults: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    println!("seed {}: {} replicas, {} credentials, {} s", args.seed, args.replicas, args.credentials, args.seconds);
    match run(&args).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("torture: seed {}: the run itself failed: {error:#}", args.seed);
            ExitCode::FAILURE
        }
    }
}

/// Runs; whether nothing was violated.
async fn run(args: &Args) -> Result<bool> {
    ensure!(args.replicas > 0 && args.credentials > 0 && args.seconds > 0, "there is nothing to run");
    let clock = Clock::start();
    let history = History::new(clock);
    let truth = Arc::new(Truth::new(clock, scene::credentials(args.credentials), args.seed ^ 1));
    let (blows, blown) = mpsc::unbounded_channel();
    let setting = (Arc::clone(&truth), history.clone(), args.seed ^ 2);
    let fleet = Arc::new(Fleet::start(&args.binaries.join("tokencached"), args.replicas, setting, blows).await?);
    println!("the fleet is up after {:.1} s", seconds(clock.now()));
    if !fleet.database.can_be_hurt() {
        println!("NOT DONE: the database is not this run's own process, so it does not crash and does not stall");
    }

    let damage = hurt(args, &fleet, blown).await?;
    println!("all faults are off after {:.1} s", seconds(clock.now()));
    let settled = settle::settle(&fleet).await?;
    let findings = judge(args, &fleet, &damage, settled).await?;
    print(args, &fleet, &damage, &findings);
    if !findings.is_clean() {
        keep(args, &fleet)?;
    }
    Ok(findings.is_clean())
}

/// Load and faults, for as long as asked; afterwards nothing is broken and nobody calls.
async fn hurt(args: &Args, fleet: &Arc<Fleet>, blown: mpsc::UnboundedReceiver<(idp::Step, usize)>) -> Result<Damage> {
    let (stop_faults, stop_load) = (Arc::new(AtomicBool::new(args.no_faults)), Arc::new(AtomicBool::new(false)));
    let channels = fleet.replicas.iter().map(|replica| replica.tokens()).collect::<Result<Vec<_>>>()?;
    let mut load = JoinSet::new();
    for id in 0..args.clients {
        let client = Client::new(id, Arc::clone(fleet), channels.clone(), Arc::clone(&stop_load), args.seed);
        load.spawn(client.run());
    }
    for (replica, channel) in channels.into_iter().enumerate() {
        load.spawn(load::watch(Arc::clone(fleet), replica, channel, Arc::clone(&stop_load)));
    }
    load.spawn(load::revoke(Arc::clone(fleet), Arc::clone(&stop_load)));
    fleet.idp.set_faults(!args.no_faults);
    let adversary = tokio::spawn(
        Adversary::new(Arc::clone(fleet), blown, args.seed, Duration::from_millis(args.pause_ms))
            .run(Arc::clone(&stop_faults)),
    );
    sleep(Duration::from_secs(args.seconds)).await;
    stop_faults.store(true, Ordering::Relaxed);
    fleet.idp.set_faults(false);
    let damage = adversary.await.context("the adversary failed")?;
    stop_load.store(true, Ordering::Relaxed);
    while let Some(ended) = load.join_next().await {
        ended.context("a client task failed")?;
    }
    Ok(damage)
}

/// All checks.
async fn judge(args: &Args, fleet: &Fleet, damage: &Damage, settled: Settled) -> Result<Findings> {
    let mut findings = Findings::default();
    let records = fleet.history.records();
    checks::check_calls(&records, args.expect_acknowledged, &mut findings);
    checks::check_grants(&fleet.truth, &fleet.database.refresh_tokens().await?, &records, &mut findings);
    let (calls, minted) = (fleet.truth.calls().len(), fleet.database.generations().await?);
    findings.count("generations", usize::try_from(minted)?);
    if args.no_faults && calls != usize::try_from(minted)? {
        let text = format!("{calls} upstream calls for {minted} generations");
        findings.violation("not one upstream call for each refresh", text);
    }
    for text in settled.violations {
        findings.violation("not well again with all faults off", text);
    }
    findings.count("losses that nobody had to log in for", settled.lost);
    for text in &damage.failures {
        findings.violation("a replica did not do as it was told", text.as_str());
    }
    for replica in &fleet.replicas {
        for line in replica::panics(&replica.log())? {
            findings.violation("a panic", format!("r{}: {line}", replica.index));
        }
    }
    let throughput = findings.counted("calls that brought a token") / args.seconds;
    if throughput < args.min_throughput {
        findings
            .violation("throughput", format!("{throughput} tokens a second, {} are asked for", args.min_throughput));
    }
    Ok(findings)
}

fn print(args: &Args, fleet: &Fleet, damage: &Damage, findings: &Findings) {
    println!("\nwhat was done");
    for (deed, times) in &damage.deeds {
        println!("  {times:>8}  {deed}");
    }
    let [well, shed, lost, before, after] = fleet.idp.manners();
    println!(
        "  upstream: {well} answered, {shed} shed, {lost} cut after rotation, {before}/{after} left hanging before/after it"
    );
    println!("  starts of replicas: {:?}", fleet.replicas.iter().map(|replica| replica.lives()).collect::<Vec<_>>());
    println!("what was seen");
    for (what, count) in findings.counts() {
        println!("  {count:>8}  {what}");
    }
    let throughput = findings.counted("calls that brought a token") / args.seconds;
    println!("  {throughput:>8}  tokens a second");
    print!("\n{}", findings.describe());
    let verdict = if findings.is_clean() { "passed" } else { "FAILED" };
    println!("torture: {verdict}, seed {}, {} s, {} replicas", args.seed, args.seconds, args.replicas);
}

/// Keeps what a failed run leaves behind.
fn keep(args: &Args, fleet: &Fleet) -> Result<()> {
    let directory = args.output.join(format!("seed-{}", args.seed));
    let history = directory.join("history.jsonl");
    history::write(&fleet.history.records(), &history)?;
    for replica in &fleet.replicas {
        copy(&replica.log(), &directory.join(format!("r{}.log", replica.index)))?;
    }
    println!("the history and the logs are in {}", directory.display());
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "a figure for a person")]
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}
