//! A holder that is killed in the midst of a refresh: how soon another replica has refreshed.

use std::{collections::HashMap, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use clap::Args;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until, timeout_at},
};

use super::{
    Common,
    caller::{Ask, Caller},
    stage::{START, Stage},
    verdict::Verdict,
};
use crate::{
    idp::Step,
    scene::{Mode, Plan, of_modes},
    truth::Lifetime,
};

/// What is promised where a replay does no harm; where it does, the upstream's deadline and [`ROOM`].
const LENIENT: Duration = Duration::from_secs(6);
const ROOM: Duration = Duration::from_secs(3);

/// How long the others are waited for at most.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long one call of a waiting client lasts.
const DEADLINE: Duration = Duration::from_secs(20);

const MODES: [Mode; 5] = [Mode::Kept, Mode::Grace, Mode::Strict, Mode::Overlap, Mode::Strict];

/// Kills holders at the upstream.
#[derive(Debug, Args)]
pub(crate) struct Takeover {
    #[command(flatten)]
    pub(crate) common: Common,
    /// How often a replica is killed
    #[arg(long, default_value_t = 2)]
    rounds: usize,
    /// Of how many credentials a call is under way then
    #[arg(long, default_value_t = 15)]
    credentials: usize,
    /// The deadline of upstream calls, in seconds; the broker's own default is 10
    #[arg(long, default_value_t = 3)]
    timeout: u64,
}

/// How long successors took, by the kind of provider.
#[derive(Debug, Default)]
struct Times {
    none: Vec<Duration>,
    grace: Vec<Duration>,
    strict: Vec<Duration>,
}

impl Takeover {
    pub(crate) fn plan(&self) -> Plan {
        let mut plan = Plan::new(3, of_modes(&MODES, self.credentials), self.common.seed);
        plan.timeout = Duration::from_secs(self.timeout);
        plan
    }

    pub(crate) async fn perform(&self, stage: &mut Stage, verdict: &mut Verdict) -> Result<()> {
        stage.fleet.truth.set_lifetime(Lifetime::For(Duration::from_secs(6 * 3600)));
        let names = stage.names();
        let mut times = Times::default();
        for round in 0..self.rounds {
            // Received: nothing was done. Rotated: the upstream has replaced the refresh token, which at a strict one
            // nobody can make good; those are left out then.
            let step = if round % 2 == 0 { Step::Received } else { Step::Rotated };
            let strict = |name: &&String| step == Step::Received || !name.starts_with("strict");
            let names: Vec<String> = names.iter().filter(strict).cloned().collect();
            self.round(stage, &names, step, &mut times, verdict).await?;
        }
        let strict = Duration::from_secs(self.timeout) + ROOM;
        verdict.times("rotation none: refreshed after the holder's kill -9", times.none, 1.0, LENIENT);
        verdict.times("rotation grace: refreshed after the holder's kill -9", times.grace, 1.0, LENIENT);
        verdict.times("rotation strict: refreshed after the holder's kill -9", times.strict, 1.0, strict);
        let overlaps = stage.fleet.truth.overlaps();
        verdict.require(overlaps.is_empty(), format!("two live calls with one refresh token: {overlaps:?}"));
        Ok(())
    }

    /// Has every credential refreshed, kills the replica with the most calls, and times the others.
    async fn round(
        &self,
        stage: &Stage,
        names: &[String],
        step: Step,
        times: &mut Times,
        verdict: &mut Verdict,
    ) -> Result<()> {
        let (fleet, idp) = (&stage.fleet, &stage.fleet.idp);
        stage.fill(names).await?;
        let generations = stage.ask_all(names, Ask::default(), DEADLINE).await?;
        let known: HashMap<String, u64> = names.iter().cloned().zip(generations).collect();
        idp.hold(Some(step));
        let (killed, mut waiting) = (watch::Sender::new(None), JoinSet::new());
        for (replica, (name, not)) in (0..fleet.replicas.len()).flat_map(|r| known.iter().map(move |known| (r, known)))
        {
            let client = Waiting { caller: stage.caller.clone(), replica, name: name.clone(), not: *not };
            waiting.spawn(client.successor(killed.subscribe()));
        }
        stage.until("a call of each credential at the upstream", PATIENCE, || idp.held() == names.len()).await?;

        let holders = holders(stage);
        let held_by = |index: usize| holders.values().filter(|holder| **holder == index).count();
        let victim = (0..fleet.replicas.len()).max_by_key(|index| held_by(*index)).context("there are no replicas")?;
        fleet.replicas[victim].kill().await?;
        let at = Instant::now();
        killed.send_replace(Some((victim, at)));
        let given_up = || !fleet.truth.calls().iter().any(|call| call.replica == victim && call.ended.is_none());
        stage.until("the killed replica's calls to end", PATIENCE, given_up).await?;
        idp.hold(None);

        while let Some(ended) = waiting.join_next().await {
            let (name, replica, refreshed) = ended?;
            if replica == victim || holders.get(&name) != Some(&victim) {
                continue;
            }
            match refreshed {
                Some(when) => times.of(&name).push(when - at),
                None => verdict.require(false, format!("{name} was not refreshed by r{replica} within {PATIENCE:?}")),
            }
        }
        fleet.replicas[victim].start().await?;
        fleet.replicas[victim].serving(START).await
    }
}

impl Times {
    fn of(&mut self, name: &str) -> &mut Vec<Duration> {
        match name.split('-').next() {
            Some("kept") => &mut self.none,
            Some("strict") => &mut self.strict,
            _ => &mut self.grace,
        }
    }
}

/// Which replica's call is under way, by credential.
fn holders(stage: &Stage) -> HashMap<String, usize> {
    let truth = &stage.fleet.truth;
    let open = truth.calls().into_iter().filter(|call| call.ended.is_none());
    open.map(|call| (truth.credentials()[call.credential].name.clone(), call.replica)).collect()
}

/// A client that has reported a token and wants the next one.
struct Waiting {
    caller: Caller,
    replica: usize,
    name: String,
    not: u64,
}

impl Waiting {
    /// Asks until it is there, or its replica is the one that was killed. When it was there.
    async fn successor(
        self,
        mut killed: watch::Receiver<Option<(usize, Instant)>>,
    ) -> (String, usize, Option<Instant>) {
        let Self { caller, replica, name, not } = self;
        let asked = Arc::new(name.clone());
        let asking = async {
            loop {
                let ask = Ask { rejected: not, ..Ask::default() };
                match caller.get(replica, &asked, ask, DEADLINE).await {
                    Ok(_) => return Instant::now(),
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        };
        let end = async {
            let killed = killed.wait_for(Option::is_some).await.ok().and_then(|killed| *killed);
            match killed {
                Some((victim, _)) if victim == replica => {}
                Some((_, at)) => sleep_until(at + PATIENCE).await,
                None => {}
            }
        };
        let far = Instant::now() + 2 * PATIENCE;
        let refreshed = timeout_at(far, async {
            tokio::select! {
                at = asking => Some(at),
                () = end => None,
            }
        });
        let refreshed = refreshed.await.unwrap_or(None);
        (name, replica, refreshed)
    }
}
