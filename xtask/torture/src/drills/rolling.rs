//! Rolling restarts under load: one replica after the other, again and again.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use tokio::time::Instant;

use super::{
    Common,
    caller::Load,
    stage::{START, Stage},
    verdict::Verdict,
};
use crate::scene::{Plan, credentials};

/// What clients wait for.
const DEADLINE: Duration = Duration::from_secs(8);

/// Restarts replicas.
#[derive(Debug, Args)]
pub(crate) struct Rolling {
    #[command(flatten)]
    pub(crate) common: Common,
    /// How often all replicas are restarted; the promise: 20
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// How many clients call meanwhile
    #[arg(long, default_value_t = 16)]
    callers: usize,
}

impl Rolling {
    pub(crate) fn plan(&self) -> Plan {
        Plan::new(3, credentials(12), self.common.seed)
    }

    pub(crate) async fn perform(&self, stage: &mut Stage, verdict: &mut Verdict) -> Result<()> {
        let names = stage.names();
        stage.fill(&names).await?;
        let load = Load::start(&stage.caller, &names, self.callers, DEADLINE, self.common.seed);
        let mut took = vec![];
        for _ in 0..self.rounds {
            let begun = Instant::now();
            for replica in &stage.fleet.replicas {
                replica.end_in_peace().await?;
                replica.start().await?;
                replica.serving(START).await?;
            }
            took.push(begun.elapsed());
        }
        verdict.figure("rolling restarts", self.rounds);
        verdict.times("a rolling restart", took, 1.0, 3 * START);
        load.end().await.judge(verdict);
        Ok(())
    }
}
