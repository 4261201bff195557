//! How much this replica knows of what others rejected: its freshness lease.
//!
//! Whoever rejects a token waits for every replica whose lease is live to have heard. So while its lease is live, what a
//! replica serves is verified; once it has lapsed, nobody waits for it any more, and what it serves is degraded until it
//! has renewed the lease and then caught up with all events.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::time::SharedClock;

/// How long others wait for a replica that says nothing.
pub const TTL: Duration = Duration::from_secs(2);

/// The freshness lease, as this replica counts it.
#[derive(Debug)]
pub struct Trust {
    clock: SharedClock,
    /// `None`: nobody else uses the store, and there is nothing to miss.
    lease: Option<Mutex<Lease>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Lease {
    until: Duration,
    /// Counts the leases that were won anew after a lapse.
    term: u64,
}

/// A term of the lease in which something was read. Whoever read within one term has missed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term(u64);

impl Trust {
    /// For a store that several replicas share: not trusted until its first lease.
    #[must_use]
    pub fn shared(clock: SharedClock) -> Self {
        Self { clock, lease: Some(Mutex::default()) }
    }

    /// For a store that is this process's alone.
    #[must_use]
    pub fn sole(clock: SharedClock) -> Self {
        Self { clock, lease: None }
    }

    /// The present term; `None` if the lease has lapsed.
    #[must_use]
    pub fn term(&self) -> Option<Term> {
        let Some(lease) = &self.lease else { return Some(Term(0)) };
        let lease = *lease.lock().unwrap_or_else(PoisonError::into_inner);
        (self.clock.uptime() < lease.until).then_some(Term(lease.term))
    }

    /// Prolongs a live lease by a sign of life that was sent at `sent` (of [`crate::time::Clock::uptime`]) and taken by
    /// the store. Counted from before it was sent, it ends here no later than there. False: the lease has lapsed; it has
    /// to be won anew.
    pub fn prolong(&self, sent: Duration) -> bool {
        let Some(lease) = &self.lease else { return true };
        let mut lease = lease.lock().unwrap_or_else(PoisonError::into_inner);
        let live = self.clock.uptime() < lease.until;
        if live {
            lease.until = lease.until.max(sent + TTL);
        }
        live
    }

    /// Ends the lease: what is served from now on is degraded.
    pub fn give_up(&self) {
        if let Some(lease) = &self.lease {
            lease.lock().unwrap_or_else(PoisonError::into_inner).until = Duration::ZERO;
        }
    }

    /// Begins a new term: after a sign of life that was sent at `sent`, all events were read that the store showed later.
    pub fn win(&self, sent: Duration) {
        let Some(lease) = &self.lease else { return };
        let mut lease = lease.lock().unwrap_or_else(PoisonError::into_inner);
        *lease = Lease { until: sent + TTL, term: lease.term + 1 };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::time::advance;

    use super::*;
    use crate::time::{Clock as _, Timestamp, TokioClock};

    #[tokio::test(start_paused = true)]
    async fn a_lapsed_lease_is_not_prolonged_but_won_anew_in_another_term() {
        let clock = Arc::new(TokioClock::starting_at(Timestamp::from_millis(0)));
        let trust = Trust::shared(clock.clone());
        assert_eq!(trust.term(), None);
        assert!(!trust.prolong(clock.uptime()));
        trust.win(clock.uptime());
        let first = trust.term();
        assert!(first.is_some());
        advance(TTL / 2).await;
        assert!(trust.prolong(clock.uptime()));
        advance(TTL / 2).await;
        assert_eq!(trust.term(), first);
        advance(TTL / 2).await;
        assert_eq!(trust.term(), None);
        assert!(!trust.prolong(clock.uptime()));
        trust.win(clock.uptime());
        assert!(trust.term().is_some() && trust.term() != first);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_was_given_up_is_not_prolonged() {
        let clock = Arc::new(TokioClock::starting_at(Timestamp::from_millis(0)));
        let trust = Trust::shared(clock.clone());
        trust.win(clock.uptime());
        trust.give_up();
        assert_eq!(trust.term(), None);
        assert!(!trust.prolong(clock.uptime()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_counted_from_before_its_sign_of_life_was_sent() {
        let clock = Arc::new(TokioClock::starting_at(Timestamp::from_millis(0)));
        let trust = Trust::shared(clock.clone());
        let sent = clock.uptime();
        advance(TTL - Duration::from_millis(1)).await;
        trust.win(sent);
        assert!(trust.term().is_some());
        advance(Duration::from_millis(1)).await;
        assert_eq!(trust.term(), None);
    }
}
