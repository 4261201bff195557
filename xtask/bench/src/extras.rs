//! What is measured beside the rounds: latency at a fixed rate, with and without misses; a herd on a cold key; a client
//! that keeps its copy.

use std::{hint::black_box, time::Duration};

use anyhow::{Context as _, Result, ensure};
use tokencache_client::Client;

use crate::{
    clock::now,
    contenders::{self, Contender, Host, Name, Tokencached},
    figures::Spread,
    load::{Keys, Pace},
    rounds::{self, Effort, Sample, Samples, Shape},
    stand_in::LATE,
};

/// How much of what stock tonic takes at most is a moderate rate.
const MODERATE: f64 = 0.4;

/// One call in so many is a miss, and how long the upstream takes then.
const MISS_EVERY: u32 = 10;
const MISS_TAKES: Duration = LATE;

/// The first key that nobody asks for otherwise.
const COLD: u32 = 50_000_000;

/// Cold keys of a round.
const COLD_PER_ROUND: u32 = 1_000_000;

/// A herd: so many clients' calls, over so many connections.
const HERD: Shape = Shape { connections: 100, streams: 100 };

/// How often a client reads.
const READS: u32 = 2_000_000;

/// Latencies at a fixed rate.
#[derive(Debug)]
pub(crate) struct Rated {
    pub(crate) shape: Shape,
    /// Calls a second.
    pub(crate) rate: f64,
    /// Whether one call in ten was a miss of the broker.
    pub(crate) misses: bool,
    pub(crate) tokencached: Vec<Sample>,
    pub(crate) tonic: Vec<Sample>,
    /// Of stock tonic that lets one call in ten wait as long as a miss takes, but has nothing to do meanwhile.
    pub(crate) late_tonic: Vec<Sample>,
}

impl Rated {
    /// At this rate, before anything is measured.
    fn new(shape: Shape, rate: f64, misses: bool) -> Self {
        Self { shape, rate, misses, tokencached: vec![], tonic: vec![], late_tonic: vec![] }
    }

    /// The broker's figure over stock tonic's, round by round.
    pub(crate) fn ratio(&self, figure: fn(&Sample) -> f64) -> Option<Spread> {
        ratio(&self.tokencached, &self.tonic, figure)
    }

    /// The same over that of stock tonic that has late calls.
    pub(crate) fn ratio_to_late(&self, figure: fn(&Sample) -> f64) -> Option<Spread> {
        ratio(&self.tokencached, &self.late_tonic, figure)
    }
}

fn ratio(of: &[Sample], base: &[Sample], figure: fn(&Sample) -> f64) -> Option<Spread> {
    Spread::of(of.iter().zip(base).map(|(of, base)| figure(of) / figure(base)))
}

/// A moderate rate for a shape: a share of what stock tonic took at most, in round numbers.
pub(crate) fn moderate(samples: &Samples, shape: Shape) -> Option<f64> {
    let most = Spread::of(samples.get(&(shape, Name::Tonic))?.iter().map(|sample| sample.throughput))?;
    Some((most.median * MODERATE / 1000.0).round().max(1.0) * 1000.0)
}

/// Hits alone, at a rate.
pub(crate) fn rated(
    contenders: &[Contender],
    keys: u32,
    shape: Shape,
    rate: f64,
    effort: Effort,
) -> Result<Option<Rated>> {
    let find = |name| contenders.iter().find(|contender| contender.name == name);
    let (Some(broker), Some(tonic)) = (find(Name::Tokencached), find(Name::Tonic)) else { return Ok(None) };
    let mut rated = Rated::new(shape, rate, false);
    for round in 0..effort.rounds {
        let once = |contender| rounds::once(contender, shape, Pace::Rate(rate), Keys::warm(keys), effort, round);
        rated.tokencached.push(once(broker)?);
        rated.tonic.push(once(tonic)?);
    }
    Ok(Some(rated))
}

/// The broker with misses among the calls, of which only the hits count, and stock tonic without; and stock tonic that lets
/// as many calls wait, which do not count either.
pub(crate) fn with_misses(host: &Host, tonic: &Contender, shape: Shape, rate: f64, effort: Effort) -> Result<Rated> {
    let broker = Tokencached::open("misses").start_wide(host)?;
    broker.serving()?;
    broker.ask_all(host.keys)?;
    let late = contenders::start_late(host, COLD)?;
    host.upstream.set_delay(MISS_TAKES);
    let mut rated = Rated::new(shape, rate, true);
    for round in 0..effort.rounds {
        let cold = COLD + u32::try_from(round)? * COLD_PER_ROUND;
        let keys = Keys { first: 0, warm: host.keys, cold: Some((MISS_EVERY, cold)) };
        rated.tokencached.push(rounds::once(&broker, shape, Pace::Rate(rate), keys, effort, round)?);
        rated.tonic.push(rounds::once(tonic, shape, Pace::Rate(rate), Keys::warm(host.keys), effort, round)?);
        rated.late_tonic.push(rounds::once(&late, shape, Pace::Rate(rate), keys, effort, round)?);
    }
    host.upstream.set_delay(Duration::ZERO);
    Ok(rated)
}

/// What became of a herd.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Herd {
    pub(crate) clients: u64,
    /// Calls of the upstream, of each round the most.
    pub(crate) upstream: u64,
    /// From the first call to the last answer, in milliseconds.
    pub(crate) took: Spread,
    /// What the upstream took of it.
    pub(crate) upstream_took: Duration,
}

/// Has a herd ask for a key that nobody has asked for before, in each round another one.
pub(crate) fn herd(host: &Host, rounds: usize) -> Result<Herd> {
    let broker = Tokencached::open("herd").start_wide(host)?;
    host.upstream.set_delay(MISS_TAKES);
    let (mut took, mut upstream) = (vec![], 0);
    let clients = (HERD.connections * HERD.streams) as u64;
    for round in 0..rounds {
        let keys = Keys { first: COLD + u32::try_from(round)?, warm: 1, cold: None };
        let before = host.upstream.calls();
        let tally = broker.drive(&broker.plan(HERD.connections, HERD.streams, Pace::Herd, keys))?;
        ensure!(tally.right == clients, "of the herd {} were answered: {}", tally.right, tally.faults());
        upstream = upstream.max(host.upstream.calls() - before);
        took.push(tally.window.as_secs_f64() * 1e3);
    }
    host.upstream.set_delay(Duration::ZERO);
    let took = Spread::of(took).context("no rounds")?;
    Ok(Herd { clients, upstream, took, upstream_took: MISS_TAKES })
}

/// What reading a client's own copy takes, in nanoseconds; the best of the rounds, for the rest is others' work.
pub(crate) fn client_read(broker: &Contender) -> Result<f64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = Client::builder().endpoint(format!("http://{}", broker.address)).build()?;
        let source = client.source("k00000000");
        source.get().await?;
        let mut best = Duration::MAX;
        for _ in 0..10 {
            let begun = now();
            for _ in 0..READS {
                drop(black_box(source.current()));
            }
            best = best.min(begun.elapsed());
        }
        ensure!(source.current().is_some(), "there was nothing to read");
        Ok(best.as_secs_f64() * 1e9 / f64::from(READS))
    })
}

/// A round trip to Redis and back by a client alone, in nanoseconds.
pub(crate) fn redis_round_trip(redis: &Contender, keys: u32, effort: Effort) -> Result<Spread> {
    let alone = Shape { connections: 1, streams: 1 };
    let mut trips = vec![];
    for round in 0..effort.rounds {
        trips.push(rounds::once(redis, alone, Pace::Closed, Keys::warm(keys), effort, round)?.p50 * 1e3);
    }
    Spread::of(trips).context("no rounds")
}
