//! Static stability: what does not rotate is refreshed without the database, by at most one call of each replica; what
//! rotates is not, for its next refresh token could not be stored.

use std::{collections::HashMap, time::Duration};

use anyhow::Result;
use clap::Args;
use tokio::time::sleep;

use super::{Common, caller::Ask, stage::Stage, verdict::Verdict};
use crate::{
    clock::millis,
    scene::{Mode, Plan, of_modes},
    truth::Lifetime,
};

/// What clients wait for.
const DEADLINE: Duration = Duration::from_secs(12);

const MODES: [Mode; 5] = [Mode::Plain, Mode::Kept, Mode::Grace, Mode::Strict, Mode::Overlap];

/// Takes the database away until all tokens have expired.
#[derive(Debug, Args)]
pub(crate) struct Static {
    #[command(flatten)]
    pub(crate) common: Common,
    /// How long the tokens live, in seconds. The last tenth, in which a replica asks alone, is longer than the second for
    /// which a failed attempt is remembered
    #[arg(long, default_value_t = 14)]
    lifetime: u64,
    /// Of how many credentials
    #[arg(long, default_value_t = 10)]
    credentials: usize,
}

impl Static {
    pub(crate) fn plan(&self) -> Plan {
        Plan::new(3, of_modes(&MODES, self.credentials), self.common.seed)
    }

    pub(crate) async fn perform(&self, stage: &mut Stage, verdict: &mut Verdict) -> Result<()> {
        let (fleet, names) = (&stage.fleet, stage.names());
        let clock = fleet.history.clock();
        let expiry = clock.wall_millis() + millis(Duration::from_secs(self.lifetime));
        fleet.truth.set_lifetime(Lifetime::Until(expiry));
        stage.fill(&names).await?;
        fleet.database.go_down().await?;
        fleet.truth.set_lifetime(Lifetime::For(Duration::from_secs(3600)));
        let before = fleet.truth.calls().len();
        let left = Duration::from_millis(u64::try_from(expiry - clock.wall_millis()).unwrap_or(0));
        verdict.require(!left.is_zero(), "the database was still there when the tokens expired");
        sleep(left).await;

        let rotates =
            |name: &str| fleet.truth.number(name).is_some_and(|i| fleet.truth.credentials()[i].mode.rotates());
        for (replica, name) in (0..fleet.replicas.len()).flat_map(|r| names.iter().map(move |name| (r, name))) {
            let answer = stage.caller.get(replica, name, Ask::default(), DEADLINE).await;
            if rotates(name) {
                verdict.require(answer.is_err(), format!("r{replica} has a token of {name} from nowhere"));
            } else if let Err(status) = answer {
                verdict.require(false, format!("r{replica} does not refresh {name} without the database: {status}"));
            }
        }
        let mut calls: HashMap<(usize, String), usize> = HashMap::new();
        for call in fleet.truth.calls().into_iter().skip(before) {
            let name = fleet.truth.credentials()[call.credential].name.clone();
            *calls.entry((call.replica, name)).or_default() += 1;
        }
        for ((replica, name), count) in &calls {
            verdict.require(!rotates(name), format!("r{replica} spent a refresh token of {name} that it cannot store"));
            verdict.require(*count == 1, format!("r{replica} asked {count} times for {name}"));
        }
        verdict.figure("upstream calls of 3 replicas without the database", calls.values().sum::<usize>());
        verdict.figure("credentials that do not rotate", names.iter().filter(|name| !rotates(name)).count());
        self.come_back(stage, &names, verdict).await
    }

    /// With the database back, everything is served again.
    async fn come_back(&self, stage: &Stage, names: &[String], verdict: &mut Verdict) -> Result<()> {
        stage.fleet.database.come_up().await?;
        for name in names {
            let mut last = None;
            for _ in 0..100 {
                last = stage.caller.get(0, name, Ask::default(), DEADLINE).await.err();
                if last.is_none() {
                    break;
                }
                sleep(Duration::from_millis(300)).await;
            }
            verdict.require(last.is_none(), format!("{name} is not served with the database back: {last:?}"));
        }
        Ok(())
    }
}
