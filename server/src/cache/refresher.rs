//! Replaces tokens ahead of their expiry: one timer for all keys.
//!
//! A key is on the schedule because its token was put into memory or an attempt for it failed. When its time comes it is
//! refreshed if somebody has asked for it lately or watches it; else it falls off, and the next call puts it back. No
//! result ends the loop.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::{TokenCache, entry};
use crate::{store::TokenRow, time::Timestamp, types::TokenKey};

/// The longest sleep: after a jump of the wall clock, or a suspended machine, overdue keys are found this soon.
const MAX_SLEEP: Duration = Duration::from_secs(30);

/// Overdue tokens that are found in the store at start are replaced over this long, not all at once.
const START_SPREAD: Duration = Duration::from_secs(30);

/// The same for a token that has expired while its refresh token is to be looked after.
const GRANT_SPREAD: Duration = Duration::from_secs(5);

/// How many rows are read from the store at a time at start.
const PAGE: u32 = 1000;

/// How long to wait before a failed read at start is repeated.
const LOAD_RETRY: Duration = Duration::from_secs(2);

/// Puts keys on the schedule. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Schedule(mpsc::UnboundedSender<(TokenKey, Timestamp)>);

/// What has been put on the schedule and not been looked at yet.
pub type Orders = mpsc::UnboundedReceiver<(TokenKey, Timestamp)>;

impl Schedule {
    /// A schedule, and what the refresher reads it from.
    #[must_use]
    pub fn new() -> (Self, Orders) {
        let (sender, orders) = mpsc::unbounded_channel();
        (Self(sender), orders)
    }

    /// Looks at `key` at this time.
    pub fn at(&self, key: TokenKey, time: Timestamp) {
        // An error says that the refresher has ended: the process is shutting down.
        let _ = self.0.send((key, time));
    }
}

/// The keys by their times. A key may stand there at several: whoever takes one out before its time puts it back, where
/// it meets itself. To know of each key where it stands would take as much room again.
#[derive(Debug, Default)]
struct Timetable(BTreeSet<(Timestamp, TokenKey)>);

impl Timetable {
    fn put(&mut self, key: TokenKey, time: Timestamp) {
        self.0.insert((time, key));
    }

    fn next(&self) -> Option<Timestamp> {
        self.0.first().map(|(time, _)| *time)
    }

    fn pop_due(&mut self, now: Timestamp) -> Option<TokenKey> {
        self.0.first().filter(|(time, _)| *time <= now)?;
        self.0.pop_first().map(|(_, key)| key)
    }
}

/// The worker.
#[derive(Debug)]
pub struct Refresher {
    cache: Arc<TokenCache>,
    orders: Orders,
}

impl Refresher {
    /// Refreshes what is in `cache`, by `orders`.
    #[must_use]
    pub fn new(cache: Arc<TokenCache>, orders: Orders) -> Self {
        Self { cache, orders }
    }

    /// Runs until it is told to stop.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut timetable = Timetable::default();
        loop {
            let now = self.cache.now();
            while let Some(key) = timetable.pop_due(now) {
                match self.cache.not_before(&key, now) {
                    Some(time) => timetable.put(key, time),
                    None => self.look_at(key, now),
                }
            }
            let pause = timetable.next().map_or(MAX_SLEEP, |next| next.since(now).min(MAX_SLEEP));
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(pause) => {}
                order = self.orders.recv() => match order {
                    Some((key, time)) => timetable.put(key, time),
                    None => return,
                },
            }
        }
    }

    /// Starts a refresh, if the key is in use. Its flight puts the key back on the schedule, whatever comes of it.
    fn look_at(&self, key: TokenKey, now: Timestamp) {
        if self.cache.is_in_use(&key, now) {
            self.cache.refresh_ahead(key);
        } else {
            self.cache.let_rest(&key);
            debug!(credential = %key.credential(), "not refreshed ahead: nobody asks for it");
        }
    }
}

/// Brings the tokens in use before a restart back into memory, so that they are refreshed ahead although nobody has
/// asked for them yet. A worker that ends when it is done; callers do not wait for it.
#[derive(Debug)]
pub struct WarmStart {
    cache: Arc<TokenCache>,
}

impl WarmStart {
    /// Fills `cache`.
    #[must_use]
    pub fn new(cache: Arc<TokenCache>) -> Self {
        Self { cache }
    }

    /// Reads the store page by page until its end, the memory's, or the order to stop.
    pub async fn run(self, stop: CancellationToken) {
        let (mut after, mut kept) = (None, 0u64);
        while !stop.is_cancelled() && kept < self.cache.max_tokens() {
            let rows = match self.cache.scan(after, PAGE).await {
                Ok(rows) => rows,
                Err(error) => {
                    debug!(%error, "the store cannot be read yet");
                    let _ = timeout(LOAD_RETRY, stop.cancelled()).await;
                    continue;
                }
            };
            let Some(last) = rows.last() else { break };
            after = Some(last.key.hash());
            kept += rows.into_iter().map(|row| u64::from(self.keep(row))).sum::<u64>();
        }
        info!(tokens = kept, "tokens loaded from the store");
    }

    fn keep(&self, row: TokenRow) -> bool {
        let now = self.cache.now();
        let Some(token) = &row.token else { return false };
        let idle = entry::idle_window(token, self.cache.idle_window_of(&row.key));
        if now.since(row.last_used_at) >= idle {
            return false;
        }
        match now >= token.expires_at {
            false => self.cache.take_in(row, START_SPREAD),
            // Its last refresh may have ended unseen, and its answer can be had again for a while only.
            true if self.cache.rotates(&row.key) => self.cache.take_in(row, GRANT_SPREAD),
            true => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{CredentialName, Selector};

    fn key(name: &str) -> TokenKey {
        let name = CredentialName::parse(name).expect("a valid name");
        TokenKey::new(Selector::new(name, vec![], None, vec![]))
    }

    #[test]
    fn keys_come_due_in_the_order_of_their_times_and_those_at_one_time_are_one() {
        let at = Timestamp::from_millis;
        let mut timetable = Timetable::default();
        timetable.put(key("a"), at(30));
        timetable.put(key("b"), at(20));
        timetable.put(key("a"), at(10));
        timetable.put(key("b"), at(20));
        assert_eq!(timetable.next(), Some(at(10)));
        assert_eq!(timetable.pop_due(at(9)), None);
        for due in ["a", "b", "a"] {
            assert_eq!(timetable.pop_due(at(50)), Some(key(due)));
        }
        assert_eq!((timetable.pop_due(at(50)), timetable.next()), (None, None));
    }
}
