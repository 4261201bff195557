//! A torture run: load and faults for a while, then everything is checked.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use tokio::{sync::mpsc, task::JoinSet, time::sleep};

use crate::{
    Place,
    adversary::{Adversary, Damage, Menu},
    checks::{self, Findings},
    clock::Clock,
    fleet::Fleet,
    idp,
    load::{self, Client},
    replica,
    scene::{self, Plan},
    settle::{self, Settled},
};

/// How the fleet is hurt.
#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    /// What is done and in which order
    #[arg(long)]
    pub(crate) seed: u64,
    /// How long the faults and the load last
    #[arg(long)]
    seconds: u64,
    /// How many replicas there are
    #[arg(long, default_value_t = 3)]
    replicas: usize,
    /// How many credentials there are; of six, two rotate strictly, one with grace, one until its successor is used
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
    /// Have replicas die or stand still by themselves at points of a refresh; takes programs built with `failpoints`
    #[arg(long)]
    failpoints: bool,
    /// Break nothing: the load alone
    #[arg(long)]
    no_faults: bool,
}

/// Runs; whether nothing was violated.
pub(crate) async fn run(place: &Place, args: &Run) -> Result<bool> {
    println!("seed {}: {} replicas, {} credentials, {} s", args.seed, args.replicas, args.credentials, args.seconds);
    ensure!(args.replicas > 0 && args.credentials > 0 && args.seconds > 0, "there is nothing to run");
    let clock = Clock::start();
    let mut plan = Plan::new(args.replicas, scene::credentials(args.credentials), args.seed);
    plan.with_standby = !args.no_faults;
    let (blows, blown) = mpsc::unbounded_channel();
    let fleet = Arc::new(Fleet::start(&place.tokencached(), &plan, clock, blows).await?);
    println!("the fleet is up after {:.1} s", seconds(clock.now()));
    if !fleet.database.can_be_hurt() {
        println!("NOT DONE: there are no binaries of Postgres, so the database does not crash, stall or fail over");
    }

    let damage = hurt(args, &fleet, blown).await?;
    println!("all faults are off after {:.1} s", seconds(clock.now()));
    let settled = settle::settle(&fleet).await?;
    let findings = judge(args, &fleet, &damage, settled).await?;
    print(args, &fleet, &damage, &findings);
    if !findings.is_clean() {
        place.keep(&fleet, &format!("seed-{}", args.seed))?;
    }
    Ok(findings.is_clean())
}

/// Load and faults, for as long as asked; afterwards nothing is broken and nobody calls.
async fn hurt(args: &Run, fleet: &Arc<Fleet>, blown: mpsc::UnboundedReceiver<(idp::Step, usize)>) -> Result<Damage> {
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
    let menu = Menu { failpoints: args.failpoints && !args.no_faults, ..Menu::ALL };
    let adversary = tokio::spawn(
        Adversary::new(Arc::clone(fleet), blown, args.seed, Duration::from_millis(args.pause_ms), menu)
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
async fn judge(args: &Run, fleet: &Fleet, damage: &Damage, settled: Settled) -> Result<Findings> {
    let mut findings = Findings::default();
    let records = fleet.history.records();
    checks::check_calls(&records, args.expect_acknowledged, &mut findings);
    checks::check_grants(&fleet.truth, &fleet.refresh_tokens().await?, &records, &mut findings);
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
    if args.failpoints && !args.no_faults {
        let logs = fleet.replicas.iter().map(|replica| replica::fails_on_purpose(&replica.log()));
        if !logs.collect::<Result<Vec<_>>>()?.contains(&true) {
            findings.violation("the server was built without `failpoints`", "none of the replicas knows what they are");
        }
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

fn print(args: &Run, fleet: &Fleet, damage: &Damage, findings: &Findings) {
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

#[expect(clippy::cast_precision_loss, reason = "a figure for a person")]
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}
