//! What a replica holds in memory: tokens, the floors below which none may be served, and recent refusals.
//!
//! Invariants:
//! - a floor stands outside the evictable cache and is checked on every read, so that a load that races a rejection
//!   cannot bring the rejected token back;
//! - an entry is replaced only by one of a later generation: a failed refresh displaces nothing;
//! - moka's own expiry is memory hygiene; whether a token may be served is decided by `entry.rs` alone.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use foldhash::quality::RandomState;
use moka::ops::compute::Op;

use super::{
    entry::is_too_early,
    near::{Near, Retired},
};
use crate::{
    bug::{self, Bug},
    error::Error,
    time::Timestamp,
    types::{Fingerprint, Generation, KeyHash, Token, TokenKey},
};

/// Refusals are forgotten after at most this long; the store keeps what must be kept.
const REFUSAL_TTL: Duration = Duration::from_secs(3600);

/// Looks in vain are forgotten after this long; they matter for a second.
const LOOK_TTL: Duration = Duration::from_secs(60);

/// A token in memory.
#[derive(Debug)]
pub struct Entry {
    /// Its key.
    pub key: TokenKey,
    /// The token.
    pub token: Token,
    /// Fingerprint of the configuration that it was minted with.
    pub config: Fingerprint,
    last_used: AtomicI64,
    refresh_requested: AtomicBool,
    /// Whether the store has it. One that it does not have yet cannot be rejected elsewhere, and is not verified.
    stored: AtomicBool,
    /// Whether another entry has taken its place.
    pub(super) retired: Retired,
}

impl Entry {
    /// Calls within one second count as one: a hot key's cache line is then written once a second, not once a call.
    const USE_GRANULARITY: i64 = 1000;

    /// A token of `key`, last asked for at `last_used`.
    #[must_use]
    pub fn new(key: TokenKey, token: Token, config: Fingerprint, last_used: Timestamp) -> Self {
        let last_used = AtomicI64::new(last_used.as_millis());
        let (refresh_requested, stored) = (AtomicBool::new(false), AtomicBool::new(true));
        Self { key, token, config, last_used, refresh_requested, stored, retired: Retired::default() }
    }

    /// The same, but not in the store yet.
    #[must_use]
    pub fn unstored(self) -> Self {
        Self { stored: AtomicBool::new(false), ..self }
    }

    /// Whether the store has it.
    #[must_use]
    pub fn is_stored(&self) -> bool {
        self.stored.load(Ordering::Acquire)
    }

    /// Whether `other`, which has been read from the store, is to take the place of this one.
    fn yields_to(&self, other: &Self) -> bool {
        let (own, new) = (self.token.generation, other.token.generation);
        own < new || (own == new && !self.is_stored() && other.is_stored())
    }

    /// Notes that a client asked for it.
    pub fn mark_used(&self, now: Timestamp) {
        if now.as_millis().saturating_sub(self.last_used.load(Ordering::Relaxed)) >= Self::USE_GRANULARITY {
            self.last_used.fetch_max(now.as_millis(), Ordering::Relaxed);
        }
    }

    /// When a client last asked for it, to the second.
    #[must_use]
    pub fn last_used(&self) -> Timestamp {
        Timestamp::from_millis(self.last_used.load(Ordering::Relaxed))
    }

    /// True for the first caller alone, until [`Entry::forget_refresh`]: the one hit that starts the background refresh.
    pub fn request_refresh(&self) -> bool {
        !self.refresh_requested.load(Ordering::Relaxed) && !self.refresh_requested.swap(true, Ordering::Relaxed)
    }

    /// Lets a later hit start the refresh again.
    pub fn forget_refresh(&self) {
        self.refresh_requested.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
impl Entry {
    /// An entry of a credential without anything asked of it, with all that a token can have.
    pub(crate) fn sample(credential: &str, access_token: &str) -> Self {
        let access_token = crate::types::Secret::from(access_token);
        let token = Token {
            fingerprint: Fingerprint::of(&access_token),
            access_token,
            terms: crate::types::Terms::new(
                "Bearer".into(),
                vec!["a".into(), "b".into()],
                [("instance_url".into(), "https://x.example/".into())].into(),
            ),
            issued_at: Timestamp::from_millis(1_000),
            expires_at: Timestamp::from_millis(3_601_000),
            refresh_at: Timestamp::from_millis(3_000_000),
            generation: Generation::new(300),
        };
        let name = crate::types::CredentialName::parse(credential).expect("a valid name");
        let key = TokenKey::new(crate::types::Selector::new(name, vec![], None, vec![]));
        Self::new(key, token, Fingerprint::of_bytes(b""), Timestamp::from_millis(0))
    }
}

/// An attempt that failed lately: what callers are told until the next one may be made.
#[derive(Debug)]
pub struct Refusal {
    /// What it failed with.
    pub error: Error,
    /// Not before this time is the upstream (or the store) asked again.
    pub next_attempt_at: Timestamp,
}

impl Refusal {
    /// What a caller is told at this time.
    #[must_use]
    pub fn to_error(&self, now: Timestamp) -> Error {
        if self.error.kind().is_permanent() {
            return self.error.clone();
        }
        self.error.clone().with_retry_after(self.next_attempt_at.since(now).max(Duration::from_millis(1)))
    }
}

/// A look at the store that did not find the generation that a client claims to have seen.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// When it began, of [`crate::time::Clock::uptime`].
    pub at: Duration,
    /// The generation of the row. `None`: the store did not answer.
    pub found: Option<Generation>,
}

/// The memory of a replica.
#[derive(Debug)]
pub struct Memory {
    entries: moka::sync::Cache<KeyHash, Arc<Entry>, RandomState>,
    near: Arc<Near>,
    refusals: moka::sync::Cache<KeyHash, Arc<Refusal>>,
    floors: papaya::HashMap<KeyHash, Generation, RandomState>,
    acknowledged: moka::sync::Cache<KeyHash, Generation>,
    looks: moka::sync::Cache<KeyHash, Look>,
}

impl Memory {
    /// Room for `max_tokens`; beyond it the least valuable entry is dropped, and loaded from the store when asked for.
    #[must_use]
    pub fn new(max_tokens: u64) -> Self {
        let refusals = moka::sync::Cache::builder().max_capacity(max_tokens).time_to_live(REFUSAL_TTL).build();
        let near = Arc::new(Near::new());
        let entries = moka::sync::Cache::builder().max_capacity(max_tokens).eviction_listener({
            let near = Arc::clone(&near);
            move |_, entry: Arc<Entry>, _| near.forget(&entry)
        });
        Self {
            // Their keys are hashes already, so that a fast hasher does; who asks for keys cannot foresee where they go.
            entries: entries.build_with_hasher(RandomState::default()),
            near,
            refusals,
            floors: papaya::HashMap::with_hasher(RandomState::default()),
            acknowledged: moka::sync::Cache::new(max_tokens),
            looks: moka::sync::Cache::builder().max_capacity(max_tokens).time_to_live(LOOK_TTL).build(),
        }
    }

    /// The entry of a key, unless its generation is below the floor. It may be expired.
    #[must_use]
    pub fn get(&self, key: &KeyHash) -> Option<Arc<Entry>> {
        let entry = self.near.get(key, || self.entries.get(key))?;
        (entry.token.generation >= self.floor(key) || bug::has(Bug::OldTokenReinserted)).then_some(entry)
    }

    /// The last entry of a key, even below the floor.
    #[must_use]
    pub fn latest(&self, key: &KeyHash) -> Option<Arc<Entry>> {
        self.entries.get(key)
    }

    /// Notes that the store has this very token.
    pub fn confirm(&self, key: &KeyHash, generation: Generation, fingerprint: Fingerprint) {
        let is_it = |entry: &Arc<Entry>| entry.token.generation == generation && entry.token.fingerprint == fingerprint;
        if let Some(entry) = self.entries.get(key).filter(is_it) {
            entry.stored.store(true, Ordering::Release);
        }
    }

    /// Puts an entry in, unless one of the same or a later generation is there; of the same one, a stored token takes the
    /// place of one that is not. Ends the key's refusal. Returns the
    /// entry that is there now, which may still be below the floor.
    pub fn insert(&self, entry: Entry) -> Arc<Entry> {
        let key = entry.key.hash();
        let entry = Arc::new(entry);
        self.refusals.invalidate(&key);
        let result = self.entries.entry(key).and_compute_with(|present| match present {
            Some(present) if !present.value().yields_to(&entry) => Op::Nop,
            Some(present) => {
                entry.mark_used(present.value().last_used());
                self.near.forget(present.value());
                Op::Put(Arc::clone(&entry))
            }
            None => Op::Put(Arc::clone(&entry)),
        });
        self.near.fit(self.entries.entry_count());
        result.into_entry().map_or(entry, |present| present.into_value())
    }

    /// The lowest generation of a key that may be served.
    #[must_use]
    pub fn floor(&self, key: &KeyHash) -> Generation {
        // Rejections are rare: an empty map is the common case, and costs one load.
        if self.floors.is_empty() {
            return Generation::NONE;
        }
        self.floors.pin().get(key).copied().unwrap_or_default()
    }

    /// Raises the floor of a key; a lower one than the present changes nothing. True if it was raised.
    pub fn raise_floor(&self, key: KeyHash, floor: Generation) -> bool {
        if floor == Generation::NONE {
            return false;
        }
        let before = self.floor(&key);
        self.floors.pin().update_or_insert(key, |present| (*present).max(floor), floor);
        before < floor
    }

    /// Whether every live replica is known to have heard that this generation is rejected.
    #[must_use]
    pub fn is_acknowledged(&self, key: &KeyHash, rejected: Generation) -> bool {
        self.acknowledged.get(key).is_some_and(|floor| rejected < floor)
    }

    /// Notes that every live replica has heard of a floor. A forgotten one costs a look into the store.
    pub fn acknowledge(&self, key: KeyHash, floor: Generation) {
        self.acknowledged.insert(key, floor);
    }

    /// The last look at the store that was in vain.
    #[must_use]
    pub fn last_look(&self, key: &KeyHash) -> Option<Look> {
        self.looks.get(key)
    }

    /// Notes a look that was in vain.
    pub fn note_look(&self, key: KeyHash, look: Look) {
        self.looks.insert(key, look);
    }

    /// Why the key's last attempt failed, if it is too early for the next one.
    #[must_use]
    pub fn refusal(&self, key: &KeyHash, now: Timestamp) -> Option<Arc<Refusal>> {
        let ignored = bug::has(Bug::NextAttemptIgnored);
        self.refusals.get(key).filter(|refusal| is_too_early(refusal.next_attempt_at, now) && !ignored)
    }

    /// Notes a failed attempt.
    pub fn refuse(&self, key: KeyHash, refusal: Refusal) {
        self.refusals.insert(key, Arc::new(refusal));
    }

    /// Forgets a key's failed attempt: the next caller asks at once.
    pub fn forgive(&self, key: &KeyHash) {
        self.refusals.invalidate(key);
    }

    /// How many tokens are held. What was put in lately is counted only once moka has kept its house, which this has it do.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.entries.run_pending_tasks();
        self.entries.entry_count()
    }

    /// About how many tokens are held.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.entries.entry_count()
    }

    /// Whether none is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Secret;

    fn entry(generation: u64) -> Entry {
        let mut entry = Entry::sample("c", &format!("t{generation}"));
        entry.token.generation = Generation::new(generation);
        entry
    }

    fn generation_in(memory: &Memory) -> Option<u64> {
        memory.get(&entry(1).key.hash()).map(|entry| entry.token.generation.get())
    }

    #[test]
    fn an_older_generation_never_displaces_a_later_one() {
        let memory = Memory::new(10);
        memory.insert(entry(2));
        assert_eq!(memory.insert(entry(1)).token.generation, Generation::new(2));
        assert_eq!(generation_in(&memory), Some(2));
        memory.insert(entry(3));
        assert_eq!(generation_in(&memory), Some(3));
    }

    #[test]
    fn of_one_generation_the_stored_token_is_kept() {
        let memory = Memory::new(10);
        let key = entry(1).key.hash();
        assert!(!memory.insert(entry(2).unstored()).is_stored());
        assert!(memory.insert(entry(2)).is_stored());
        assert!(memory.insert(entry(2).unstored()).is_stored());
        memory.insert(entry(3).unstored());
        let of = |text: &str| Fingerprint::of(&Secret::from(text));
        memory.confirm(&key, Generation::new(3), of("another"));
        assert!(memory.get(&key).is_some_and(|entry| !entry.is_stored()));
        memory.confirm(&key, Generation::new(3), of("t3"));
        assert!(memory.get(&key).is_some_and(|entry| entry.is_stored()));
    }

    #[test]
    fn a_rejected_token_that_a_racing_load_brings_back_is_not_served() {
        let memory = Memory::new(10);
        let key = entry(1).key.hash();
        assert!(memory.raise_floor(key, Generation::new(2)));
        memory.insert(entry(1));
        assert_eq!(generation_in(&memory), None);
        memory.insert(entry(2));
        assert_eq!(generation_in(&memory), Some(2));
    }

    #[test]
    fn a_floor_never_goes_back() {
        let memory = Memory::new(10);
        let key = entry(1).key.hash();
        assert!(memory.raise_floor(key, Generation::new(5)));
        assert!(!memory.raise_floor(key, Generation::new(3)));
        assert_eq!(memory.floor(&key), Generation::new(5));
    }

    #[test]
    fn a_refusal_lasts_until_the_next_attempt_may_be_made() {
        let memory = Memory::new(10);
        let key = entry(1).key.hash();
        let error = Error::new(crate::error::ErrorKind::UpstreamDown, "down");
        memory.refuse(key, Refusal { error, next_attempt_at: Timestamp::from_millis(5000) });
        let refusal = memory.refusal(&key, Timestamp::from_millis(2000)).expect("it is too early");
        assert_eq!(refusal.to_error(Timestamp::from_millis(2000)).retry_after(), Some(Duration::from_secs(3)));
        assert!(memory.refusal(&key, Timestamp::from_millis(5000)).is_none());
        memory.insert(entry(1));
        assert!(memory.refusal(&key, Timestamp::from_millis(2000)).is_none());
    }

    #[test]
    fn one_hit_alone_starts_the_background_refresh() {
        let entry = entry(1);
        assert!(entry.request_refresh());
        assert!(!entry.request_refresh());
    }
}
