//! Tells watchers of a key what becomes of its token.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::broadcast;

use super::memory::{Entry, Memory};
use crate::{
    error::Error,
    time::Timestamp,
    types::{Generation, KeyHash, TokenKey},
};

/// Changes that a slow watcher may be behind before it is given the current state instead.
const BACKLOG: usize = 64;

/// One change of one token.
#[derive(Clone, Debug)]
pub enum Change {
    /// There is a new token.
    Token(Arc<Entry>),
    /// Tokens below this generation are no longer to be used.
    Invalidated(Generation),
    /// There is no valid token. Boxed, for it is rare, and each watched key has room for many changes.
    Unavailable(Box<Error>),
}

/// The watched keys. Touched when a token changes, never on a hit.
#[derive(Debug, Default)]
pub struct Hub(Arc<Mutex<HashMap<KeyHash, broadcast::Sender<Change>>>>);

impl Hub {
    /// Watches a key from now on.
    #[must_use]
    pub fn watch(&self, key: TokenKey) -> Watch {
        let mut watched = self.lock();
        let changes = watched.entry(key.hash()).or_insert_with(|| broadcast::Sender::new(BACKLOG)).subscribe();
        Watch { key, changes: Some(changes), hub: Arc::clone(&self.0) }
    }

    /// How many watch a key.
    #[must_use]
    pub fn watchers(&self, key: &KeyHash) -> usize {
        self.lock().get(key).map_or(0, broadcast::Sender::receiver_count)
    }

    /// How many watches there are of all keys together.
    #[must_use]
    pub fn watches(&self) -> usize {
        self.lock().values().map(broadcast::Sender::receiver_count).sum()
    }

    /// Tells of a new token.
    pub fn token(&self, entry: &Arc<Entry>) {
        self.tell(&entry.key.hash(), || Change::Token(Arc::clone(entry)));
    }

    /// Tells that a key's tokens below `floor` are rejected.
    pub fn invalidated(&self, key: &KeyHash, floor: Generation) {
        self.tell(key, || Change::Invalidated(floor));
    }

    /// Tells that an attempt failed, unless there is a valid token all the same.
    pub fn unavailable(&self, key: &TokenKey, error: &Error, memory: &Memory, now: Timestamp) {
        let valid = memory.get(&key.hash()).is_some_and(|entry| now < entry.token.expires_at);
        if !valid {
            self.tell(&key.hash(), || Change::Unavailable(Box::new(error.clone())));
        }
    }

    fn tell(&self, key: &KeyHash, change: impl FnOnce() -> Change) {
        if let Some(changes) = self.lock().get(key) {
            // An error says that nobody listens any more, which is fine.
            let _ = changes.send(change());
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<KeyHash, broadcast::Sender<Change>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a watcher hears.
#[derive(Clone, Debug)]
pub enum Heard {
    /// A change.
    Change(Change),
    /// It was too slow and missed some: the current state is what counts.
    Missed,
}

/// One watcher's ear. Dropping it ends the watch.
#[derive(Debug)]
pub struct Watch {
    key: TokenKey,
    changes: Option<broadcast::Receiver<Change>>,
    hub: Arc<Mutex<HashMap<KeyHash, broadcast::Sender<Change>>>>,
}

impl Watch {
    /// What is watched.
    #[must_use]
    pub fn key(&self) -> &TokenKey {
        &self.key
    }

    /// The next change. Cancel-safe. `None` only when the hub is gone.
    pub async fn next(&mut self) -> Option<Heard> {
        match self.changes.as_mut()?.recv().await {
            Ok(change) => Some(Heard::Change(change)),
            Err(broadcast::error::RecvError::Lagged(_)) => Some(Heard::Missed),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.changes = None;
        let mut watched = self.hub.lock().unwrap_or_else(PoisonError::into_inner);
        if watched.get(self.key.hash_ref()).is_some_and(|changes| changes.receiver_count() == 0) {
            watched.remove(self.key.hash_ref());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> TokenKey {
        Entry::sample("c", "x").key
    }

    #[tokio::test]
    async fn all_watchers_hear_each_change_in_order() {
        let hub = Hub::default();
        let mut watches = [hub.watch(key()), hub.watch(key())];
        for generation in 1..=50 {
            hub.invalidated(key().hash_ref(), Generation::new(generation));
        }
        for watch in &mut watches {
            for expected in 1..=50 {
                let heard = watch.next().await;
                assert!(
                    matches!(heard, Some(Heard::Change(Change::Invalidated(g))) if g.get() == expected),
                    "{heard:?}"
                );
            }
        }
    }

    #[tokio::test]
    async fn a_watcher_that_is_too_slow_is_told_so() {
        let hub = Hub::default();
        let mut watch = hub.watch(key());
        (0..100).for_each(|generation| hub.invalidated(key().hash_ref(), Generation::new(generation)));
        assert!(matches!(watch.next().await, Some(Heard::Missed)));
    }

    #[test]
    fn nothing_is_kept_of_a_key_that_nobody_watches() {
        let hub = Hub::default();
        let (one, other) = (hub.watch(key()), hub.watch(key()));
        assert_eq!((hub.watchers(key().hash_ref()), hub.watches()), (2, 2));
        drop(one);
        assert_eq!(hub.watchers(key().hash_ref()), 1);
        drop(other);
        assert!(hub.lock().is_empty());
    }
}
