//! What reading a token costs, beside the bare `ArcSwap` load that it is made of, in the same run:
//! `cargo bench -p tokencache-client`.
//!
//! Fails if it costs more than twice as much, or allocates.

use std::{hint::black_box, process::ExitCode, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use tokencache_client::{TokenSource, testing::MemoryBroker};
use tokio::time::Instant;

const LOADS: u32 = 2_000_000;

/// Of so many rounds the best one counts: what disturbs a round only makes it slower.
const ROUNDS: usize = 25;

const LIMIT: f64 = 2.0;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let broker = MemoryBroker::new();
    broker.add("api", Duration::from_secs(3600));
    let source = broker.client().source("api");
    source.get().await.expect("a token");
    let bare = ArcSwapOption::new(Some(Arc::new(7_u64)));

    let allocations = allocation_counter::measure(|| drop(black_box(source.current()))).count_total;
    let (mut bare_best, mut source_best) = (Duration::MAX, Duration::MAX);
    for _ in 0..ROUNDS {
        bare_best = bare_best.min(time(|| drop(black_box(bare.load()))));
        source_best = source_best.min(time(|| read(&source)));
    }
    let nanos = |round: Duration| round.as_secs_f64() * 1e9 / f64::from(LOADS);
    let (bare, source) = (nanos(bare_best), nanos(source_best));
    let ratio = source / bare;
    let report = format!(
        "a bare ArcSwap load   {bare:6.1} ns\nTokenSource::current  {source:6.1} ns, {ratio:.2} times that \
         (limit {LIMIT}), {allocations} allocations (limit 0)\n"
    );
    std::io::Write::write_all(&mut std::io::stdout(), report.as_bytes()).expect("somebody reads it");
    if ratio <= LIMIT && allocations == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn read(source: &TokenSource) {
    drop(black_box(source.current()));
}

fn time(load: impl Fn()) -> Duration {
    let begun = Instant::now();
    for _ in 0..LOADS {
        load();
    }
    begun.elapsed()
}
