//! Callers by an API key: `tck_ID_SECRET`, 256 random bits of which the store has a SHA-256.
//!
//! The keys that are alive are held in memory and read anew every few seconds, so that a call costs no round trip and a
//! store that is away locks nobody out.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use aws_lc_rs::digest;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use papaya::HashMap as SharedMap;
use rand::Rng as _;
use subtle::ConstantTimeEq as _;
use tokio::{
    select,
    sync::Mutex,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::BearerAuthenticator;
use crate::{
    error::{Error, ErrorKind, Result},
    rng::SharedRng,
    store::{ApiKey, SharedStore},
    time::{SharedClock, Timestamp},
    types::{Caller, Claims, Secret},
};

/// What every key begins with, so that scanners for leaked secrets find it.
const PREFIX: &str = "tck_";

/// How often the keys are read anew: so long a revoked one may still be taken.
const REREAD: Duration = Duration::from_secs(5);

/// How long after a look at the store an unknown id has it looked at again.
const PAUSE: Duration = Duration::from_secs(1);

/// Every how many readings it is noted when keys were last used.
const NOTE_USE_EVERY: u32 = 12;

/// A new key: what its holder is shown once, and what is stored.
#[must_use]
pub fn generate(name: &str, now: Timestamp, expires_at: Option<Timestamp>, rng: &SharedRng) -> (Secret, ApiKey) {
    let (mut id, mut secret) = ([0; 8], zeroize::Zeroizing::new([0; 32]));
    rng.with(|rng| {
        rng.fill_bytes(&mut id);
        rng.fill_bytes(&mut *secret);
    });
    let id = hex::encode(id);
    let text = Secret::from(format!("{PREFIX}{id}_{}", URL_SAFE_NO_PAD.encode(*secret)));
    let key = ApiKey {
        hash: hash_of(&text),
        id,
        name: name.to_owned(),
        created_at: now,
        expires_at,
        revoked_at: None,
        last_used_at: None,
    };
    (text, key)
}

/// The id in a key. `None`: it is none.
#[must_use]
pub fn id_of(key: &str) -> Option<&str> {
    let (id, secret) = key.strip_prefix(PREFIX)?.split_once('_')?;
    let hexadecimal = id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let bits = URL_SAFE_NO_PAD.decode(secret).is_ok_and(|bits| bits.len() == 32);
    (id.len() == 16 && hexadecimal && bits).then_some(id)
}

fn hash_of(key: &Secret) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, key.expose().as_bytes()).as_ref());
    hash
}

/// Knows the API keys of the store. A worker keeps it so.
pub struct ApiKeys {
    store: SharedStore,
    clock: SharedClock,
    known: ArcSwapOption<HashMap<String, ApiKey>>,
    used: SharedMap<String, i64>,
    /// When the store was last looked at, and what became of it. Held while somebody does.
    last_look: Mutex<Option<(Instant, Result<()>)>>,
}

impl fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKeys")
    }
}

impl ApiKeys {
    /// The keys of this store; none is known until it was looked at.
    #[must_use]
    pub fn new(store: SharedStore, clock: SharedClock) -> Self {
        let (used, last_look) = (SharedMap::new(), Mutex::default());
        Self { store, clock, known: ArcSwapOption::empty(), used, last_look }
    }

    /// Reads the keys anew every few seconds until it is told to stop.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        for turn in 1_u32.. {
            if let Err(error) = self.look(Duration::ZERO).await
                && error.kind() != ErrorKind::StoreDown
            {
                warn!(%error, "the API keys cannot be read");
            }
            if turn % NOTE_USE_EVERY == 0 {
                self.note_use().await;
            }
            select! {
                () = sleep(REREAD) => {}
                () = stop.cancelled() => break,
            }
        }
        self.note_use().await;
    }

    /// Looks at the store, unless somebody has for so long: then what became of that counts, so that a store that hangs is
    /// not waited for by one caller after the other.
    async fn look(&self, pause: Duration) -> Result<()> {
        let mut last = self.last_look.lock().await;
        if let Some((at, outcome)) = &*last
            && at.elapsed() < pause
        {
            return outcome.clone();
        }
        let looked = self.store.api_keys().await.map(|keys| {
            self.known.store(Some(Arc::new(keys.into_iter().map(|key| (key.id.clone(), key)).collect())));
        });
        *last = Some((Instant::now(), looked.clone()));
        looked
    }

    /// Tells the store when keys were last used. Of interest to people alone, so a failure is not.
    async fn note_use(&self) {
        let used: Vec<_> = {
            let used = self.used.pin();
            used.iter().map(|(id, at)| (id.clone(), Timestamp::from_millis(*at))).collect()
        };
        if !used.is_empty() && self.store.note_api_key_use(used).await.is_ok() {
            self.used.pin().clear();
        }
    }

    fn find(&self, id: &str) -> Option<ApiKey> {
        self.known.load().as_ref()?.get(id).cloned()
    }
}

#[async_trait]
impl BearerAuthenticator for ApiKeys {
    async fn recognise(&self, token: &Secret) -> Result<Option<Caller>> {
        if !token.expose().starts_with(PREFIX) {
            return Ok(None);
        }
        let id = id_of(token.expose()).ok_or_else(|| bad("the API key is malformed"))?;
        let found = match self.find(id) {
            Some(key) => Some(key),
            // It may have been made a moment ago.
            None => {
                self.look(PAUSE).await?;
                self.find(id)
            }
        };
        // A key that is not there takes as long as a wrong one.
        let hash = hash_of(token);
        let right = found.as_ref().map_or([0; 32], |key| key.hash).ct_eq(&hash);
        let key = found.filter(|_| right.into()).ok_or_else(|| bad("there is no such API key"))?;
        if key.revoked_at.is_some() {
            return Err(bad("the API key is revoked"));
        }
        self.used.pin().insert(key.id, self.clock.now().as_millis());
        Ok(Some(Caller::with_claims(format!("key:{}", key.name), Claims::new(), key.expires_at)))
    }
}

fn bad(why: &'static str) -> Error {
    Error::new(ErrorKind::BadIdentity, why)
}

#[cfg(test)]
mod tests;
