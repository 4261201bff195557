//! A store that is slow or down when a test says so.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::{sync::Notify, time::sleep};

use super::{
    Admission, Claim, Commit, Committed, Departure, EndpointClaim, EndpointView, Event, FailedAttempt, Grant,
    GrantCandidate, GrantSeed, GrantUpdate, Heartbeat, Holder, Lease, LeaseOwner, LeaseScope, Pass, Rejected, Replica,
    RotationIntent, SharedStore, TokenRow, TokenStore, Turned,
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
    operations: AtomicUsize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Faults {
    down: bool,
    delay: Duration,
}

impl FaultyTokenStore {
    /// Without faults so far.
    pub(crate) fn new(inner: SharedStore) -> Self {
        Self { inner, faults: Mutex::default(), operations: AtomicUsize::new(0) }
    }

    /// Every operation fails from now on, or none.
    pub(crate) fn set_down(&self, down: bool) {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).down = down;
    }

    /// Every operation takes this long.
    pub(crate) fn set_delay(&self, delay: Duration) {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).delay = delay;
    }

    /// How many operations were asked for.
    pub(crate) fn operations(&self) -> usize {
        self.operations.load(Ordering::SeqCst)
    }

    async fn pass(&self) -> Result<()> {
        self.operations.fetch_add(1, Ordering::SeqCst);
        let faults = *self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        sleep(faults.delay).await;
        if faults.down { Err(Error::new(ErrorKind::StoreDown, "the store is told to fail")) } else { Ok(()) }
    }
}

macro_rules! with_faults {
    ($(fn $name:ident($($argument:ident: $kind:ty),*) -> $answer:ty;)*) => {
        #[async_trait]
        impl TokenStore for FaultyTokenStore {
            fn kind(&self) -> &'static str {
                self.inner.kind()
            }

            fn is_shared(&self) -> bool {
                self.inner.is_shared()
            }

            async fn listen(&self, hint: Arc<Notify>) {
                self.inner.listen(hint).await;
            }

            async fn close(&self) {
                self.inner.close().await;
            }

            $(async fn $name(&self, $($argument: $kind),*) -> Result<$answer> {
                self.pass().await?;
                self.inner.$name($($argument),*).await
            })*
        }
    };
}

with_faults! {
    fn prepare() -> ();
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
    fn plant_grant(seed: GrantSeed, expected: u64) -> bool;
    fn advance_grant(credential: CredentialName, update: GrantUpdate) -> bool;
    fn begin_rotation(intent: RotationIntent) -> bool;
    fn abandon_rotation(intent: RotationIntent) -> ();
    fn lose_grant(credential: CredentialName, version: u64, reason: String) -> bool;
    fn events(after: u64, limit: u32) -> Vec<Event>;
    fn prune(older_than: Timestamp) -> u64;
    fn heartbeat(beat: Heartbeat) -> ();
    fn replicas() -> Vec<Replica>;
    fn leave(replica: ReplicaId) -> ();
    fn event_horizon(age: Duration) -> u64;
    fn ping() -> ();
}
