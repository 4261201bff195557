//! Makes a store safe against callers that go away: every operation runs to its end in a task of its own.
//!
//! A server drops a handler whenever its client hangs up. A database call dropped in its middle leaves a connection in
//! an unknown state, and a write undecided; here the caller drops no more than its interest in the answer.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

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

/// How long a caller waits for an operation.
const LIMIT: Duration = Duration::from_secs(10);

/// How long it waits for the schema, which may have to be rewritten: longer than a back end itself allows for that.
const PREPARE_LIMIT: Duration = Duration::from_secs(150);

/// Runs each operation of another store in a task of its own, and waits for it for a limited time.
///
/// An operation that takes longer fails with `StoreDown` for its caller and goes on; one that panics is a `Bug`.
/// [`TokenStore::close`] first waits, for the same time, for those that still run.
#[derive(Debug)]
pub struct DetachedTokenStore {
    inner: SharedStore,
    limit: Duration,
    tasks: TaskTracker,
}

impl DetachedTokenStore {
    /// Callers wait 10 s for an operation of `inner`, and longer for its schema.
    #[must_use]
    pub fn new(inner: SharedStore) -> Self {
        Self::with_limit(inner, LIMIT)
    }

    /// Callers wait for `limit`.
    #[must_use]
    pub fn with_limit(inner: SharedStore, limit: Duration) -> Self {
        Self { inner, limit, tasks: TaskTracker::new() }
    }

    async fn run<T, F>(&self, operation: impl FnOnce(SharedStore) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        self.run_within(self.limit, operation).await
    }

    async fn run_within<T, F>(&self, limit: Duration, operation: impl FnOnce(SharedStore) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let task = self.tasks.spawn(operation(Arc::clone(&self.inner)).in_current_span());
        match tokio::time::timeout(limit, task).await {
            Ok(Ok(result)) => result,
            Ok(Err(error)) if error.is_panic() => Err(Error::bug("an operation of the store panicked")),
            Ok(Err(_)) => Err(Error::new(ErrorKind::StoreDown, "the store is shut down")),
            Err(_) => Err(Error::new(ErrorKind::StoreDown, "the store does not answer in time")),
        }
    }
}

#[async_trait]
impl TokenStore for DetachedTokenStore {
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }

    async fn prepare(&self) -> Result<()> {
        self.run_within(PREPARE_LIMIT, |store| async move { store.prepare().await }).await
    }

    async fn prepare_by_force(&self) -> Result<()> {
        self.run_within(PREPARE_LIMIT, |store| async move { store.prepare_by_force().await }).await
    }

    async fn load(&self, key: KeyHash) -> Result<Option<TokenRow>> {
        self.run(|store| async move { store.load(key).await }).await
    }

    async fn scan(&self, after: Option<KeyHash>, limit: u32) -> Result<Vec<TokenRow>> {
        self.run(|store| async move { store.scan(after, limit).await }).await
    }

    async fn rows_of(&self, credential: CredentialName, limit: u32) -> Result<Vec<TokenRow>> {
        self.run(move |store| async move { store.rows_of(credential, limit).await }).await
    }

    async fn acquire(&self, scope: LeaseScope, owner: LeaseOwner, ttl: Duration) -> Result<Claim> {
        self.run(move |store| async move { store.acquire(scope, owner, ttl).await }).await
    }

    async fn renew(&self, lease: Lease, ttl: Duration) -> Result<bool> {
        self.run(move |store| async move { store.renew(lease, ttl).await }).await
    }

    async fn release(&self, lease: Lease) -> Result<()> {
        self.run(move |store| async move { store.release(lease).await }).await
    }

    async fn holder(&self, scope: LeaseScope) -> Result<Option<Holder>> {
        self.run(move |store| async move { store.holder(scope).await }).await
    }

    async fn admit(&self, claim: EndpointClaim) -> Result<Admission> {
        self.run(move |store| async move { store.admit(claim).await }).await
    }

    async fn renew_pass(&self, pass: Pass, ttl: Duration) -> Result<bool> {
        self.run(move |store| async move { store.renew_pass(pass, ttl).await }).await
    }

    async fn depart(&self, departure: Departure) -> Result<Turned> {
        self.run(move |store| async move { store.depart(departure).await }).await
    }

    async fn endpoint(&self, endpoint: Origin) -> Result<EndpointView> {
        self.run(move |store| async move { store.endpoint(endpoint).await }).await
    }

    async fn commit(&self, commit: Commit) -> Result<Committed> {
        self.run(move |store| async move { store.commit(commit).await }).await
    }

    async fn record_failure(&self, attempt: FailedAttempt) -> Result<()> {
        self.run(move |store| async move { store.record_failure(attempt).await }).await
    }

    async fn reject(&self, key: KeyHash, generation: Generation) -> Result<Rejected> {
        self.run(move |store| async move { store.reject(key, generation).await }).await
    }

    async fn candidates(&self, credential: CredentialName) -> Result<Vec<GrantCandidate>> {
        self.run(move |store| async move { store.candidates(credential).await }).await
    }

    async fn load_grant(&self, credential: CredentialName) -> Result<Option<Grant>> {
        self.run(move |store| async move { store.load_grant(credential).await }).await
    }

    async fn grant_origin(&self, credential: CredentialName) -> Result<Option<GrantOrigin>> {
        self.run(move |store| async move { store.grant_origin(credential).await }).await
    }

    async fn plant_grant(&self, seed: GrantSeed, expected: u64) -> Result<bool> {
        self.run(move |store| async move { store.plant_grant(seed, expected).await }).await
    }

    async fn advance_grant(&self, credential: CredentialName, update: GrantUpdate) -> Result<bool> {
        self.run(move |store| async move { store.advance_grant(credential, update).await }).await
    }

    async fn begin_rotation(&self, intent: RotationIntent) -> Result<bool> {
        self.run(move |store| async move { store.begin_rotation(intent).await }).await
    }

    async fn abandon_rotation(&self, intent: RotationIntent) -> Result<()> {
        self.run(move |store| async move { store.abandon_rotation(intent).await }).await
    }

    async fn lose_grant(&self, loss: GrantLoss) -> Result<bool> {
        self.run(move |store| async move { store.lose_grant(loss).await }).await
    }

    async fn events(&self, after: u64, limit: u32) -> Result<Vec<Event>> {
        self.run(move |store| async move { store.events(after, limit).await }).await
    }

    async fn prune(&self, older_than: Timestamp) -> Result<u64> {
        self.run(move |store| async move { store.prune(older_than).await }).await
    }

    async fn api_keys(&self) -> Result<Vec<ApiKey>> {
        self.run(|store| async move { store.api_keys().await }).await
    }

    async fn add_api_key(&self, key: ApiKey) -> Result<()> {
        self.run(|store| async move { store.add_api_key(key).await }).await
    }

    async fn revoke_api_key(&self, id: String, at: Timestamp) -> Result<bool> {
        self.run(move |store| async move { store.revoke_api_key(id, at).await }).await
    }

    async fn note_api_key_use(&self, used: Vec<(String, Timestamp)>) -> Result<()> {
        self.run(|store| async move { store.note_api_key_use(used).await }).await
    }

    async fn append_audit(&self, rows: Vec<AuditRow>) -> Result<()> {
        self.run(move |store| async move { store.append_audit(rows).await }).await
    }

    async fn audit_events(&self, after: u64, filter: AuditFilter, limit: u32) -> Result<Vec<AuditRow>> {
        self.run(move |store| async move { store.audit_events(after, filter, limit).await }).await
    }

    async fn prune_audit(&self, older_than: Timestamp) -> Result<u64> {
        self.run(move |store| async move { store.prune_audit(older_than).await }).await
    }

    async fn secrets(&self, from: SecretCursor, limit: u32) -> Result<SecretPage> {
        self.run(move |store| async move { store.secrets(from, limit).await }).await
    }

    async fn reseal(&self, changes: Vec<Reseal>) -> Result<u64> {
        self.run(move |store| async move { store.reseal(changes).await }).await
    }

    fn is_persistent(&self) -> bool {
        self.inner.is_persistent()
    }

    fn is_shared(&self) -> bool {
        self.inner.is_shared()
    }

    async fn heartbeat(&self, beat: Heartbeat) -> Result<()> {
        self.run(move |store| async move { store.heartbeat(beat).await }).await
    }

    async fn applied(&self, replica: ReplicaId, applied: Applied) -> Result<bool> {
        self.run(move |store| async move { store.applied(replica, applied).await }).await
    }

    async fn replicas(&self) -> Result<Vec<Replica>> {
        self.run(|store| async move { store.replicas().await }).await
    }

    async fn leave(&self, replica: ReplicaId) -> Result<()> {
        self.run(move |store| async move { store.leave(replica).await }).await
    }

    async fn event_horizon(&self, age: Duration) -> Result<u64> {
        self.run(move |store| async move { store.event_horizon(age).await }).await
    }

    /// Not in a task of its own: it belongs to the worker that listens, and ends with it.
    async fn listen(&self, hint: Arc<Notify>) {
        self.inner.listen(hint).await;
    }

    async fn ping(&self) -> Result<()> {
        self.run(|store| async move { store.ping().await }).await
    }

    async fn close(&self) {
        self.tasks.close();
        if tokio::time::timeout(self.limit, self.tasks.wait()).await.is_err() {
            tracing::warn!(running = self.tasks.len(), "closing the store over operations that do not end");
        }
        self.inner.close().await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;
    use crate::{
        store::{MemoryTokenStore, faulty::FaultyTokenStore},
        time::SystemClock,
    };

    fn detached(limit: Duration) -> Arc<DetachedTokenStore> {
        let memory = Arc::new(MemoryTokenStore::new(Arc::new(SystemClock)));
        Arc::new(DetachedTokenStore::with_limit(memory, limit))
    }

    /// An operation that says when it begins, waits to be let through, and says when it ends.
    struct Gate {
        begun: Semaphore,
        open: Semaphore,
        done: Semaphore,
    }

    impl Gate {
        fn closed() -> Arc<Self> {
            let none = || Semaphore::new(0);
            Arc::new(Self { begun: none(), open: none(), done: none() })
        }

        async fn pass(self: Arc<Self>) -> Result<()> {
            self.begun.add_permits(1);
            take(&self.open).await;
            self.done.add_permits(1);
            Ok(())
        }
    }

    async fn take(semaphore: &Semaphore) {
        semaphore.acquire().await.expect("it is never closed").forget();
    }

    #[tokio::test]
    async fn an_operation_goes_on_when_its_caller_goes_away() {
        let (store, gate) = (detached(LIMIT), Gate::closed());
        let call = tokio::spawn({
            let (store, gate) = (store.clone(), gate.clone());
            async move { store.run(|_| gate.pass()).await }
        });
        take(&gate.begun).await;
        call.abort();
        assert!(call.await.is_err_and(|error| error.is_cancelled()));
        gate.open.add_permits(1);
        take(&gate.done).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_operation_fails_for_its_caller_and_goes_on() {
        let (store, gate) = (detached(LIMIT), Gate::closed());
        let answer = store.run(|_| gate.clone().pass()).await;
        assert_eq!(answer.map_err(|error| error.kind()), Err(ErrorKind::StoreDown));
        gate.open.add_permits(1);
        take(&gate.done).await;
        assert_eq!(store.ping().await, Ok(()));
    }

    #[tokio::test]
    async fn a_panic_is_a_bug_that_tells_nothing() {
        let store = detached(LIMIT);
        let answer: Result<()> = store.run(|_| async { panic!("s3cr3t") }).await;
        assert_eq!(answer, Err(Error::bug("an operation of the store panicked")));
        assert_eq!(store.ping().await, Ok(()));
    }

    #[tokio::test]
    async fn closing_waits_for_what_still_runs() {
        let (store, gate) = (detached(LIMIT), Gate::closed());
        let call = tokio::spawn({
            let (store, gate) = (store.clone(), gate.clone());
            async move { store.run(|_| gate.pass()).await }
        });
        take(&gate.begun).await;
        call.abort();
        let closing = tokio::spawn({
            let store = store.clone();
            async move { store.close().await }
        });
        tokio::task::yield_now().await;
        assert_eq!(store.ping().await, Ok(()), "not closed yet");
        gate.open.add_permits(1);
        closing.await.expect("no panic");
        assert_eq!(gate.done.available_permits(), 1, "the operation came first");
        assert_eq!(store.ping().await.map_err(|error| error.kind()), Err(ErrorKind::StoreDown));
    }

    #[tokio::test(start_paused = true)]
    async fn closing_does_not_wait_for_ever() {
        let (store, gate) = (detached(LIMIT), Gate::closed());
        let answer = store.run(|_| gate.clone().pass()).await;
        assert_eq!(answer.map_err(|error| error.kind()), Err(ErrorKind::StoreDown));
        store.close().await;
        assert_eq!(store.ping().await.map_err(|error| error.kind()), Err(ErrorKind::StoreDown));
    }

    #[tokio::test(start_paused = true)]
    async fn a_migration_may_take_longer_than_other_operations() {
        let memory = Arc::new(MemoryTokenStore::new(Arc::new(SystemClock)));
        let slow = Arc::new(FaultyTokenStore::new(memory));
        slow.set_delay(Duration::from_secs(60));
        let store = DetachedTokenStore::new(slow);
        assert_eq!(store.prepare().await, Ok(()));
        assert_eq!(store.ping().await.map_err(|error| error.kind()), Err(ErrorKind::StoreDown));
    }
}
