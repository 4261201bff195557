//! The identity provider and the database are both down for the whole refresh window, and beyond.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use clap::Args;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{
    Common,
    caller::{Ask, Caller, Tally},
    stage::Stage,
    verdict::Verdict,
};
use crate::{
    clock::{Clock, millis},
    scene::{Plan, credentials},
    truth::Lifetime,
};

/// What clients wait for. A call is judged if this much was left of its token when it began, and a little more.
const DEADLINE: Duration = Duration::from_secs(1);
const ROOM: Duration = Duration::from_millis(500);

/// How long the outage goes on after the last token has expired.
const BEYOND: Duration = Duration::from_secs(3);

/// How soon all is served again: the longest backoff that a first failure leaves behind, and some room.
const RECOVERY: Duration = Duration::from_secs(30);

/// Takes everything away.
#[derive(Debug, Args)]
pub(crate) struct Outage {
    #[command(flatten)]
    pub(crate) common: Common,
    /// How long tokens live, in seconds; the refresh window is a third of it
    #[arg(long, default_value_t = 12)]
    lifetime: u64,
    /// Of how many credentials
    #[arg(long, default_value_t = 30)]
    credentials: usize,
    /// How many clients call
    #[arg(long, default_value_t = 24)]
    callers: usize,
}

impl Outage {
    pub(crate) fn plan(&self) -> Plan {
        Plan::new(3, credentials(self.credentials), self.common.seed)
    }

    pub(crate) async fn perform(&self, stage: &mut Stage, verdict: &mut Verdict) -> Result<()> {
        let (fleet, names) = (&stage.fleet, stage.names());
        let clock = fleet.history.clock();
        let expiry = clock.wall_millis() + millis(Duration::from_secs(self.lifetime));
        fleet.truth.set_lifetime(Lifetime::Until(expiry));
        stage.fill(&names).await?;
        let calls = fleet.truth.calls().len();
        fleet.database.go_down().await?;
        fleet.idp.set_down(true);
        let before_window = expiry - clock.wall_millis() > millis(Duration::from_secs(self.lifetime * 44 / 100));
        verdict.require(before_window, "the outage began only after the refresh window");
        verdict.figure("milliseconds of outage before the tokens expired", expiry - clock.wall_millis());

        let load = self.load(stage, &names, expiry);
        let left = Duration::from_millis(u64::try_from(expiry - clock.wall_millis()).unwrap_or(0));
        sleep(left + BEYOND).await;
        load.end().await.judge(verdict);
        verdict.require(fleet.truth.calls().len() == calls, "the upstream was not down");

        fleet.truth.set_lifetime(Lifetime::For(Duration::from_secs(3600)));
        fleet.database.come_up().await?;
        fleet.idp.set_down(false);
        self.recover(stage, &names, verdict).await;
        for replica in &fleet.replicas {
            verdict.require(replica.lives() == 1, format!("r{} was restarted", replica.index));
        }
        Ok(())
    }

    /// Calls all replicas for all tokens; those are judged that began while the token was surely valid until their end.
    fn load(&self, stage: &Stage, names: &[String], expiry: i64) -> Judging {
        let (tally, stop) = (Arc::<Tally>::default(), Arc::new(AtomicBool::new(false)));
        let mut tasks = JoinSet::new();
        let last = expiry - millis(DEADLINE) - millis(ROOM);
        for id in 0..self.callers {
            let (caller, clock) = (stage.caller.clone(), stage.fleet.history.clock());
            let (tally, stop, names) = (Arc::clone(&tally), Arc::clone(&stop), names.to_vec());
            let replicas = stage.fleet.replicas.len();
            tasks.spawn(async move {
                for turn in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let (name, replica) = (&names[(id + turn) % names.len()], (id + turn / names.len()) % replicas);
                    judged_call(&caller, clock, (replica, name), last, &tally).await;
                    sleep(Duration::from_millis(15)).await;
                }
            });
        }
        Judging { tally, stop, tasks }
    }

    /// Asks every replica for every token until all have answered.
    async fn recover(&self, stage: &Stage, names: &[String], verdict: &mut Verdict) {
        let begun = Instant::now();
        let mut waits = JoinSet::new();
        for replica in 0..stage.fleet.replicas.len() {
            for name in names {
                let (caller, name) = (stage.caller.clone(), name.clone());
                waits.spawn(async move {
                    let mut last = String::new();
                    while begun.elapsed() < 2 * RECOVERY {
                        match caller.get(replica, &name, Ask::default(), Duration::from_secs(5)).await {
                            Ok(_) => return Ok(begun.elapsed()),
                            Err(status) => last = format!("{name} of r{replica}: {status}"),
                        }
                        sleep(Duration::from_millis(200)).await;
                    }
                    Err(last)
                });
            }
        }
        let mut took = vec![];
        while let Some(ended) = waits.join_next().await {
            match ended {
                Ok(Ok(time)) => took.push(time),
                Ok(Err(text)) => verdict.require(false, format!("does not recover: {text}")),
                Err(error) => verdict.require(false, error.to_string()),
            }
        }
        verdict.times("served again, without restart", took, 1.0, RECOVERY);
    }
}

/// A load whose calls are judged by the time of their beginning.
struct Judging {
    tally: Arc<Tally>,
    stop: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

impl Judging {
    async fn end(mut self) -> Arc<Tally> {
        self.stop.store(true, Ordering::Relaxed);
        while self.tasks.join_next().await.is_some() {}
        self.tally
    }
}

async fn judged_call(caller: &Caller, clock: Clock, (replica, name): (usize, &str), last: i64, tally: &Tally) {
    let begun = clock.wall_millis();
    let answer = caller.get(replica, name, Ask::default(), DEADLINE).await;
    if begun > last {
        return;
    }
    tally.calls.fetch_add(1, Ordering::Relaxed);
    if let Err(status) = answer {
        let left = last - begun;
        tally.fail(format!("{name} of r{replica}, {left} ms before the last judged call: {status}"));
    }
}
