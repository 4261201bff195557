//! The replicas of the broker, and which one is asked: the healthiest, and of equals the first in an order that each client
//! draws for itself, so that a fleet of clients spreads and a client stays where its connection is.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;
use tonic::transport::Channel;

/// How long one that failed comes after those that did not; doubled with each failure in a row, to the limit.
const COOLDOWN: Duration = Duration::from_secs(1);
const LONGEST_COOLDOWN: Duration = Duration::from_secs(30);

/// All replicas. There is at least one.
#[derive(Debug)]
pub(crate) struct Replicas(Vec<Arc<Replica>>);

/// One replica.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) channel: Channel,
    /// Failures in a row.
    failures: AtomicU32,
    /// When the last was, in milliseconds since `begun`.
    failed_at: AtomicU64,
    begun: Instant,
}

impl Replicas {
    /// In an order drawn now.
    pub(crate) fn new(channels: Vec<Channel>) -> Self {
        let begun = Instant::now();
        let replica =
            |channel| Arc::new(Replica { channel, failures: AtomicU32::new(0), failed_at: AtomicU64::new(0), begun });
        let mut replicas: Vec<_> = channels.into_iter().map(replica).collect();
        fastrand::shuffle(&mut replicas);
        Self(replicas)
    }

    /// The one to ask, if there is a choice another one than `not`.
    pub(crate) fn pick(&self, not: Option<&Arc<Replica>>) -> Arc<Replica> {
        let others = self.0.iter().filter(|replica| !not.is_some_and(|not| Arc::ptr_eq(not, replica)));
        let best = others.min_by_key(|replica| replica.demerits());
        Arc::clone(best.unwrap_or_else(|| self.0.first().expect("there is at least one")))
    }
}

impl Replica {
    /// Failures in a row, while they count.
    fn demerits(&self) -> u32 {
        let failures = self.failures.load(Ordering::Relaxed);
        let cooldown = LONGEST_COOLDOWN.min(COOLDOWN * 2_u32.saturating_pow(failures.saturating_sub(1).min(5)));
        let since = self.millis().saturating_sub(self.failed_at.load(Ordering::Relaxed));
        if u128::from(since) < cooldown.as_millis() { failures } else { 0 }
    }

    pub(crate) fn succeeded(&self) {
        // Written seldom, so that calls do not fight for it.
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    pub(crate) fn failed(&self) {
        self.failed_at.store(self.millis(), Ordering::Relaxed);
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use tonic::transport::Endpoint;

    use super::*;

    fn replicas(count: usize) -> Replicas {
        Replicas::new(vec![Endpoint::from_static("http://127.0.0.1:1").connect_lazy(); count])
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_failed_comes_last_for_a_while() {
        let replicas = replicas(3);
        let first = replicas.pick(None);
        assert!(Arc::ptr_eq(&first, &replicas.pick(None)), "it stays where it is");
        first.failed();
        let second = replicas.pick(None);
        assert!(!Arc::ptr_eq(&first, &second));
        tokio::time::advance(COOLDOWN).await;
        assert!(Arc::ptr_eq(&first, &replicas.pick(None)), "it is tried again");
        first.failed();
        tokio::time::advance(COOLDOWN).await;
        assert!(!Arc::ptr_eq(&first, &replicas.pick(None)), "later each time");
        first.succeeded();
        assert!(Arc::ptr_eq(&first, &replicas.pick(None)));
    }

    #[tokio::test]
    async fn where_all_fail_the_one_that_failed_least_is_asked() {
        let replicas = replicas(2);
        let first = replicas.pick(None);
        let second = replicas.pick(Some(&first));
        assert!(!Arc::ptr_eq(&first, &second));
        first.failed();
        first.failed();
        second.failed();
        assert!(Arc::ptr_eq(&second, &replicas.pick(None)));
    }

    #[tokio::test]
    async fn the_only_one_is_asked_again() {
        let replicas = replicas(1);
        let only = replicas.pick(None);
        assert!(Arc::ptr_eq(&only, &replicas.pick(Some(&only))));
    }
}
