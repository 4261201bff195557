//! The drills: each does one thing often, under load, and measures one promise of the fleet.
//!
//! By default they are short. The help of each option says what the promise asks for.

mod acknowledged;
mod caller;
mod exact;
mod kills;
mod outage;
mod rolling;
mod sigterm;
mod stage;
mod statics;
mod takeover;
mod verdict;

use anyhow::Result;
use clap::{Args, Parser as _, Subcommand};
use futures::{StreamExt as _, TryStreamExt as _, stream};

use self::{stage::Stage, verdict::Verdict};
use crate::{Place, scene::Plan};

/// What all drills have in common.
#[derive(Clone, Debug, Args)]
pub(crate) struct Common {
    /// Of all that is random
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Print times, and do not fail for them: for machines that have other things to do
    #[arg(long)]
    pub(crate) lenient: bool,
}

/// One drill.
#[derive(Debug, Subcommand)]
pub(crate) enum Drill {
    /// One upstream call for each refresh, fleet-wide, also where 1,000 tokens expire in one second
    Exact(exact::Exact),
    /// No refresh token is lost to kill -9 at any point of a refresh; at a strict upstream none is lost in silence
    Kills(kills::Kills),
    /// A rejection is acknowledged in time, and from then on nobody serves the token as verified
    Acknowledged(acknowledged::Acknowledged),
    /// Valid tokens are served while the identity provider and the database are both down
    Outage(outage::Outage),
    /// A holder that is killed in the midst of a refresh is succeeded in time
    Takeover(takeover::Takeover),
    /// SIGTERM under load: an end in time, and no error for clients that retry once
    Sigterm(sigterm::Sigterm),
    /// Rolling restarts under load: no error for clients that retry once
    Rolling(rolling::Rolling),
    /// Credentials that do not rotate are refreshed without the database; those that do are not
    Static(statics::Static),
    /// All of them, short
    All(All),
}

/// All drills.
#[derive(Debug, Args)]
pub(crate) struct All {
    #[command(flatten)]
    common: Common,
    /// How many drills there are at a time; more than one disturb each other's times
    #[arg(long, default_value_t = 1)]
    at_once: usize,
}

impl Drill {
    /// Its name on the command line.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Exact(_) => "exact",
            Self::Kills(_) => "kills",
            Self::Acknowledged(_) => "acknowledged",
            Self::Outage(_) => "outage",
            Self::Takeover(_) => "takeover",
            Self::Sigterm(_) => "sigterm",
            Self::Rolling(_) => "rolling",
            Self::Static(_) => "static",
            Self::All(_) => "all",
        }
    }

    fn common(&self) -> &Common {
        match self {
            Self::Exact(drill) => &drill.common,
            Self::Kills(drill) => &drill.common,
            Self::Acknowledged(drill) => &drill.common,
            Self::Outage(drill) => &drill.common,
            Self::Takeover(drill) => &drill.common,
            Self::Sigterm(drill) => &drill.common,
            Self::Rolling(drill) => &drill.common,
            Self::Static(drill) => &drill.common,
            Self::All(all) => &all.common,
        }
    }

    fn plan(&self) -> Plan {
        match self {
            Self::Exact(drill) => drill.plan(),
            Self::Kills(drill) => drill.plan(),
            Self::Acknowledged(drill) => drill.plan(),
            Self::Outage(drill) => drill.plan(),
            Self::Takeover(drill) => drill.plan(),
            Self::Sigterm(drill) => drill.plan(),
            Self::Rolling(drill) => drill.plan(),
            Self::Static(drill) => drill.plan(),
            Self::All(_) => unreachable!("it consists of the others"),
        }
    }

    async fn perform(&self, stage: &mut Stage, verdict: &mut Verdict) -> Result<()> {
        match self {
            Self::Exact(drill) => drill.perform(stage, verdict).await,
            Self::Kills(drill) => drill.perform(stage, verdict).await,
            Self::Acknowledged(drill) => drill.perform(stage, verdict).await,
            Self::Outage(drill) => drill.perform(stage, verdict).await,
            Self::Takeover(drill) => drill.perform(stage, verdict).await,
            Self::Sigterm(drill) => drill.perform(stage, verdict).await,
            Self::Rolling(drill) => drill.perform(stage, verdict).await,
            Self::Static(drill) => drill.perform(stage, verdict).await,
            Self::All(_) => unreachable!("it consists of the others"),
        }
    }
}

/// Performs a drill, or all; whether what was promised held.
pub(crate) async fn run(place: &Place, drill: &Drill) -> Result<bool> {
    let Drill::All(all) = drill else { return run_one(place, drill).await };
    let drills = each(&all.common)?;
    // A replica that gets no time for seconds is out of touch, and rightly asks alone: nothing is exact then.
    let (alone, beside): (Vec<_>, Vec<_>) = drills.iter().partition(|drill| matches!(drill, Drill::Exact(_)));
    let mut held = true;
    for (drills, at_once) in [(alone, 1), (beside, all.at_once.max(1))] {
        let performed = stream::iter(drills).map(|drill| run_one(place, drill)).buffer_unordered(at_once);
        held &= performed.try_fold(true, |held, one| async move { Ok(held & one) }).await?;
    }
    println!("\nall drills: {}", if held { "passed" } else { "FAILED" });
    Ok(held)
}

async fn run_one(place: &Place, drill: &Drill) -> Result<bool> {
    let (name, common) = (drill.name(), drill.common());
    let mut stage = Stage::set(place, &drill.plan()).await?;
    let mut verdict = Verdict::new(common.lenient);
    let performed = drill.perform(&mut stage, &mut verdict).await;
    if let Err(error) = &performed {
        verdict.require(false, format!("the drill came to no end: {error:#}"));
    }
    stage.look_for_panics(&mut verdict)?;
    let (took, seed) = (stage.seconds(), common.seed);
    // At once: other drills may be under way.
    println!("\ndrill {name}\n{}drill {name}: {}, seed {seed}, {took:.1} s", verdict.describe(), verdict.word());
    if !verdict.holds() {
        place.keep(&stage.fleet, &format!("drill-{name}"))?;
    }
    Ok(verdict.holds())
}

/// Each drill with the defaults of its own, as the command line would give them.
fn each(common: &Common) -> Result<Vec<Drill>> {
    #[derive(clap::Parser)]
    struct Line {
        #[command(subcommand)]
        drill: Drill,
    }
    let seed = common.seed.to_string();
    let names = ["exact", "sigterm", "acknowledged", "kills", "outage", "takeover", "static", "rolling"];
    let lines = names.into_iter().map(|name| {
        let lenient = common.lenient.then_some("--lenient");
        Line::try_parse_from(["drill", name, "--seed", &seed].into_iter().chain(lenient))
    });
    lines.map(|line| Ok(line?.drill)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_every_drill_with_its_defaults() {
        let drills = each(&Common { seed: 7, lenient: true }).expect("each has defaults");
        assert_eq!(drills.len(), 8);
        assert!(drills.iter().all(|drill| drill.common().seed == 7 && drill.common().lenient));
    }
}
