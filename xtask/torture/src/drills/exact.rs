//! One upstream call for each refresh, however many replicas and callers want it.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use anyhow::Result;
use clap::Args;
use tokio::time::sleep;

use super::{Common, caller::Ask, stage::Stage, verdict::Verdict};
use crate::{
    clock::millis,
    scene::{Credential, Mode, Plan, of_modes},
    truth::Lifetime,
};

/// What the clients of a herd wait for at most.
const DEADLINE: Duration = Duration::from_secs(30);

/// Long enough for no further refresh to come.
const FOR_GOOD: Duration = Duration::from_secs(6 * 3600);

/// How often each replica is asked for each token of a herd.
const CALLERS: usize = 2;

/// Counts upstream calls against generations.
#[derive(Debug, Args)]
pub(crate) struct Exact {
    #[command(flatten)]
    pub(crate) common: Common,
    /// How many refreshes ahead of expiry; the promise: 10000
    #[arg(long, default_value_t = 100)]
    refreshes: usize,
    /// Of how many credentials
    #[arg(long, default_value_t = 60)]
    credentials: usize,
    /// How long their tokens live, in milliseconds; they are refreshed after some 60 % of it
    #[arg(long, default_value_t = 3000)]
    lifetime_ms: u64,
    /// How many tokens expire in one second; the promise: 1000
    #[arg(long, default_value_t = 50)]
    herd: usize,
    /// How long the tokens of a herd live, in seconds
    #[arg(long, default_value_t = 6)]
    herd_lifetime: u64,
}

impl Exact {
    pub(crate) fn plan(&self) -> Plan {
        let modes = [Mode::Grace, Mode::Strict, Mode::Kept, Mode::Plain, Mode::Overlap];
        let mut credentials = of_modes(&modes, self.credentials);
        let herd = |kind: &'static str, rules| {
            let named = move |(i, credential): (usize, Credential)| {
                let Credential { mode, .. } = credential;
                Credential { name: format!("{kind}-{mode}-{i}"), mode, rules }
            };
            of_modes(&modes, self.herd).into_iter().enumerate().map(named).collect::<Vec<_>>()
        };
        credentials.extend(herd("ahead", ""));
        // Nobody asks for them after the first time, so they are not refreshed ahead: they expire.
        credentials.extend(herd("cold", "idle_window = \"1s\"\n"));
        let mut plan = Plan::new(3, credentials, self.common.seed);
        plan.log = "info".to_owned();
        // The broker's own default: an upstream that is slow because this machine is must not cost a second call.
        plan.timeout = Duration::from_secs(10);
        plan
    }

    pub(crate) async fn perform(&self, stage: &mut Stage, verdict: &mut Verdict) -> Result<()> {
        let names = stage.names();
        let (steady, herds) = names.split_at(self.credentials);
        let (ahead, cold) = herds.split_at(self.herd);
        self.refresh_steadily(stage, steady, verdict).await?;
        self.herd(stage, ahead, true, verdict).await?;
        self.herd(stage, cold, false, verdict).await?;
        let (calls, generations) = (stage.fleet.truth.calls().len(), stage.fleet.database.generations().await?);
        verdict.figure("upstream calls", calls);
        verdict.figure("generations minted", generations);
        verdict.require(i64::try_from(calls)? == generations, "not one upstream call for each generation");
        Ok(())
    }

    /// Tokens in use on all replicas are refreshed ahead again and again.
    async fn refresh_steadily(&self, stage: &Stage, names: &[String], verdict: &mut Verdict) -> Result<()> {
        let (truth, lifetime) = (&stage.fleet.truth, Duration::from_millis(self.lifetime_ms));
        truth.set_lifetime(Lifetime::For(lifetime));
        stage.fill(names).await?;
        let (wanted, begun) = (names.len() + self.refreshes, now());
        let patience = lifetime * u32::try_from(3 + 2 * self.refreshes / names.len().max(1))?;
        stage.until("enough refreshes", patience, || truth.calls().len() >= wanted).await?;
        let took = begun.elapsed();
        truth.set_lifetime(Lifetime::For(FOR_GOOD));
        // Each key is refreshed once more, for long; then nobody calls any more.
        sleep(lifetime).await;
        let generations = stage.ask_all(names, Ask::default(), DEADLINE).await?;
        let counts = calls_by_credential(stage);
        let (first_replica, _) = generations.split_at(names.len());
        for (name, generation) in names.iter().zip(first_replica) {
            let calls = counts.get(name).copied().unwrap_or_default();
            verdict.require(calls == *generation, format!("{name}: {calls} upstream calls, generation {generation}"));
        }
        let (calls, keys) = (truth.calls().len(), names.len());
        verdict.figure("refreshes ahead of expiry", calls - keys);
        verdict.figure("upstream calls beyond one each", calls as u64 - first_replica.iter().sum::<u64>());
        verdict.figure("refreshes a second", (calls - keys) as u64 / took.as_secs().max(1));
        Ok(())
    }

    /// All tokens expire at one time, and every replica has them in memory; `ahead`: they are in use until then.
    async fn herd(&self, stage: &Stage, names: &[String], ahead: bool, verdict: &mut Verdict) -> Result<()> {
        let truth = &stage.fleet.truth;
        let expiry = wall(stage) + millis(Duration::from_secs(self.herd_lifetime));
        truth.set_lifetime(Lifetime::Until(expiry));
        let before = truth.calls().len();
        stage.fill(names).await?;
        let filled = truth.calls().len() - before;
        verdict.require(filled == names.len(), format!("{filled} calls for the first {} tokens", names.len()));
        verdict.require(wall(stage) < expiry, "the first tokens were not there before they expired");
        truth.set_lifetime(Lifetime::For(FOR_GOOD));

        let filled = truth.calls().len();
        let until_expiry = Duration::from_millis(u64::try_from(expiry - wall(stage)).unwrap_or(0));
        sleep(until_expiry).await;
        let begun = now();
        let asked = (0..CALLERS).map(|_| stage.ask_all(names, Ask::default(), DEADLINE));
        for generations in futures::future::try_join_all(asked).await? {
            let old = generations.iter().filter(|generation| **generation != 2).count();
            verdict.require(old == 0, format!("{old} callers did not get the second generation"));
        }
        let calls = truth.calls().len() - filled;
        let kind = if ahead { "in use" } else { "not in use" };
        verdict.figure(&format!("upstream calls for {} tokens {kind} that expired together", names.len()), calls);
        verdict.figure(&format!("milliseconds until {} calls had the next ones", 3 * CALLERS * names.len()), {
            begun.elapsed().as_millis()
        });
        verdict.require(calls == names.len(), format!("{calls} upstream calls for {} tokens", names.len()));
        Ok(())
    }
}

fn calls_by_credential(stage: &Stage) -> HashMap<String, u64> {
    let mut counts = HashMap::new();
    for call in stage.fleet.truth.calls() {
        *counts.entry(stage.fleet.truth.credentials()[call.credential].name.clone()).or_default() += 1;
    }
    counts
}

fn wall(stage: &Stage) -> i64 {
    stage.fleet.history.clock().wall_millis()
}

#[expect(clippy::disallowed_methods, reason = "a drill measures")]
fn now() -> Instant {
    Instant::now()
}
