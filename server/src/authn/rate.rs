//! How often each caller may call.

use std::{
    fmt,
    num::NonZeroU32,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use governor::{Quota, RateLimiter, clock::Clock as _, state::keyed::DefaultKeyedStateStore};

use crate::{
    error::{Error, ErrorKind, Result},
    types::Caller,
};

/// After how many calls those are forgotten who have not called lately, so that the memory of callers stays small.
const FORGET_EVERY: u32 = 65_536;

type Limiter = RateLimiter<String, DefaultKeyedStateStore<String>, governor::clock::DefaultClock>;

/// Counts the calls of each caller, by its subject.
pub struct CallerRate {
    limiter: Limiter,
    calls: AtomicU32,
}

impl fmt::Debug for CallerRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CallerRate")
    }
}

impl CallerRate {
    /// Each may call so often a second, and as many times at once.
    #[must_use]
    pub fn new(per_second: NonZeroU32) -> Self {
        Self { limiter: RateLimiter::keyed(Quota::per_second(per_second)), calls: AtomicU32::new(0) }
    }

    /// Counts a call.
    ///
    /// # Errors
    ///
    /// `TooManyRequests`, with the time after which the next one is allowed.
    pub fn check(&self, caller: &Caller) -> Result<()> {
        if self.calls.fetch_add(1, Ordering::Relaxed) % FORGET_EVERY == FORGET_EVERY - 1 {
            self.limiter.retain_recent();
        }
        self.limiter.check_key(&caller.subject().to_owned()).map_err(|refused| {
            let wait = refused.wait_time_from(self.limiter.clock().now());
            Error::new(ErrorKind::TooManyRequests, "the caller exceeds its rate")
                .with_retry_after(wait.max(Duration::from_millis(1)))
        })
    }
}
