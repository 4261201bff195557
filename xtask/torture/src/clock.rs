//! The one clock of a run: microseconds since it began, and the wall clock to compare expiries with.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// The time of a run. Cheap to copy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: Instant,
}

impl Clock {
    /// Begins now.
    pub(crate) fn start() -> Self {
        Self { origin: Instant::now() }
    }

    /// Microseconds since the run began.
    pub(crate) fn now(self) -> u64 {
        micros(self.origin.elapsed())
    }

    /// Milliseconds since the Unix epoch, by the machine's clock, which all processes of a run share.
    #[expect(
        clippy::disallowed_methods,
        reason = "what the replicas say of expiry is compared with the clock they read"
    )]
    pub(crate) fn wall_millis(self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }
}

/// A duration as the history writes it.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A duration in milliseconds.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
