//! When to try again: full jitter, and a budget, so that a broker in trouble is not asked twice as often.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

/// Pauses that grow twofold to a limit, each drawn from its whole range ("full jitter", as the AWS architecture blog calls
/// it: the clients of a broker that comes back do not come all at once).
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    first: Duration,
    longest: Duration,
}

impl Backoff {
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        Self { next: first, first, longest }
    }

    pub(crate) fn pause(&mut self) -> Duration {
        let pause = up_to(self.next);
        self.next = (self.next * 2).min(self.longest);
        pause
    }

    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}

/// A time between nothing and this.
pub(crate) fn up_to(longest: Duration) -> Duration {
    longest.mul_f64(fastrand::f64())
}

/// How many second tries there may be: gRPC's retry throttling (gRFC A6) with 10 tokens and a ratio of 0.1. In tenths of
/// a token.
#[derive(Debug)]
pub(crate) struct RetryBudget(AtomicU32);

const FULL: u32 = 100;
const FAILURE: u32 = 10;
const SUCCESS: u32 = 1;

impl RetryBudget {
    pub(crate) fn new() -> Self {
        Self(AtomicU32::new(FULL))
    }

    pub(crate) fn succeeded(&self) {
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            (left < FULL).then(|| (left + SUCCESS).min(FULL))
        });
    }

    /// Notes a failure; whether there may be another try.
    pub(crate) fn failed(&self) -> bool {
        let before =
            self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left.saturating_sub(FAILURE)));
        before.unwrap_or_default().saturating_sub(FAILURE) > FULL / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_limit_and_begin_anew() {
        let (first, longest) = (Duration::from_millis(100), Duration::from_secs(1));
        let mut backoff = Backoff::new(first, longest);
        assert!(backoff.pause() <= first);
        for _ in 0..10 {
            assert!(backoff.pause() <= longest);
        }
        assert_eq!(backoff.next, longest);
        backoff.reset();
        assert!(backoff.pause() <= first);
    }

    #[test]
    fn a_broker_that_only_fails_is_soon_asked_once_per_call() {
        let budget = RetryBudget::new();
        let retries = (0..50).filter(|_| budget.failed()).count();
        assert_eq!(retries, 4);
        for _ in 0..70 {
            budget.succeeded();
        }
        assert!(budget.failed());
    }
}
