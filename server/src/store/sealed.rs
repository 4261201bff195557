//! Seals every secret that passes on its way into another store, and opens it on its way out: a decorator, of which nobody
//! above notices anything.
//!
//! Invariants:
//! - nothing is written in the clear;
//! - a secret opens in its own place alone (`place`): in no other table, row, column or generation, and a refresh token under
//!   no other configuration of its credential;
//! - what does not open costs its own row and no other one.
//!
//! What is not a secret is not sealed: names, times, generations and fingerprints can be read, and changed, by whoever has
//! the database.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::sync::Notify;
use tracing::error;

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

mod blob;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod place;
mod ring;
mod rotation;
mod sealer;

#[cfg(test)]
mod tests;

pub use blob::Unopened;
pub use place::Place;
pub use ring::{BadKey, KeyId, KeyMaterial, KeyRing};
pub use rotation::KeyCensus;
pub use sealer::Sealer;

/// How many rows are opened before others have their turn: a large page holds nobody up.
const OPENED_AT_ONCE: usize = 64;

/// Another store, whose secrets are sealed.
#[derive(Debug)]
pub struct SealedTokenStore {
    inner: SharedStore,
    sealer: Arc<Sealer>,
}

impl SealedTokenStore {
    /// Seals what goes into `inner`.
    #[must_use]
    pub fn new(inner: SharedStore, sealer: Arc<Sealer>) -> Self {
        Self { inner, sealer }
    }

    /// Refuses to begin while a key is missing that rows are sealed with, unless that is allowed.
    async fn check_keys(&self) -> Result<()> {
        let keys = rotation::keys_in_use(&self.inner).await?;
        let missing = keys.by_key.iter().filter(|(id, _)| !self.sealer.ring().may_miss(id));
        let missing: Vec<_> = missing.map(|(id, rows)| format!("{id} ({rows} rows)")).collect();
        if !missing.is_empty() {
            let text = format!(
                "keys that are still in use are missing from [encryption.keys]: {}; put them back and drop them after \
                 `tokencached key rotate`, or list them in encryption.allow_missing_keys to do without what they sealed",
                missing.join(", ")
            );
            return Err(Error::new(ErrorKind::Misconfigured, text));
        }
        if keys.plaintext > 0 && !self.sealer.accepts_plaintext() {
            error!(
                rows = keys.plaintext,
                "rows in the clear are not used: set encryption.accept_plaintext = true and run `tokencached key rotate`"
            );
        }
        Ok(())
    }
}

/// What has no secret in it.
macro_rules! passed_on {
    ($(fn $name:ident($($argument:ident: $kind:ty),*) -> $answer:ty;)* ; sealed { $($sealed:tt)* }) => {
        #[async_trait]
        impl TokenStore for SealedTokenStore {
            $(async fn $name(&self, $($argument: $kind),*) -> Result<$answer> {
                self.inner.$name($($argument),*).await
            })*

            $($sealed)*
        }
    };
}

passed_on! {
    fn acquire(scope: LeaseScope, owner: LeaseOwner, ttl: Duration) -> Claim;
    fn renew(lease: Lease, ttl: Duration) -> bool;
    fn release(lease: Lease) -> ();
    fn holder(scope: LeaseScope) -> Option<Holder>;
    fn admit(claim: EndpointClaim) -> Admission;
    fn renew_pass(pass: Pass, ttl: Duration) -> bool;
    fn depart(departure: Departure) -> Turned;
    fn endpoint(endpoint: Origin) -> EndpointView;
    fn record_failure(attempt: FailedAttempt) -> ();
    fn reject(key: KeyHash, generation: Generation) -> Rejected;
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
    fn heartbeat(beat: Heartbeat) -> ();
    fn applied(replica: ReplicaId, applied: Applied) -> bool;
    fn replicas() -> Vec<Replica>;
    fn leave(replica: ReplicaId) -> ();
    fn event_horizon(age: Duration) -> u64;
    fn ping() -> ();
    ;
    sealed {
        fn kind(&self) -> &'static str {
            self.inner.kind()
        }

        fn is_persistent(&self) -> bool {
            self.inner.is_persistent()
        }

        fn is_shared(&self) -> bool {
            self.inner.is_shared()
        }

        async fn prepare(&self) -> Result<()> {
            self.inner.prepare().await?;
            self.check_keys().await
        }

        async fn prepare_by_force(&self) -> Result<()> {
            self.inner.prepare_by_force().await?;
            self.check_keys().await
        }

        async fn load(&self, key: KeyHash) -> Result<Option<TokenRow>> {
            self.inner.load(key).await?.map(|row| self.sealer.open_row(row)).transpose()
        }

        async fn scan(&self, after: Option<KeyHash>, limit: u32) -> Result<Vec<TokenRow>> {
            Ok(self.opened(self.inner.scan(after, limit).await?).await)
        }

        async fn rows_of(&self, credential: CredentialName, limit: u32) -> Result<Vec<TokenRow>> {
            Ok(self.opened(self.inner.rows_of(credential, limit).await?).await)
        }

        async fn commit(&self, commit: Commit) -> Result<Committed> {
            self.inner.commit(self.sealer.seal_commit(commit)?).await
        }

        async fn candidates(&self, credential: CredentialName) -> Result<Vec<GrantCandidate>> {
            let candidates = self.inner.candidates(credential.clone()).await?;
            if candidates.is_empty() { Ok(candidates) } else { self.sealer.open_candidates(&credential, candidates) }
        }

        async fn load_grant(&self, credential: CredentialName) -> Result<Option<Grant>> {
            self.inner.load_grant(credential).await?.map(|grant| self.sealer.open_grant(grant)).transpose()
        }

        async fn grant_origin(&self, credential: CredentialName) -> Result<Option<GrantOrigin>> {
            self.inner.grant_origin(credential).await
        }

        async fn plant_grant(&self, seed: GrantSeed, expected: u64) -> Result<bool> {
            self.inner.plant_grant(self.sealer.seal_seed(seed, expected)?, expected).await
        }

        async fn advance_grant(&self, credential: CredentialName, update: GrantUpdate) -> Result<bool> {
            let update = self.sealer.seal_update(&credential, update)?;
            self.inner.advance_grant(credential, update).await
        }

        async fn rotate_key(&self, dry_run: bool) -> Result<KeyCensus> {
            rotation::rotate(&self.inner, &self.sealer, dry_run).await
        }

        async fn listen(&self, hint: Arc<Notify>) {
            self.inner.listen(hint).await;
        }

        async fn close(&self) {
            self.inner.close().await;
        }
    }
}

impl SealedTokenStore {
    /// Rows for which a key is missing stand there without their token: others are not to suffer from it.
    async fn opened(&self, rows: Vec<TokenRow>) -> Vec<TokenRow> {
        let mut opened = Vec::with_capacity(rows.len());
        for (number, row) in rows.into_iter().enumerate() {
            if number % OPENED_AT_ONCE == OPENED_AT_ONCE - 1 {
                tokio::task::yield_now().await;
            }
            let without = TokenRow { token: None, ..row.clone() };
            opened.push(self.sealer.open_row(row).unwrap_or_else(|error| {
                error!(credential = %without.key.credential(), %error, "a stored token is left out");
                without
            }));
        }
        opened
    }
}
