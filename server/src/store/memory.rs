//! The reference store: maps under one lock, gone with the process.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::Notify;

use self::grants::Grants;
use super::{
    Admission, ApiKey, Applied, AuditFilter, AuditRow, Claim, Commit, Committed, Departure, EndpointClaim,
    EndpointView, Event, EventKind, FailedAttempt, Failures, Fence, Grant, GrantCandidate, GrantLoss, GrantSeed,
    GrantUpdate, Heartbeat, Holder, Lease, LeaseOwner, LeaseScope, MAX_LEASE, Pass, Rejected, Replica, Reseal,
    RotationIntent, SecretCursor, SecretPage, TokenRow, TokenStore, Turned,
};
use crate::{
    bug::{self, Bug},
    error::{Error, ErrorKind, Result},
    time::{SharedClock, Timestamp},
    types::{CredentialName, Fingerprint, Generation, KeyHash, Origin, ReplicaId, TokenKey},
};

mod audit;
mod endpoints;
mod grants;
mod secrets;

/// Keeps everything in memory. Its own clock is the one that it is given.
#[derive(Debug)]
pub struct MemoryTokenStore {
    clock: SharedClock,
    state: Mutex<State>,
    /// Told of each commit and rejection.
    news: Notify,
    shared: bool,
}

#[derive(Debug, Default)]
struct State {
    closed: bool,
    tokens: BTreeMap<KeyHash, TokenRow>,
    grants: Grants,
    api_keys: Vec<ApiKey>,
    leases: HashMap<LeaseScope, HeldLease>,
    endpoints: HashMap<Origin, endpoints::KnownEndpoint>,
    replicas: BTreeMap<String, KnownReplica>,
    last_rejections: HashMap<KeyHash, u64>,
    events: BTreeMap<u64, Event>,
    last_event: u64,
    audit: audit::AuditTable,
}

#[derive(Debug)]
struct HeldLease {
    owner: String,
    expires_at: Timestamp,
}

#[derive(Debug)]
struct KnownReplica {
    replica: Replica,
    lease_until: Timestamp,
}

impl MemoryTokenStore {
    /// An empty store of one process.
    #[must_use]
    pub fn new(clock: SharedClock) -> Self {
        Self { clock, state: Mutex::default(), news: Notify::new(), shared: false }
    }

    /// An empty store that plays a database which several replicas share, all of them in this process.
    #[must_use]
    pub fn for_replicas(clock: SharedClock) -> Self {
        Self { shared: true, ..Self::new(clock) }
    }

    /// A panic under the lock leaves no half-done change: every change below is made after all that could fail.
    fn state(&self) -> Result<MutexGuard<'_, State>> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.closed {
            return Err(Error::new(ErrorKind::StoreDown, "the store is closed"));
        }
        Ok(state)
    }
}

#[async_trait]
impl TokenStore for MemoryTokenStore {
    fn kind(&self) -> &'static str {
        "memory"
    }

    async fn prepare(&self) -> Result<()> {
        self.ping().await
    }

    async fn load(&self, key: KeyHash) -> Result<Option<TokenRow>> {
        Ok(self.state()?.tokens.get(&key).cloned())
    }

    async fn scan(&self, after: Option<KeyHash>, limit: u32) -> Result<Vec<TokenRow>> {
        let state = self.state()?;
        let rows = state.tokens.iter().filter(|(hash, _)| after.is_none_or(|after| **hash > after));
        Ok(rows.take(limit as usize).map(|(_, row)| row.clone()).collect())
    }

    async fn rows_of(&self, credential: CredentialName, limit: u32) -> Result<Vec<TokenRow>> {
        let state = self.state()?;
        let rows = state.tokens.values().filter(|row| *row.key.credential() == credential);
        Ok(rows.take(limit as usize).cloned().collect())
    }

    async fn acquire(&self, scope: LeaseScope, owner: LeaseOwner, ttl: Duration) -> Result<Claim> {
        let now = self.clock.now();
        Ok(self.state()?.acquire(scope, owner, ttl, now))
    }

    async fn renew(&self, lease: Lease, ttl: Duration) -> Result<bool> {
        let now = self.clock.now();
        Ok(self.state()?.renew(&lease, ttl, now))
    }

    async fn release(&self, lease: Lease) -> Result<()> {
        self.state()?.release(&lease);
        Ok(())
    }

    async fn holder(&self, scope: LeaseScope) -> Result<Option<Holder>> {
        Ok(self.state()?.leases.get(&scope).and_then(|held| held.as_of(self.clock.now())))
    }

    async fn admit(&self, claim: EndpointClaim) -> Result<Admission> {
        let now = self.clock.now();
        Ok(self.state()?.admit(claim, now))
    }

    async fn renew_pass(&self, pass: Pass, ttl: Duration) -> Result<bool> {
        let now = self.clock.now();
        Ok(self.state()?.renew_pass(&pass, ttl, now))
    }

    async fn depart(&self, departure: Departure) -> Result<Turned> {
        let now = self.clock.now();
        Ok(self.state()?.depart(&departure, now))
    }

    async fn endpoint(&self, endpoint: Origin) -> Result<EndpointView> {
        let (state, now) = (self.state()?, self.clock.now());
        Ok(state.endpoints.get(&endpoint).map(|known| known.view(now)).unwrap_or_default())
    }

    async fn commit(&self, commit: Commit) -> Result<Committed> {
        let (mut state, now) = (self.state()?, self.clock.now());
        let committed = state.commit_token(&commit, now);
        self.news.notify_waiters();
        if let Some(update) = commit.grant {
            state.grants.keep(commit.key.credential(), update);
        }
        Ok(committed)
    }

    async fn record_failure(&self, attempt: FailedAttempt) -> Result<()> {
        let mut state = self.state()?;
        let row = state
            .tokens
            .entry(attempt.key.hash())
            .or_insert_with(|| empty_row(attempt.key, attempt.failures.config, attempt.failures.at));
        if row.generation <= attempt.base {
            row.failures = Some(attempt.failures);
        }
        Ok(())
    }

    async fn reject(&self, key: KeyHash, generation: Generation) -> Result<Rejected> {
        let (mut state, now) = (self.state()?, self.clock.now());
        let Some(row) = state.tokens.get_mut(&key) else {
            return Ok(Rejected::default());
        };
        let known = Generation::NONE < generation && generation <= row.generation;
        let invalidated = known && row.min_generation <= generation;
        if invalidated {
            row.min_generation = generation.next();
        }
        let row = row.clone();
        if invalidated {
            let event = state.append(EventKind::Rejected, &row, generation, now);
            state.last_rejections.insert(key, event);
            self.news.notify_waiters();
        }
        let event = state.last_rejections.get(&key).copied().unwrap_or_default();
        Ok(Rejected { invalidated, min_generation: row.min_generation, generation: row.generation, event })
    }

    async fn candidates(&self, credential: CredentialName) -> Result<Vec<GrantCandidate>> {
        Ok(self.state()?.grants.candidates(&credential))
    }

    async fn load_grant(&self, credential: CredentialName) -> Result<Option<Grant>> {
        Ok(self.state()?.grants.load(&credential, self.clock.now()))
    }

    async fn plant_grant(&self, seed: GrantSeed, expected: u64) -> Result<bool> {
        Ok(self.state()?.grants.plant(seed, expected))
    }

    async fn advance_grant(&self, credential: CredentialName, update: GrantUpdate) -> Result<bool> {
        Ok(self.state()?.grants.keep(&credential, update))
    }

    async fn begin_rotation(&self, intent: RotationIntent) -> Result<bool> {
        Ok(self.state()?.grants.begin(intent, self.clock.now()))
    }

    async fn abandon_rotation(&self, intent: RotationIntent) -> Result<()> {
        self.state()?.grants.end_intent(&intent.credential, Some(&intent.owner));
        Ok(())
    }

    async fn lose_grant(&self, loss: GrantLoss) -> Result<bool> {
        let (mut state, now) = (self.state()?, self.clock.now());
        let (credential, version) = (loss.credential.clone(), loss.version);
        let lost = state.grants.lose(loss);
        if lost {
            state.note_loss(credential, version, now);
        }
        Ok(lost)
    }

    async fn events(&self, after: u64, limit: u32) -> Result<Vec<Event>> {
        let state = self.state()?;
        let Some(first) = after.checked_add(1) else { return Ok(vec![]) };
        Ok(state.events.range(first..).take(limit as usize).map(|(_, event)| event.clone()).collect())
    }

    async fn prune(&self, older_than: Timestamp) -> Result<u64> {
        let mut state = self.state()?;
        let before = state.events.len() + state.tokens.len();
        state.events.retain(|_, event| event.at >= older_than);
        let is_used = |failures: &Failures| failures.at >= older_than;
        state.tokens.retain(|_, row| row.token.is_some() || row.failures.as_ref().is_none_or(is_used));
        Ok((before - state.events.len() - state.tokens.len()) as u64)
    }

    async fn append_audit(&self, rows: Vec<AuditRow>) -> Result<()> {
        self.state()?.audit.append(rows);
        Ok(())
    }

    async fn audit_events(&self, after: u64, filter: AuditFilter, limit: u32) -> Result<Vec<AuditRow>> {
        Ok(self.state()?.audit.page(after, &filter, limit as usize))
    }

    async fn prune_audit(&self, older_than: Timestamp) -> Result<u64> {
        Ok(self.state()?.audit.prune(older_than))
    }

    async fn secrets(&self, from: SecretCursor, limit: u32) -> Result<SecretPage> {
        Ok(self.state()?.secrets(&from, limit as usize))
    }

    async fn reseal(&self, changes: Vec<Reseal>) -> Result<u64> {
        let mut state = self.state()?;
        Ok(changes.into_iter().filter_map(|change| state.reseal(change)).count() as u64)
    }

    fn is_persistent(&self) -> bool {
        false
    }

    fn is_shared(&self) -> bool {
        self.shared
    }

    async fn heartbeat(&self, beat: Heartbeat) -> Result<()> {
        let (mut state, now) = (self.state()?, self.clock.now());
        let Heartbeat { replica: id, version, ttl, applied } = beat;
        let started_at = state.replicas.get(id.as_str()).map_or(now, |known| known.replica.started_at);
        let lease_until = now.after(ttl.min(MAX_LEASE));
        let known = Replica { id: id.clone(), version, started_at, remaining: Duration::ZERO, applied };
        state.replicas.insert(id.to_string(), KnownReplica { replica: known, lease_until });
        Ok(())
    }

    async fn applied(&self, replica: ReplicaId, applied: Applied) -> Result<bool> {
        let mut state = self.state()?;
        let known = state.replicas.get_mut(replica.as_str()).map(|known| known.replica.applied = applied);
        Ok(known.is_some())
    }

    async fn replicas(&self) -> Result<Vec<Replica>> {
        let now = self.clock.now();
        let seen = |known: &KnownReplica| Replica { remaining: known.lease_until.since(now), ..known.replica.clone() };
        Ok(self.state()?.replicas.values().map(seen).collect())
    }

    async fn leave(&self, replica: ReplicaId) -> Result<()> {
        self.state()?.replicas.remove(replica.as_str());
        Ok(())
    }

    async fn event_horizon(&self, age: Duration) -> Result<u64> {
        let (state, since) = (self.state()?, self.clock.now().before(age));
        let young = state.events.values().find(|event| event.at >= since);
        Ok(young.map_or(state.last_event, |event| event.id - 1))
    }

    async fn listen(&self, hint: Arc<Notify>) {
        loop {
            // Created first: what happens from now on is not missed.
            let news = self.news.notified();
            hint.notify_one();
            news.await;
        }
    }

    async fn api_keys(&self) -> Result<Vec<ApiKey>> {
        Ok(self.state()?.api_keys.clone())
    }

    async fn add_api_key(&self, key: ApiKey) -> Result<()> {
        self.state()?.api_keys.push(key);
        Ok(())
    }

    async fn revoke_api_key(&self, id: String, at: Timestamp) -> Result<bool> {
        let mut state = self.state()?;
        let key = state.api_keys.iter_mut().find(|key| key.id == id);
        Ok(key.map(|key| key.revoked_at.get_or_insert(at)).is_some())
    }

    async fn note_api_key_use(&self, used: Vec<(String, Timestamp)>) -> Result<()> {
        let mut state = self.state()?;
        for (id, at) in used {
            for key in state.api_keys.iter_mut().filter(|key| key.id == id) {
                key.last_used_at = key.last_used_at.max(Some(at));
            }
        }
        Ok(())
    }

    async fn ping(&self) -> Result<()> {
        self.state().map(drop)
    }

    async fn close(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
    }
}

impl State {
    fn acquire(&mut self, scope: LeaseScope, owner: LeaseOwner, ttl: Duration, now: Timestamp) -> Claim {
        let text = owner.to_string();
        if let Some(held) = self.leases.get(&scope).filter(|held| held.owner != text)
            && let Some(holder) = held.as_of(now)
        {
            return Claim::Held(holder);
        }
        self.leases.insert(scope.clone(), HeldLease { owner: text, expires_at: now.after(ttl.min(MAX_LEASE)) });
        Claim::Granted(Lease { scope, owner })
    }

    fn renew(&mut self, lease: &Lease, ttl: Duration, now: Timestamp) -> bool {
        let held = self.leases.get_mut(&lease.scope).filter(|held| held.owner == lease.owner.to_string());
        let Some(held) = held else { return false };
        held.expires_at = now.after(ttl.min(MAX_LEASE));
        true
    }

    fn release(&mut self, lease: &Lease) {
        let any = bug::has(Bug::ForeignLeaseReleased);
        if self.leases.get(&lease.scope).is_some_and(|held| any || held.owner == lease.owner.to_string()) {
            self.leases.remove(&lease.scope);
        }
    }

    fn commit_token(&mut self, commit: &Commit, now: Timestamp) -> Committed {
        let row = self.tokens.get(&commit.key.hash());
        let new = &commit.token;
        let repeated =
            |token: &crate::types::Token| token.generation == new.generation && token.fingerprint == new.fingerprint;
        if row.and_then(|row| row.token.as_ref()).is_some_and(repeated) {
            return Committed::Stored;
        }
        let generation = row.map_or(Generation::NONE, |row| row.generation);
        let passes = match commit.fence {
            _ if bug::has(Bug::NoFence) => true,
            Fence::Next => new.generation == generation.next(),
            Fence::Above if bug::has(Bug::ServedTokenLost) => new.generation == generation.next(),
            Fence::Above => new.generation > generation,
        };
        if !passes {
            return Committed::Superseded;
        }
        let mut row = row.cloned().unwrap_or_else(|| empty_row(commit.key.clone(), commit.config, commit.last_used_at));
        row.generation = new.generation;
        row.token = Some(new.clone());
        row.config = commit.config;
        row.failures = None;
        row.last_used_at = row.last_used_at.max(commit.last_used_at);
        self.append(EventKind::Committed, &row, row.generation, now);
        self.tokens.insert(commit.key.hash(), row);
        Committed::Stored
    }

    fn note_loss(&mut self, credential: CredentialName, version: u64, at: Timestamp) {
        self.last_event += 1;
        let (id, generation, min_generation) = (self.last_event, Generation::new(version), Generation::NONE);
        let (kind, key) = (EventKind::GrantLost, KeyHash::NONE);
        self.events.insert(id, Event { id, kind, key, credential, generation, min_generation, at });
    }

    fn append(&mut self, kind: EventKind, row: &TokenRow, generation: Generation, at: Timestamp) -> u64 {
        self.last_event += 1;
        let event = Event {
            id: self.last_event,
            kind,
            key: row.key.hash(),
            credential: row.key.credential().clone(),
            generation,
            min_generation: row.min_generation,
            at,
        };
        self.events.insert(event.id, event);
        self.last_event
    }
}

impl HeldLease {
    /// `None` once it has lapsed.
    fn as_of(&self, now: Timestamp) -> Option<Holder> {
        self.holds(now).then(|| Holder { owner: self.owner.clone(), remaining: self.expires_at.since(now) })
    }

    fn holds(&self, now: Timestamp) -> bool {
        !self.expires_at.since(now).is_zero()
    }
}

fn empty_row(key: TokenKey, config: Fingerprint, last_used_at: Timestamp) -> TokenRow {
    TokenRow {
        key,
        generation: Generation::NONE,
        min_generation: Generation::NONE,
        token: None,
        config,
        failures: None,
        last_used_at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        store::{SharedStore, conformance},
        time::SystemClock,
    };

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_memory_store_conforms() {
        conformance::run(async || Arc::new(MemoryTokenStore::new(Arc::new(SystemClock))) as SharedStore).await;
        conformance::run(async || Arc::new(MemoryTokenStore::for_replicas(Arc::new(SystemClock))) as SharedStore).await;
    }
}
