//! A store that is slow or down when a test says so.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{sync::Notify, time::sleep};

use super::{
    Admission, ApiKey, Applied, AuditFilter, AuditRow, Claim, Commit, Committed, Departure, EndpointClaim,
    EndpointView, Event, FailedAttempt, Grant, GrantCandidate, GrantLoss, GrantOrigin, GrantSeed, GrantUpdate,
    Heartbeat, Holder, Lease, LeaseOwner, LeaseScope, Pass, Rejected, Replica, Reseal, RotationIntent, SecretCursor,
    SecretPage, SharedStore, TokenRow, TokenStore, Turned,
};
use crate::{
    error::{Error, ErrorKind, Result},
    time::Timestamp,
    types::{CredentialName, Generation, KeyHash, Origin, ReplicaId},
};

/// Another store, with faults.
#[derive(Debug)]
pub(crate) struct FaultyTokenStore {
    inner: SharedStore,
    faults: Mutex<Faults>,
    calls: Mutex<HashMap<&'static str, usize>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Faults {
    down: bool,
    failing: Option<&'static str>,
    delay: Duration,
    answer_delay: Duration,
    deaf: bool,
}

impl FaultyTokenStore {
    /// Without faults so far.
    pub(crate) fn new(inner: SharedStore) -> Self {
        Self { inner, faults: Mutex::default(), calls: Mutex::default() }
    }

    /// Every operation fails from now on, or none.
    pub(crate) fn set_down(&self, down: bool) {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).down = down;
    }

    /// Every operation takes this long.
    pub(crate) fn set_delay(&self, delay: Duration) {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).delay = delay;
    }

    /// Every answer takes this long after its operation was done.
    pub(crate) fn set_answer_delay(&self, delay: Duration) {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).answer_delay = delay;
    }

    /// No hint comes to whoever begins to listen from now on.
    pub(crate) fn set_deaf(&self) {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).deaf = true;
    }

    fn faults(&self) -> Faults {
        *self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This operation fails from now on, and no other.
    pub(crate) fn set_failing(&self, operation: Option<&'static str>) {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).failing = operation;
    }

    /// How often an operation was asked for.
    pub(crate) fn calls(&self, operation: &str) -> usize {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).get(operation).copied().unwrap_or_default()
    }

    /// How many operations were asked for.
    pub(crate) fn operations(&self) -> usize {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }

    async fn pass(&self, operation: &'static str) -> Result<()> {
        *self.calls.lock().unwrap_or_else(PoisonError::into_inner).entry(operation).or_default() += 1;
        let faults = self.faults();
        sleep(faults.delay).await;
        let down = faults.down || faults.failing == Some(operation);
        if down { Err(Error::new(ErrorKind::StoreDown, "the store is told to fail")) } else { Ok(()) }
    }
}

macro_rules! with_faults {
    ($(fn $name:ident($($argument:ident: $kind:ty),*) -> $answer:ty;)*) => {
        #[async_trait]
        impl TokenStore for FaultyTokenStore {
            fn kind(&self) -> &'static str {
                self.inner.kind()
            }

            fn is_persistent(&self) -> bool {
                self.inner.is_persistent()
            }

            fn is_shared(&self) -> bool {
                self.inner.is_shared()
            }

            async fn listen(&self, hint: Arc<Notify>) {
                if self.faults().deaf {
                    std::future::pending::<()>().await;
                }
                self.inner.listen(hint).await;
            }

            async fn close(&self) {
                self.inner.close().await;
            }

            $(async fn $name(&self, $($argument: $kind),*) -> Result<$answer> {
                self.pass(stringify!($name)).await?;
                let answer = self.inner.$name($($argument),*).await;
                sleep(self.faults().answer_delay).await;
                answer
            })*
        }
    };
}

with_faults! {
    fn prepare() -> ();
    fn prepare_by_force() -> ();
    fn load(key: KeyHash) -> Option<TokenRow>;
    fn scan(after: Option<KeyHash>, limit: u32) -> Vec<TokenRow>;
    fn rows_of(credential: CredentialName, limit: u32) -> Vec<TokenRow>;
    fn acquire(scope: LeaseScope, owner: LeaseOwner, ttl: Duration) -> Claim;
    fn renew(lease: Lease, ttl: Duration) -> bool;
    fn release(lease: Lease) -> ();
    fn holder(scope: LeaseScope) -> Option<Holder>;
    fn admit(claim: EndpointClaim) -> Admission;
    fn renew_pass(pass: Pass, ttl: Duration) -> bool;
    fn depart(departure: Departure) -> Turned;
    fn endpoint(endpoint: Origin) -> EndpointView;
    fn commit(commit: Commit) -> Committed;
    fn record_failure(attempt: FailedAttempt) -> ();
    fn reject(key: KeyHash, generation: Generation) -> Rejected;
    fn candidates(credential: CredentialName) -> Vec<GrantCandidate>;
    fn load_grant(credential: CredentialName) -> Option<Grant>;
    fn grant_origin(credential: CredentialName) -> Option<GrantOrigin>;
    fn plant_grant(seed: GrantSeed, expected: u64) -> bool;
    fn advance_grant(credential: CredentialName, update: GrantUpdate) -> bool;
    fn begin_rotation(intent: RotationIntent) -> bool;
    fn abandon_rotation(intent: RotationIntent) -> ();
    fn lose_grant(loss: GrantLoss) -> bool;
    fn events(after: u64, limit: u32) -> Vec<Event>;
    fn prune(older_than: Timestamp) -> u64;
    fn append_audit(rows: Vec<AuditRow>) -> ();
    fn audit_events(after: u64, filter: AuditFilter, limit: u32) -> Vec<AuditRow>;
    fn prune_audit(older_than: Timestamp) -> u64;
    fn secrets(from: SecretCursor, limit: u32) -> SecretPage;
    fn reseal(changes: Vec<Reseal>) -> u64;
    fn heartbeat(beat: Heartbeat) -> ();
    fn applied(replica: ReplicaId, applied: Applied) -> bool;
    fn replicas() -> Vec<Replica>;
    fn leave(replica: ReplicaId) -> ();
    fn event_horizon(age: Duration) -> u64;
    fn api_keys() -> Vec<ApiKey>;
    fn add_api_key(key: ApiKey) -> ();
    fn revoke_api_key(id: String, at: Timestamp) -> bool;
    fn note_api_key_use(used: Vec<(String, Timestamp)>) -> ();
    fn ping() -> ();
}
