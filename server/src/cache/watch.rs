//! Watching a token: the current one, then every change.

use std::{mem, sync::Arc, time::Duration};

use futures::{Stream, stream};

use super::{
    Need, TokenCache,
    entry::is_servable,
    hub::{Change, Heard, Watch},
    memory::Entry,
};
use crate::{
    credential::Credential,
    error::Result,
    policy::{Authorized, WatchRequest},
    types::Generation,
};

/// A watch of one key.
struct Watcher {
    cache: Arc<TokenCache>,
    credential: Arc<Credential>,
    changes: Watch,
    begun: bool,
    /// The last generation told, and the last floor: neither is told twice, and neither goes back.
    told: Generation,
    floor: Generation,
}

impl TokenCache {
    /// The current token of a selector, or why there is none; then every change. The stream does not end by itself;
    /// dropping it ends the watch.
    ///
    /// # Errors
    ///
    /// `NoSuchCredential`.
    pub fn watch(self: &Arc<Self>, request: &Authorized<WatchRequest>) -> Result<impl Stream<Item = Change> + use<>> {
        let (credential, key) = self.resolve(&request.0)?;
        let watcher = Watcher {
            cache: Arc::clone(self),
            credential: Arc::clone(credential),
            // Before the current token is looked up: nothing that happens from now on is missed.
            changes: self.parts.hub.watch(key),
            begun: false,
            told: Generation::NONE,
            floor: Generation::NONE,
        };
        Ok(stream::unfold(watcher, |mut watcher| async move { Some((watcher.next().await?, watcher)) }))
    }
}

impl Watcher {
    async fn next(&mut self) -> Option<Change> {
        loop {
            let change = if mem::replace(&mut self.begun, true) {
                match self.changes.next().await? {
                    Heard::Change(change) => change,
                    Heard::Missed => Box::pin(self.current()).await,
                }
            } else {
                // Boxed, for a watch that waits needs no room for it.
                Box::pin(self.current()).await
            };
            if self.is_news(&change) {
                return Some(change);
            }
        }
    }

    async fn current(&self) -> Change {
        match self.cache.current(&self.credential, self.changes.key(), Need::default()).await {
            Ok(entry) => Change::Token(entry),
            Err(error) => Change::Unavailable(Box::new(error)),
        }
    }

    fn is_news(&mut self, change: &Change) -> bool {
        match change {
            Change::Token(entry) => {
                // A load that raced a rejection may tell of the rejected token after it.
                let live = entry.token.generation >= self.floor && self.is_valid(entry);
                let news = entry.token.generation > self.told && live;
                self.told = self.told.max(entry.token.generation);
                news
            }
            Change::Invalidated(floor) => {
                let news = *floor > self.floor;
                self.floor = self.floor.max(*floor);
                news
            }
            Change::Unavailable(_) => true,
        }
    }

    fn is_valid(&self, entry: &Entry) -> bool {
        is_servable(&entry.token, self.cache.now(), Duration::ZERO)
    }
}
