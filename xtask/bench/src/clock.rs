//! What time it is.

use std::time::{Duration, Instant};

/// Now.
#[expect(clippy::disallowed_methods, reason = "what is measured is real time, which no test can choose")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// A duration in nanoseconds; what does not fit is the most there is.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A duration in microseconds, for people.
pub(crate) fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}
