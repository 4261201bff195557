//! Rejections: how soon they are acknowledged, and that nobody serves a rejected token as verified from then on.
//!
//! The calls are too many for a history: what was acknowledged is noted for each credential before a call begins, and its
//! answer compared with that at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::Args;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokencache_proto::v1::Freshness;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{
    Common,
    caller::{Ask, Caller, Load, Tally},
    stage::Stage,
    verdict::Verdict,
};
use crate::{
    adversary::{Adversary, Menu},
    scene::{Mode, Plan, of_modes},
    truth::Lifetime,
};

/// What is promised of an acknowledgement: 99 of 100, with all replicas well; all, with one of them stopped.
const HEALTHY: Duration = Duration::from_millis(25);
const ONE_STOPPED: Duration = Duration::from_millis(2100);

/// How often a token of one credential may be rejected: more would trip the broker's storm guard.
const SPACING: Duration = Duration::from_secs(11);

/// What clients wait for.
const DEADLINE: Duration = Duration::from_secs(3);

/// Nothing rotates strictly, for nobody logs in again here.
const MODES: [Mode; 4] = [Mode::Plain, Mode::Kept, Mode::Grace, Mode::Overlap];

/// What is done to the fleet meanwhile.
const MENU: Menu = Menu { aimed: 0, blow: 50, network: 50, upstream: 0, database: 0, failpoints: false };

/// Rejects tokens under load.
#[derive(Debug, Args)]
pub(crate) struct Acknowledged {
    #[command(flatten)]
    pub(crate) common: Common,
    /// How many rejections are timed with all replicas well
    #[arg(long, default_value_t = 30)]
    reports: usize,
    /// How many are timed with one replica stopped, ten at a time
    #[arg(long, default_value_t = 10)]
    reports_stopped: usize,
    /// How many tokens are got under faults; the promise: 10000000
    #[arg(long, default_value_t = 5000)]
    calls: u64,
    /// Of how many credentials
    #[arg(long, default_value_t = 60)]
    credentials: usize,
    /// How many calls are under way at each replica
    #[arg(long, default_value_t = 16)]
    in_flight: usize,
    /// The longest time between two faults, in milliseconds
    #[arg(long, default_value_t = 1500)]
    pause_ms: u64,
}

/// What the callers and the reporters of one run share.
#[derive(Debug)]
struct Watch {
    caller: Caller,
    names: Vec<String>,
    /// By credential: the lowest generation that may be verified, as acknowledged.
    floors: Vec<AtomicU64>,
    tokens: AtomicU64,
    degraded: AtomicU64,
    failed: AtomicU64,
    acknowledged: AtomicU64,
    returned: AtomicU64,
    wrong: Tally,
    stop: AtomicBool,
}

impl Acknowledged {
    pub(crate) fn plan(&self) -> Plan {
        let mut plan = Plan::new(3, of_modes(&MODES, self.credentials), self.common.seed);
        plan.log = "info".to_owned();
        plan
    }

    pub(crate) async fn perform(&self, stage: &mut Stage, verdict: &mut Verdict) -> Result<()> {
        stage.fleet.truth.set_lifetime(Lifetime::For(Duration::from_secs(6 * 3600)));
        let names = stage.names();
        stage.fill(&names).await?;
        let load = Load::start(&stage.caller, &names, self.in_flight, DEADLINE, self.common.seed);
        let healthy = self.time_healthy(stage, &names).await?;
        verdict.times("acknowledged, all replicas well", healthy, 0.99, HEALTHY);
        load.end().await.tell(verdict);
        let stopped = self.time_stopped(stage, &names).await?;
        verdict.times("acknowledged, one replica stopped", stopped, 1.0, ONE_STOPPED);
        self.under_faults(stage, names, verdict).await
    }

    /// One report after the other.
    async fn time_healthy(&self, stage: &Stage, names: &[String]) -> Result<Vec<Duration>> {
        let pace = SPACING / u32::try_from(names.len())?;
        let mut took = vec![];
        for i in 0..self.reports {
            let next = Instant::now() + pace;
            took.push(report(&stage.caller, i % stage.fleet.replicas.len(), &names[i % names.len()]).await?);
            tokio::time::sleep_until(next).await;
        }
        Ok(took)
    }

    /// Ten reports at a time, right after a replica has stopped.
    async fn time_stopped(&self, stage: &Stage, names: &[String]) -> Result<Vec<Duration>> {
        const AT_A_TIME: usize = 10;
        let (replicas, mut took) = (stage.fleet.replicas.len(), vec![]);
        for round in 0..self.reports_stopped.div_ceil(AT_A_TIME) {
            let stopped = round % replicas;
            sleep(SPACING * 2 / u32::try_from(names.len().div_ceil(AT_A_TIME))?).await;
            stage.fleet.replicas[stopped].signal("STOP").await?;
            let reports = (0..AT_A_TIME).map(|i| {
                let name = &names[(round * AT_A_TIME + i) % names.len()];
                report(&stage.caller, (stopped + 1 + i % (replicas - 1)) % replicas, name)
            });
            let times = futures::future::join_all(reports).await;
            stage.fleet.replicas[stopped].signal("CONT").await?;
            for time in times {
                took.push(time?);
            }
            in_touch(stage, stopped, &names[0]).await?;
        }
        Ok(took)
    }

    /// Calls and reports while replicas are stopped, cut off, killed and ended.
    async fn under_faults(&self, stage: &mut Stage, names: Vec<String>, verdict: &mut Verdict) -> Result<()> {
        let watch = Arc::new(Watch::new(stage.caller.clone(), names));
        let (_, nothing) = tokio::sync::mpsc::unbounded_channel();
        let blows = std::mem::replace(&mut stage.blows, nothing);
        let (pause, stop) = (Duration::from_millis(self.pause_ms), Arc::new(AtomicBool::new(false)));
        let adversary = Adversary::new(Arc::clone(&stage.fleet), blows, self.common.seed, pause, MENU);
        let adversary = tokio::spawn(adversary.run(Arc::clone(&stop)));
        let (begun, mut tasks) = (Instant::now(), JoinSet::new());
        for replica in 0..stage.fleet.replicas.len() {
            for slot in 0..self.in_flight {
                let seed = self.common.seed ^ (((replica as u64) << 32) | slot as u64);
                tasks.spawn(Arc::clone(&watch).call(replica, self.calls, StdRng::seed_from_u64(seed)));
            }
            let seed = StdRng::seed_from_u64(self.common.seed ^ ((replica as u64) << 48));
            tasks.spawn(Arc::clone(&watch).reject((replica, stage.fleet.replicas.len()), seed));
        }
        while watch.tokens.load(Ordering::Relaxed) < self.calls {
            sleep(Duration::from_millis(50)).await;
        }
        watch.stop.store(true, Ordering::Relaxed);
        stop.store(true, Ordering::Relaxed);
        let took = begun.elapsed();
        while let Some(ended) = tasks.join_next().await {
            ended.context("a client failed")?;
        }
        let damage = adversary.await.context("the adversary failed")?;
        for (deed, times) in &damage.deeds {
            verdict.figure(deed, times);
        }
        verdict.require(damage.failures.is_empty(), damage.failures.join("; "));
        watch.judge(took, verdict);
        Ok(())
    }
}

impl Watch {
    fn new(caller: Caller, names: Vec<String>) -> Self {
        Self {
            caller,
            floors: names.iter().map(|_| AtomicU64::new(0)).collect(),
            names,
            tokens: AtomicU64::new(0),
            degraded: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            returned: AtomicU64::new(0),
            wrong: Tally::default(),
            stop: AtomicBool::new(false),
        }
    }

    /// Gets tokens of one replica, one after the other.
    async fn call(self: Arc<Self>, replica: usize, enough: u64, mut rng: StdRng) {
        while self.tokens.load(Ordering::Relaxed) < enough {
            let number = rng.random_range(0..self.names.len());
            let floor = self.floors[number].load(Ordering::SeqCst);
            let answer = self.caller.get(replica, &self.names[number], Ask::default(), DEADLINE).await;
            let Ok(answer) = answer else {
                self.failed.fetch_add(1, Ordering::Relaxed);
                sleep(Duration::from_millis(20)).await;
                continue;
            };
            self.tokens.fetch_add(1, Ordering::Relaxed);
            let (verified, name) = (answer.freshness() == Freshness::Verified, &self.names[number]);
            self.degraded.fetch_add(u64::from(!verified), Ordering::Relaxed);
            let generation = answer.token.map_or(0, |token| token.generation);
            if verified && generation < floor {
                self.wrong.fail(format!("r{replica} serves {name} {generation} as verified; acknowledged: {floor}"));
            }
        }
    }

    /// Rejects the tokens of every so-manieth credential, in turn, at any replica; each as the promise wants it.
    async fn reject(self: Arc<Self>, (own, replicas): (usize, usize), mut rng: StdRng) {
        let numbers: Vec<usize> = (own..self.names.len()).step_by(replicas).collect();
        let Ok(count) = u32::try_from(numbers.len().max(1)) else { return };
        for number in numbers.iter().copied().cycle() {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let next = Instant::now() + SPACING / count;
            let (first, second) = (rng.random_range(0..replicas), rng.random_range(0..replicas));
            self.reject_one(number, first, second).await;
            tokio::time::sleep_until(next).await;
        }
    }

    async fn reject_one(&self, number: usize, first: usize, second: usize) {
        let name = &self.names[number];
        let Ok(answer) = self.caller.get(first, name, Ask::default(), DEADLINE).await else { return };
        let Some(generation) = answer.token.map(|token| token.generation) else { return };
        let answer = self.caller.invalidate(second, name, generation, DEADLINE).await;
        if answer.is_ok_and(|answer| answer.min_generation > generation) {
            self.floors[number].fetch_max(generation + 1, Ordering::SeqCst);
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
        // Acknowledged or not: who says what was refused does not get it back, from nobody.
        for replica in [first, second] {
            let ask = Ask { rejected: generation, ..Ask::default() };
            let Ok(answer) = self.caller.get(replica, name, ask, DEADLINE).await else { continue };
            self.returned.fetch_add(1, Ordering::Relaxed);
            let again = answer.token.map_or(0, |token| token.generation);
            if again <= generation {
                self.wrong.fail(format!("r{replica} gave {name} {again} to who had reported {generation}"));
            }
        }
    }

    fn judge(&self, took: Duration, verdict: &mut Verdict) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        verdict.figure("tokens under faults", count(&self.tokens));
        verdict.figure("of them degraded", count(&self.degraded));
        verdict.figure("calls that failed under faults", count(&self.failed));
        verdict.figure("tokens a second", count(&self.tokens) / took.as_secs().max(1));
        verdict.figure("rejections acknowledged under faults", count(&self.acknowledged));
        verdict.figure("tokens given to who had reported the one before", count(&self.returned));
        verdict.require(count(&self.acknowledged) > 0, "no rejection was acknowledged under faults");
        verdict.require(count(&self.returned) > 0, "nobody who reported got another token");
        let wrong = count(&self.wrong.failures);
        verdict.figure("rejected tokens served as verified, or to who reported them", wrong);
        verdict.require(wrong == 0, self.wrong.words());
    }
}

/// Gets a token and reports it; how long the acknowledgement took.
async fn report(caller: &Caller, replica: usize, name: &str) -> Result<Duration> {
    let answer = caller.get(replica, name, Ask::default(), DEADLINE).await?;
    let generation = answer.token.context("no token")?.generation;
    let begun = Instant::now();
    caller.invalidate(replica, name, generation, 5 * DEADLINE).await.with_context(|| format!("reporting {name}"))?;
    Ok(begun.elapsed())
}

/// Waits until a replica that was stopped vouches for its tokens again.
async fn in_touch(stage: &Stage, replica: usize, name: &str) -> Result<()> {
    for _ in 0..200 {
        let answer = stage.caller.get(replica, name, Ask::default(), DEADLINE).await;
        if answer.is_ok_and(|answer| answer.freshness() == Freshness::Verified) {
            return Ok(());
        }
        sleep(Duration::from_millis(100)).await;
    }
    anyhow::bail!("r{replica} is not in touch again after a stop")
}
