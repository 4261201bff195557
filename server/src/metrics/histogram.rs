//! A histogram that many threads observe at once: two relaxed additions, no lock. prometheus-client's own takes a lock for
//! each observation, which is one shared by all hits.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder, NoLabelSet},
    metrics::{MetricType, TypedMetric, family::MetricConstructor},
};

use super::spread::{SPREAD, thread_number};

/// The most bounds that a histogram may have; beyond the last one there is one more bucket.
const MAX_BOUNDS: usize = 23;

/// What is observed, and where its buckets end.
#[derive(Debug)]
pub struct Scale {
    /// The upper ends of the buckets, ascending, in `unit`s.
    bounds: &'static [u64],
    /// How many `unit`s a second has.
    per_second: u32,
}

impl Scale {
    /// Times of work inside the process, from a microsecond on, in nanoseconds.
    pub const FINE: Self = Self {
        bounds: &[
            1_000,
            2_500,
            5_000,
            10_000,
            25_000,
            50_000,
            100_000,
            250_000,
            500_000,
            1_000_000,
            2_500_000,
            5_000_000,
            10_000_000,
            25_000_000,
            50_000_000,
            100_000_000,
            250_000_000,
            500_000_000,
            1_000_000_000,
            2_500_000_000,
            5_000_000_000,
            10_000_000_000,
            30_000_000_000,
        ],
        per_second: 1_000_000_000,
    };

    /// Times of round trips to a database, in nanoseconds.
    pub const STORE: Self = Self {
        bounds: &[
            100_000,
            250_000,
            500_000,
            1_000_000,
            2_500_000,
            5_000_000,
            10_000_000,
            25_000_000,
            50_000_000,
            100_000_000,
            250_000_000,
            500_000_000,
            1_000_000_000,
            2_500_000_000,
            10_000_000_000,
        ],
        per_second: 1_000_000_000,
    };

    /// Times of calls over a network, in microseconds.
    pub const CALLS: Self = Self {
        bounds: &[
            5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000,
            30_000_000,
        ],
        per_second: 1_000_000,
    };

    /// What is left of tokens' lives, in whole seconds: a sum of ten-year tokens must not run over.
    pub const LIVES: Self =
        Self { bounds: &[0, 1, 5, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21_600, 86_400], per_second: 1 };

    fn units(&self, duration: Duration) -> u64 {
        let nanos = duration.as_nanos() * u128::from(self.per_second) / 1_000_000_000;
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }

    /// Units as seconds. Beyond 2^53 units the last digits are lost, which no reader misses.
    #[expect(clippy::cast_precision_loss, reason = "what OpenMetrics shows is a float")]
    fn seconds(&self, units: u64) -> f64 {
        units as f64 / f64::from(self.per_second)
    }
}

/// One copy of the numbers, in cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    /// Per bucket, not cumulative. The count is their sum: one addition less for each observation.
    counts: [AtomicU64; MAX_BOUNDS + 1],
    sum: AtomicU64,
}

/// A histogram. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct DurationHistogram {
    scale: &'static Scale,
    shards: Arc<[Shard]>,
}

impl DurationHistogram {
    /// For what is observed now and then.
    #[must_use]
    pub fn new(scale: &'static Scale) -> Self {
        Self::spread_over(scale, 1)
    }

    /// For what is observed on every hit.
    #[must_use]
    pub fn hot(scale: &'static Scale) -> Self {
        Self::spread_over(scale, SPREAD)
    }

    fn spread_over(scale: &'static Scale, shards: usize) -> Self {
        debug_assert!(scale.bounds.len() <= MAX_BOUNDS && scale.bounds.is_sorted());
        Self { scale, shards: (0..shards).map(|_| Shard::default()).collect() }
    }

    /// Notes one duration.
    pub fn observe(&self, duration: Duration) {
        let units = self.scale.units(duration);
        let bucket = self.scale.bounds.partition_point(|bound| *bound < units);
        let shard = &self.shards[thread_number() % self.shards.len()];
        shard.counts[bucket].fetch_add(1, Relaxed);
        shard.sum.fetch_add(units, Relaxed);
    }

    /// How many were noted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.shards.iter().flat_map(|shard| &shard.counts).map(|count| count.load(Relaxed)).sum()
    }

    /// The upper ends of the buckets in seconds, each with what fell into it alone.
    fn buckets(&self) -> Vec<(f64, u64)> {
        let ends = self.scale.bounds.iter().map(|bound| self.scale.seconds(*bound)).chain([f64::INFINITY]);
        let count = |bucket: usize| self.shards.iter().map(|shard| shard.counts[bucket].load(Relaxed)).sum();
        ends.enumerate().map(|(bucket, end)| (end, count(bucket))).collect()
    }
}

impl fmt::Debug for DurationHistogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DurationHistogram").field("count", &self.count()).finish_non_exhaustive()
    }
}

impl TypedMetric for DurationHistogram {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for DurationHistogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let buckets = self.buckets();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = self.shards.iter().fold(0u64, |sum, shard| sum.wrapping_add(shard.sum.load(Relaxed)));
        encoder.encode_histogram::<NoLabelSet>(self.scale.seconds(sum), count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

/// Makes the histograms of a family.
#[derive(Clone, Copy, Debug)]
pub(super) struct Of(pub(super) &'static Scale);

impl MetricConstructor<DurationHistogram> for Of {
    fn new_metric(&self) -> DurationHistogram {
        DurationHistogram::new(self.0)
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::{encoding::text::encode, registry::Registry};

    use super::*;

    fn text_of(histogram: &DurationHistogram) -> String {
        let (mut registry, mut text) = (Registry::default(), String::new());
        registry.register("h", "H", histogram.clone());
        encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn a_duration_falls_into_the_first_bucket_that_it_does_not_exceed() {
        let histogram = DurationHistogram::new(&Scale::LIVES);
        for millis in [0, 999, 1000, 1001, 2000, 5000, 6000, 100_000_000] {
            histogram.observe(Duration::from_millis(millis));
        }
        let text = text_of(&histogram);
        for line in [
            // Whole seconds: 0.999 is 0.
            "h_bucket{le=\"0.0\"} 2",
            "h_bucket{le=\"1.0\"} 4",
            "h_bucket{le=\"5.0\"} 6",
            "h_bucket{le=\"15.0\"} 7",
            "h_bucket{le=\"86400.0\"} 7",
            "h_bucket{le=\"+Inf\"} 8",
            "h_count 8",
            "h_sum 100015.0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn no_observation_of_any_thread_is_lost() {
        let histogram = DurationHistogram::hot(&Scale::FINE);
        std::thread::scope(|scope| {
            for _ in 0..2 * SPREAD {
                scope.spawn(|| (0..1000).for_each(|_| histogram.observe(Duration::from_micros(2))));
            }
        });
        assert_eq!(histogram.count(), 16_000);
        let text = text_of(&histogram);
        assert!(
            text.contains("h_bucket{le=\"2.5e-6\"} 16000") || text.contains("h_bucket{le=\"0.0000025\"} 16000"),
            "{text}"
        );
    }

    #[test]
    fn every_scale_is_ascending_and_fits() {
        for scale in [&Scale::FINE, &Scale::STORE, &Scale::CALLS, &Scale::LIVES] {
            assert!(scale.bounds.len() <= MAX_BOUNDS && scale.bounds.is_sorted(), "{scale:?}");
        }
    }
}
