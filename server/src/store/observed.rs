//! Notes how long each operation of another store takes and whether it fails: a decorator.
//!
//! It stands outside of all others, and so sees what callers of the store see: their time-outs, and the time that sealing
//! takes.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::{sync::Notify, time::Instant};

use super::{
    Admission, ApiKey, Applied, AuditFilter, AuditRow, Claim, Commit, Committed, Departure, EndpointClaim,
    EndpointView, Event, FailedAttempt, Grant, GrantCandidate, GrantLoss, GrantOrigin, GrantSeed, GrantUpdate,
    Heartbeat, Holder, Lease, LeaseOwner, LeaseScope, Pass, Rejected, Replica, Reseal, RotationIntent, SecretCursor,
    SecretPage, SharedStore, TokenRow, TokenStore, Turned, sealed::KeyCensus,
};
use crate::{
    error::{Error, Result},
    metrics::StoreMetrics,
    time::Timestamp,
    trace::{self, Child},
    types::{CredentialName, Generation, KeyHash, Origin, ReplicaId},
};

/// Another store, whose operations are counted.
#[derive(Debug)]
pub struct ObservedTokenStore {
    inner: SharedStore,
    metrics: StoreMetrics,
}

impl ObservedTokenStore {
    /// Counts the operations of `inner`.
    #[must_use]
    pub fn new(inner: SharedStore, metrics: StoreMetrics) -> Self {
        Self { inner, metrics }
    }

    async fn observe<T>(&self, operation: &'static str, work: impl Future<Output = Result<T>>) -> Result<T> {
        let begun = Instant::now();
        let result = match trace::here() {
            None => work.await,
            Some(here) => self.record(here, operation, work).await,
        };
        self.metrics.operation(operation, begun.elapsed(), result.as_ref().err().map(Error::kind));
        result
    }
}

impl ObservedTokenStore {
    /// Does an operation as a span of its own.
    async fn record<T>(
        &self,
        here: Child,
        operation: &'static str,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let mut span = here.call(format!("store {operation}"));
        span.note("db.system.name", self.inner.kind());
        span.note("db.operation.name", operation);
        let result = span.around(work).await;
        if let Err(error) = &result {
            span.fail(error.kind().reason());
        }
        result
    }
}

/// Every operation, under its own name.
macro_rules! observed {
    ($(fn $name:ident($($argument:ident: $kind:ty),*) -> $answer:ty;)*) => {
        #[async_trait]
        impl TokenStore for ObservedTokenStore {
            $(async fn $name(&self, $($argument: $kind),*) -> Result<$answer> {
                self.observe(stringify!($name), self.inner.$name($($argument),*)).await
            })*

            fn kind(&self) -> &'static str {
                self.inner.kind()
            }

            fn is_persistent(&self) -> bool {
                self.inner.is_persistent()
            }

            fn is_shared(&self) -> bool {
                self.inner.is_shared()
            }

            /// Not an operation: it lasts as long as the process.
            async fn listen(&self, hint: Arc<Notify>) {
                self.inner.listen(hint).await;
            }

            async fn close(&self) {
                self.inner.close().await;
            }
        }
    };
}

observed! {
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
    fn api_keys() -> Vec<ApiKey>;
    fn add_api_key(key: ApiKey) -> ();
    fn revoke_api_key(id: String, at: Timestamp) -> bool;
    fn note_api_key_use(used: Vec<(String, Timestamp)>) -> ();
    fn append_audit(rows: Vec<AuditRow>) -> ();
    fn audit_events(after: u64, filter: AuditFilter, limit: u32) -> Vec<AuditRow>;
    fn prune_audit(older_than: Timestamp) -> u64;
    fn secrets(from: SecretCursor, limit: u32) -> SecretPage;
    fn reseal(changes: Vec<Reseal>) -> u64;
    fn rotate_key(dry_run: bool) -> KeyCensus;
    fn heartbeat(beat: Heartbeat) -> ();
    fn applied(replica: ReplicaId, applied: Applied) -> bool;
    fn replicas() -> Vec<Replica>;
    fn leave(replica: ReplicaId) -> ();
    fn event_horizon(age: Duration) -> u64;
    fn ping() -> ();
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::{
        metrics::{self, Metrics},
        store::{MemoryTokenStore, conformance, faulty::FaultyTokenStore},
        time::SystemClock,
    };

    fn memory() -> SharedStore {
        Arc::new(MemoryTokenStore::for_replicas(Arc::new(SystemClock)))
    }

    #[tokio::test]
    async fn an_observed_store_does_all_that_a_store_must() {
        let observed = async || Arc::new(ObservedTokenStore::new(memory(), StoreMetrics::default())) as SharedStore;
        conformance::run(observed).await;
    }

    #[tokio::test]
    async fn operations_are_counted_by_name_and_failures_by_reason() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let faulty = Arc::new(FaultyTokenStore::new(memory()));
        let store = ObservedTokenStore::new(faulty.clone(), metrics.store.clone());
        store.ping().await.unwrap();
        faulty.set_down(true);
        store.ping().await.unwrap_err();
        let text = metrics::render(&registry);
        for line in [
            "tokencache_store_operation_duration_seconds_count{operation=\"ping\"} 2",
            "tokencache_store_failures_total{operation=\"ping\",reason=\"STORE_DOWN\"} 1",
            "tokencache_store_failures_total{operation=\"commit\",reason=\"STORE_DOWN\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
