//! kill -9 at the five points of a refresh, and what becomes of refresh tokens.

use std::{
    os::unix::process::ExitStatusExt as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{Common, stage::Stage, verdict::Verdict};
use crate::{
    checks::{Findings, check_calls, check_grants},
    fleet::Fleet,
    idp::Step,
    load::Client,
    replica,
    scene::{Mode, Plan, of_modes},
    settle,
    truth::Lifetime,
};

const MODES: [Mode; 6] = [Mode::Grace, Mode::Strict, Mode::Overlap, Mode::Grace, Mode::Kept, Mode::Overlap];

/// How often it is looked whether a replica has died.
const LOOK: Duration = Duration::from_millis(20);

/// A replica that does not come to its point this long is given another one.
const LONGEST_LIFE: Duration = Duration::from_secs(20);

/// How probable it is that a refresh that comes to the point of a life is its last. Low enough for the replays of one refresh
/// not to be killed again and again until the grace of its upstream is over: each costs a lease.
const PROBABILITY: f64 = 0.08;

const SIGKILL: i32 = 9;

/// Kills replicas while they refresh.
#[derive(Debug, Args)]
pub(crate) struct Kills {
    #[command(flatten)]
    pub(crate) common: Common,
    /// How often refresh tokens are replaced at least; the promise: 10000
    #[arg(long, default_value_t = 40)]
    rotations: usize,
    /// How many replicas die at least; the promise: 1000
    #[arg(long, default_value_t = 10)]
    kills: usize,
    /// Of how many credentials
    #[arg(long, default_value_t = 30)]
    credentials: usize,
    /// How long access tokens live, in milliseconds
    #[arg(long, default_value_t = 3000)]
    lifetime_ms: u64,
    /// How many clients call meanwhile
    #[arg(long, default_value_t = 12)]
    callers: u32,
    /// How long it may take at most, in seconds
    #[arg(long, default_value_t = 120)]
    limit: u64,
}

/// A point of a refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Point {
    BeforeIntent,
    BeforePost,
    InPost,
    BeforeCommit,
    AfterCommit,
}

impl Point {
    const ALL: [Self; 5] = [Self::BeforeIntent, Self::BeforePost, Self::InPost, Self::BeforeCommit, Self::AfterCommit];

    fn words(self) -> &'static str {
        match self {
            Self::BeforeIntent => "before the intent",
            Self::BeforePost => "after the intent, before the POST",
            Self::InPost => "while the POST runs",
            Self::BeforeCommit => "after the POST, before the commit",
            Self::AfterCommit => "after the commit",
        }
    }

    /// What a life is told that is to end here. While the POST runs, it is the upstream that says when.
    fn failpoints(self) -> String {
        let names: &[&str] = match self {
            Self::BeforeIntent => &["before-intent"],
            Self::BeforePost => &["after-intent", "before-post"],
            Self::InPost => &[],
            Self::BeforeCommit => &["after-post", "before-commit"],
            Self::AfterCommit => &["after-commit", "before-release"],
        };
        names.iter().map(|name| format!("{name}=kill@{PROBABILITY}")).collect::<Vec<_>>().join(",")
    }
}

/// What the tasks of the drill share.
#[derive(Debug)]
struct Slaughter {
    fleet: Arc<Fleet>,
    stop: AtomicBool,
    deaths: [AtomicUsize; 5],
    /// The point of each replica's present life.
    fates: Vec<Mutex<Point>>,
    strange: Mutex<Vec<String>>,
}

impl Kills {
    pub(crate) fn plan(&self) -> Plan {
        Plan::new(3, of_modes(&MODES, self.credentials), self.common.seed)
    }

    pub(crate) async fn perform(&self, stage: &mut Stage, verdict: &mut Verdict) -> Result<()> {
        let fleet = Arc::clone(&stage.fleet);
        fleet.truth.set_lifetime(Lifetime::For(Duration::from_millis(self.lifetime_ms)));
        let (load, mut clients) = (Arc::new(AtomicBool::new(false)), JoinSet::new());
        let channels = fleet.replicas.iter().map(|replica| replica.tokens()).collect::<Result<Vec<_>>>()?;
        for id in 0..self.callers {
            let client = Client::new(id, Arc::clone(&fleet), channels.clone(), Arc::clone(&load), self.common.seed);
            clients.spawn(client.run());
        }
        let begun = Instant::now();
        let slaughter = self.slaughter(stage, begun).await?;
        load.store(true, Ordering::Relaxed);
        while clients.join_next().await.is_some() {}

        let settled = settle::settle(&fleet).await?;
        let mut findings = Findings::default();
        let records = fleet.history.records();
        check_calls(&records, true, &mut findings);
        check_grants(&fleet.truth, &fleet.refresh_tokens().await?, &records, &mut findings);
        let logs = fleet.replicas.iter().map(|replica| replica::fails_on_purpose(&replica.log()));
        let built_for_it = logs.collect::<Result<Vec<_>>>()?.contains(&true);
        verdict.require(built_for_it, "the server was built without the feature `failpoints`");
        for text in settled.violations {
            verdict.require(false, format!("not well again at the end: {text}"));
        }
        slaughter.judge(self.kills, verdict);
        let (rotations, lost) = (self.rotated(&fleet), findings.counted("strict families lost"));
        verdict.figure("refresh tokens replaced", rotations);
        verdict.figure("strict families lost, each reported in doubt", lost);
        for (what, count) in findings.counts().filter(|(what, _)| what.starts_with("live refresh tokens")) {
            verdict.figure(what, count);
        }
        verdict.require(rotations >= self.rotations, format!("only {rotations} of {} rotations", self.rotations));
        verdict.require(findings.is_clean(), findings.describe());
        Ok(())
    }

    /// Until there were rotations and deaths enough, or the time is over.
    async fn slaughter(&self, stage: &mut Stage, begun: Instant) -> Result<Arc<Slaughter>> {
        let fleet = Arc::clone(&stage.fleet);
        let fates = fleet.replicas.iter().map(|_| Mutex::new(Point::InPost)).collect();
        let (deaths, strange) = (std::array::from_fn(|_| AtomicUsize::new(0)), Mutex::default());
        let slaughter = Arc::new(Slaughter { fleet, stop: AtomicBool::new(false), deaths, fates, strange });
        let mut lives = JoinSet::new();
        for index in 0..slaughter.fleet.replicas.len() {
            lives.spawn(Arc::clone(&slaughter).live(index));
        }
        while begun.elapsed() < Duration::from_secs(self.limit)
            && (slaughter.killed() < self.kills || self.rotated(&slaughter.fleet) < self.rotations)
        {
            slaughter.strike_in_post(&mut stage.blows).await;
        }
        slaughter.fleet.idp.arm(None);
        slaughter.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = lives.join_next().await {
            ended.context("a task of the drill failed")??;
        }
        Ok(slaughter)
    }

    fn rotated(&self, fleet: &Fleet) -> usize {
        let rotating = |number: &usize| fleet.truth.credentials()[*number].mode.rotates();
        (0..self.credentials).filter(rotating).map(|number| fleet.truth.rotations(number)).sum()
    }
}

impl Slaughter {
    fn killed(&self) -> usize {
        self.deaths.iter().map(|deaths| deaths.load(Ordering::Relaxed)).sum()
    }

    /// One life of a replica after the other, each with another point to end at; a sound one at the end.
    async fn live(self: Arc<Self>, index: usize) -> Result<()> {
        let replica = &self.fleet.replicas[index];
        self.kill(index, "to begin with").await?;
        for life in index.. {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let point = life % Point::ALL.len();
            *self.fates[index].lock().unwrap_or_else(PoisonError::into_inner) = Point::ALL[point];
            replica.set_failpoints(&Point::ALL[point].failpoints());
            replica.start().await?;
            if self.ended(index, Point::ALL[point]).await? {
                self.deaths[point].fetch_add(1, Ordering::Relaxed);
            } else {
                self.kill(index, "that did not come to its point").await?;
            }
        }
        replica.set_failpoints("");
        replica.start().await
    }

    /// Waits for the end of a life. False: it came to none.
    async fn ended(&self, index: usize, point: Point) -> Result<bool> {
        let begun = Instant::now();
        while begun.elapsed() < LONGEST_LIFE && !self.stop.load(Ordering::Relaxed) {
            if let Some(status) = self.fleet.replicas[index].bury().await? {
                self.fleet.history.fault(&format!("kill -9 {}", point.words()), &format!("r{index} "));
                ensure!(status.signal() == Some(SIGKILL), "r{index} ended by itself with {status}");
                return Ok(true);
            }
            sleep(LOOK).await;
        }
        Ok(false)
    }

    async fn kill(&self, index: usize, why: &str) -> Result<()> {
        self.fleet.history.fault(&format!("kill -9 {why}"), &format!("r{index} "));
        self.fleet.replicas[index].kill().await
    }

    /// Kills the replica whose call comes next to the upstream, before or after it was redeemed, if that is its fate.
    async fn strike_in_post(&self, blows: &mut mpsc::UnboundedReceiver<(Step, usize)>) {
        let step =
            if self.deaths[2].load(Ordering::Relaxed).is_multiple_of(2) { Step::Received } else { Step::Rotated };
        self.fleet.idp.arm(Some(step));
        let Ok(Some((_, index))) = timeout(Duration::from_millis(300), blows.recv()).await else { return };
        let fated = *self.fates[index].lock().unwrap_or_else(PoisonError::into_inner) == Point::InPost;
        if fated && let Err(error) = self.fleet.replicas[index].signal("KILL").await {
            self.strange.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{error:#}"));
        }
    }

    fn judge(&self, wanted: usize, verdict: &mut Verdict) {
        for (point, deaths) in Point::ALL.iter().zip(&self.deaths) {
            let deaths = deaths.load(Ordering::Relaxed);
            verdict.figure(&format!("kill -9 {}", point.words()), deaths);
            let fair = wanted / Point::ALL.len() / 2;
            verdict.require(deaths >= fair.max(1), format!("only {deaths} kills {}", point.words()));
        }
        let killed = self.killed();
        verdict.figure("kill -9 in all", killed);
        verdict.require(killed >= wanted, format!("only {killed} of {wanted} kills"));
        for text in &*self.strange.lock().unwrap_or_else(PoisonError::into_inner) {
            verdict.require(false, text.as_str());
        }
    }
}
