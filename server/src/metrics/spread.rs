//! Counting on every hit: each number has several copies in cache lines of their own, so that threads rarely share one.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder, NoLabelSet},
    metrics::MetricType,
};

/// How many copies there are of a number that is counted on hits.
pub(super) const SPREAD: usize = 8;

/// The number of this thread. It says nothing but which copy to use.
#[must_use]
pub fn thread_number() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static HERE: usize = THREADS.fetch_add(1, Relaxed);
    }
    HERE.with(|here| *here)
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Copy(AtomicU64);

/// A counter that is counted on hits. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub struct SpreadCounter(Arc<[Copy; SPREAD]>);

impl SpreadCounter {
    /// Counts one.
    pub fn inc(&self) {
        self.0[thread_number() % SPREAD].0.fetch_add(1, Relaxed);
    }

    /// How many were counted.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.iter().map(|copy| copy.0.load(Relaxed)).sum()
    }
}

impl EncodeMetric for SpreadCounter {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        encoder.encode_counter::<NoLabelSet, _, u64>(&self.get(), None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_all_threads_count_is_one_number() {
        let counter = SpreadCounter::default();
        std::thread::scope(|scope| {
            for _ in 0..2 * SPREAD {
                scope.spawn(|| (0..1000).for_each(|_| counter.inc()));
            }
        });
        assert_eq!(counter.get(), 16_000);
    }
}
