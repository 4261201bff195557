//! What time it is, cheaply: reading a token must cost nanoseconds, and a few milliseconds do not matter to its expiry.

use std::time::{Duration, SystemTime};

/// Milliseconds since 1970, at most some milliseconds behind.
pub(crate) fn now_millis() -> i64 {
    coarse()
}

/// What the kernel noted at its last tick: no hardware is asked.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn coarse() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    now.tv_sec * 1000 + now.tv_nsec / 1_000_000
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
fn coarse() -> i64 {
    millis(SystemTime::now())
}

/// A time as milliseconds since 1970; what is too far for that is as far as can be.
pub(crate) fn millis(time: SystemTime) -> i64 {
    let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => millis(since),
        Err(before) => -millis(before.duration()),
    }
}
