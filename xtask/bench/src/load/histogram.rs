//! How long things took: counts in buckets that are at most 1/64 of their value wide.

use std::time::Duration;

use crate::clock::nanos;

/// Each doubling has two to the power of this many buckets.
const BITS: u32 = 6;
const STEPS: usize = 1 << BITS;

/// Durations of any length, to within 1.6 %.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    longest: Duration,
}

impl Default for Histogram {
    fn default() -> Self {
        let doublings = (u64::BITS - BITS + 1) as usize;
        Self { counts: vec![0; doublings * STEPS], total: 0, longest: Duration::ZERO }
    }
}

impl Histogram {
    pub(crate) fn add(&mut self, took: Duration) {
        self.counts[bucket(nanos(took))] += 1;
        self.total += 1;
        self.longest = self.longest.max(took);
    }

    pub(crate) fn count(&self) -> u64 {
        self.total
    }

    pub(crate) fn longest(&self) -> Duration {
        self.longest
    }

    /// What so many hundredths of all took at most. Zero, if there was nothing.
    pub(crate) fn percentile(&self, hundredths: f64) -> Duration {
        let wanted = self.total as f64 * hundredths / 100.0;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if *count > 0 && seen as f64 >= wanted {
                return Duration::from_nanos(upper(bucket)).min(self.longest);
            }
        }
        Duration::ZERO
    }
}

/// Small values have a bucket each; of others the leading bits count.
fn bucket(value: u64) -> usize {
    let shift = (u64::BITS - value.leading_zeros()).saturating_sub(BITS + 1);
    // Less than 2^(BITS + 1) remains.
    let leading = usize::try_from(value >> shift).unwrap_or_default();
    shift as usize * STEPS + leading
}

/// The highest value of a bucket.
fn upper(bucket: usize) -> u64 {
    let shift = (bucket / STEPS).saturating_sub(1);
    let leading = (bucket - shift * STEPS) as u64;
    ((leading + 1) << shift).wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_never_below_and_hardly_above_what_was_added() {
        for exponent in 0..40 {
            let value = Duration::from_nanos(3_u64.pow(exponent % 30) + u64::from(exponent));
            let mut histogram = Histogram::default();
            histogram.add(value);
            histogram.add(Duration::from_secs(1 << 30));
            let half = histogram.percentile(50.0);
            assert!(half >= value && half.as_secs_f64() <= value.as_secs_f64() * 1.016, "{value:?}: {half:?}");
        }
    }

    #[test]
    fn percentiles_of_a_hundred_values_are_these_values() {
        let mut histogram = Histogram::default();
        (1..=100).for_each(|nanos| histogram.add(Duration::from_nanos(nanos)));
        assert_eq!(histogram.percentile(50.0), Duration::from_nanos(50));
        assert_eq!(histogram.percentile(99.0), Duration::from_nanos(99));
        assert_eq!(histogram.percentile(100.0), Duration::from_nanos(100));
        assert_eq!((histogram.count(), histogram.longest()), (100, Duration::from_nanos(100)));
    }

    #[test]
    fn of_nothing_every_percentile_is_zero() {
        assert_eq!(Histogram::default().percentile(99.0), Duration::ZERO);
    }
}
