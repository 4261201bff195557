//! What the store has not taken yet: tokens and refresh tokens that exist nowhere else.
//!
//! Invariants:
//! - what is here is tried until the store takes it, and holds up the end of the process;
//! - a token that was served before it was stored is stored under the generation that clients have seen.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::TokenCache;
use crate::{
    error::Result,
    store::{Commit, Committed, Fence, GrantUpdate, SharedStore, Write},
    types::CredentialName,
};

/// The pause before a write is tried again, and the longest one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How often tokens that are served already are tried.
const UNSTORED_PAUSE: Duration = Duration::from_secs(1);

/// The writes that wait.
#[derive(Debug)]
pub struct Pending {
    writes: Mutex<Writes>,
    count: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Writes {
    waiting: BTreeMap<u64, Waiting>,
    next: u64,
}

#[derive(Debug)]
struct Waiting {
    write: Write,
    /// Nobody waits for it but the settler: the token is served.
    served: bool,
}

impl Default for Pending {
    fn default() -> Self {
        Self { writes: Mutex::default(), count: watch::Sender::new(0) }
    }
}

impl Pending {
    /// Commits, and never gives up: what the upstream has given away exists nowhere else.
    pub async fn commit(&self, store: &SharedStore, commit: Commit) -> Committed {
        let write = Write::Token(commit.clone());
        self.persist(write, || store.commit(commit.clone())).await
    }

    /// Stores a refresh token that came alone, and never gives up. Whether it became the grant's.
    pub async fn keep_grant(&self, store: &SharedStore, credential: CredentialName, update: GrantUpdate) -> bool {
        let write = Write::Grant(credential.clone(), update.clone());
        self.persist(write, || store.advance_grant(credential.clone(), update.clone())).await
    }

    /// Has a token that is served already stored later.
    pub fn store_later(&self, commit: Commit) {
        self.add(Write::Token(Commit { fence: Fence::Above, ..commit }), true);
    }

    /// All that waits, in the order in which it came.
    #[must_use]
    pub fn all(&self) -> Vec<Write> {
        self.writes().waiting.values().map(|waiting| waiting.write.clone()).collect()
    }

    /// How many writes wait.
    #[must_use]
    pub fn len(&self) -> usize {
        *self.count.borrow()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits until nothing waits.
    pub async fn settled(&self) {
        // The sender is `self`: it is not gone.
        let _ = self.count.subscribe().wait_for(|count| *count == 0).await;
    }

    async fn persist<T, F>(&self, write: Write, attempt: impl Fn() -> F) -> T
    where
        F: Future<Output = Result<T>>,
    {
        let credential = write.credential().clone();
        // From before the first try: that one may take long, and the process may be told to end meanwhile.
        let id = self.add(write, false);
        let mut pause = FIRST_PAUSE;
        loop {
            match attempt().await {
                Ok(done) => {
                    self.remove(id);
                    return done;
                }
                Err(error) => warn!(%credential, %error, "what the upstream gave waits to be stored"),
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn add(&self, write: Write, served: bool) -> u64 {
        let mut writes = self.writes();
        let id = writes.next;
        writes.next += 1;
        writes.waiting.insert(id, Waiting { write, served });
        self.count.send_replace(writes.waiting.len());
        id
    }

    fn remove(&self, id: u64) {
        let mut writes = self.writes();
        writes.waiting.remove(&id);
        self.count.send_replace(writes.waiting.len());
    }

    /// The tokens that are served already, in the order in which they came.
    fn served(&self) -> Vec<(u64, Commit)> {
        let served = |(id, waiting): (&u64, &Waiting)| match &waiting.write {
            Write::Token(commit) if waiting.served => Some((*id, commit.clone())),
            _ => None,
        };
        self.writes().waiting.iter().filter_map(served).collect()
    }

    /// A panic under the lock leaves nothing half done.
    fn writes(&self) -> MutexGuard<'_, Writes> {
        self.writes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The worker that stores what is served already.
#[derive(Debug)]
pub struct Settler {
    cache: std::sync::Arc<TokenCache>,
}

impl Settler {
    /// Stores for `cache`.
    #[must_use]
    pub fn new(cache: std::sync::Arc<TokenCache>) -> Self {
        Self { cache }
    }

    /// Runs until it is told to stop.
    pub async fn run(self, stop: CancellationToken) {
        let mut count = self.cache.parts.pending.count.subscribe();
        let work = async {
            while count.wait_for(|count| *count > 0).await.is_ok() {
                self.settle().await;
                sleep(UNSTORED_PAUSE).await;
            }
        };
        stop.run_until_cancelled(work).await;
    }

    /// Tries each once, until the store does not answer.
    async fn settle(&self) {
        for (id, commit) in self.cache.parts.pending.served() {
            match self.cache.store_served(&commit).await {
                Ok(()) => self.cache.parts.pending.remove(id),
                Err(error) => {
                    debug!(%error, "a token that is served is not stored yet");
                    return;
                }
            }
        }
    }
}

impl TokenCache {
    /// Stores a token that is served already. Where another replica's came first, that one is served from now on.
    async fn store_served(&self, commit: &Commit) -> Result<()> {
        let (hash, token) = (commit.key.hash(), &commit.token);
        match self.parts.store.commit(commit.clone()).await? {
            Committed::Stored => {
                self.parts.memory.confirm(&hash, token.generation, token.fingerprint);
                info!(credential = %commit.key.credential(), generation = %token.generation, "stored what is served");
            }
            Committed::Superseded => {
                if let Some(row) = self.parts.store.load(hash).await? {
                    self.take_in(row, Duration::ZERO);
                }
            }
        }
        Ok(())
    }
}
