//! Rounds: every contender in turn under the same load, again and again, so that what else the machine does hits all alike.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, ensure};

use crate::{
    clock::micros,
    contenders::{Contender, Name},
    load::{Keys, Pace, Tally},
};

/// So many connections with so many calls in progress on each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Shape {
    pub(crate) connections: usize,
    pub(crate) streams: usize,
}

/// The shapes that the promises are made for.
pub(crate) const FEW: Shape = Shape { connections: 16, streams: 1 };
pub(crate) const WIDE: Shape = Shape { connections: 64, streams: 1 };
pub(crate) const MANY: Shape = Shape { connections: 64, streams: 32 };

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} × {}", self.connections, self.streams)
    }
}

impl Shape {
    /// Who takes part: servers that take one request at a time on a connection have their own shapes.
    pub(crate) fn has(self, name: Name) -> bool {
        match name {
            Name::Redis => self == FEW,
            Name::Postgres => self.streams == 1,
            // There for the comparison with Postgres; nginx to show what HTTP/2 takes by itself.
            Name::Tokencached | Name::Tonic | Name::Nginx => true,
            _ => self != WIDE,
        }
    }
}

/// How long and how often.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    pub(crate) rounds: usize,
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
}

/// What one contender did in one round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Right answers a second.
    pub(crate) throughput: f64,
    /// Of the server, for each right answer, in microseconds.
    pub(crate) cost: f64,
    /// Of answers that were in the cache, in microseconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) worst: f64,
    /// How much of a core the server used.
    pub(crate) load: f64,
    /// Bytes of an answer.
    pub(crate) bytes: f64,
}

impl Sample {
    pub(crate) fn of(tally: &Tally) -> Self {
        Self {
            throughput: tally.throughput(),
            cost: micros(tally.cost()),
            p50: micros(tally.warm.percentile(50.0)),
            p99: micros(tally.warm.percentile(99.0)),
            worst: micros(tally.warm.longest()),
            load: tally.load(),
            bytes: tally.bytes as f64 / tally.right.max(1) as f64,
        }
    }
}

/// The samples of all rounds, by shape and contender.
pub(crate) type Samples = BTreeMap<(Shape, Name), Vec<Sample>>;

/// Runs the rounds of closed loops.
pub(crate) fn closed(
    contenders: &[Contender],
    keys: u32,
    effort: Effort,
    mut tell: impl FnMut(&str),
) -> Result<Samples> {
    let mut samples = Samples::new();
    for round in 0..effort.rounds {
        for shape in [FEW, WIDE, MANY] {
            for contender in contenders.iter().filter(|contender| shape.has(contender.name)) {
                let sample = once(contender, shape, Pace::Closed, Keys::warm(keys), effort, round)?;
                tell(&format!(
                    "round {}, {shape}, {}: {:.2} µs, {:.0}/s, core {:.0} %",
                    round + 1,
                    contender.name,
                    sample.cost,
                    sample.throughput,
                    sample.load * 100.0
                ));
                samples.entry((shape, contender.name)).or_default().push(sample);
            }
        }
    }
    Ok(samples)
}

/// One contender's turn. Anything but right answers is an error: a figure with failures in it is worth nothing.
pub(crate) fn once(
    contender: &Contender,
    shape: Shape,
    pace: Pace,
    keys: Keys,
    effort: Effort,
    round: usize,
) -> Result<Sample> {
    let mut plan = contender.plan(shape.connections, shape.streams, pace, keys);
    (plan.warm_up, plan.measured, plan.seed) = (effort.warm_up, effort.measured, round as u64 + 1);
    let tally = contender.drive(&plan).with_context(|| contender.name.about())?;
    ensure!(tally.wrong.is_empty() && tally.warm.count() > 0, "{}: {}", contender.name, tally.faults());
    Ok(Sample::of(&tally))
}
