//! Where tokens and grants outlive the process: the seam and its words.
//!
//! Invariants, which `store/conformance.rs` tests of every back end:
//! - a generation never goes back: a commit is fenced on the generation that it was begun from;
//! - no refresh token is lost: a late one is kept as a candidate even if its commit is superseded;
//! - a lease lapses on the *store's* clock and is released by its owner alone;
//! - every commit and rejection appends an event in the same transaction, and again if that committed so late that
//!   replicas may have given its id up.
//!
//! A store knows nothing of providers, and nothing here decides whether a token is fresh.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::sync::Notify;

use crate::{
    error::{Error, ErrorKind, Result},
    time::Timestamp,
    types::{CredentialName, Generation, KeyHash, Origin, ReplicaId},
};

mod api_key;
mod audit;
#[cfg(any(test, feature = "testing"))]
pub mod conformance;
mod detached;
mod endpoint;
#[cfg(test)]
pub(crate) mod faulty;
mod fleet;
mod grant;
mod lease;
mod memory;
mod observed;
mod password;
mod postgres;
mod registry;
pub mod sealed;
mod secrets;
pub mod spill;
mod sql;
mod sqlite;
mod token;

pub use api_key::ApiKey;
pub use audit::{AuditFilter, AuditRow};
pub use detached::DetachedTokenStore;
pub use endpoint::{
    Admission, BreakerRule, CallOutcome, Departure, EndpointClaim, EndpointState, EndpointView, Gate, Pass, Turned,
};
pub use fleet::{Applied, EVENT_PATIENCE, Event, EventKind, Heartbeat, Replica};
pub use grant::{
    Grant, GrantCandidate, GrantLoss, GrantOrigin, GrantSecret, GrantSeed, GrantUpdate, OpenIntent, RotationIntent,
    StrayCall,
};
pub use lease::{Claim, Holder, Lease, LeaseOwner, LeaseScope};
pub use memory::MemoryTokenStore;
pub use observed::ObservedTokenStore;
pub use password::{PasswordSource, SharedPassword};
pub use postgres::PgTokenStore;
pub use registry::{StoreBackend, StoreRegistry, StoreUrl};
pub use secrets::{Reseal, SecretCursor, SecretPage, StoredSecrets};
pub use sqlite::SqliteTokenStore;
pub use token::{Commit, Committed, FailedAttempt, Failures, Fence, Rejected, TokenRow, Write};

/// The longest that a lease lasts without being renewed.
const MAX_LEASE: Duration = Duration::from_secs(24 * 60 * 60);

/// Keeps tokens, grants, leases and events.
///
/// Every method is bounded in time and fails with [`ErrorKind::StoreDown`](crate::error::ErrorKind) when the store cannot be reached. None of
/// them is cancel-safe by itself; `store/detached.rs` makes them so.
#[async_trait]
pub trait TokenStore: fmt::Debug + Send + Sync + 'static {
    /// The kind of store, as in its URL: `memory`, `sqlite`, `postgres`.
    fn kind(&self) -> &'static str;

    /// Brings the schema up to date under a lock, so that replicas may start together; refuses one that is for newer
    /// programs alone, and to cut off older replicas that live. Called once before everything else, and again if it failed.
    async fn prepare(&self) -> Result<()>;

    /// The same, whatever becomes of older replicas: they find out, and write no more.
    async fn prepare_by_force(&self) -> Result<()> {
        self.prepare().await
    }

    /// What is known of a key.
    async fn load(&self, key: KeyHash) -> Result<Option<TokenRow>>;

    /// A page of all rows in the order of their hashes: those after `after`, at most `limit`.
    async fn scan(&self, after: Option<KeyHash>, limit: u32) -> Result<Vec<TokenRow>>;

    /// The rows of one credential in the order of their hashes, at most `limit`.
    async fn rows_of(&self, credential: CredentialName, limit: u32) -> Result<Vec<TokenRow>>;

    /// Claims the right to call the upstream, unless somebody else holds it. It lapses after `ttl`, at most a day.
    async fn acquire(&self, scope: LeaseScope, owner: LeaseOwner, ttl: Duration) -> Result<Claim>;

    /// Prolongs a lease, even one that has lapsed unless it was claimed since. False: it was given back, or somebody
    /// else holds it now; nothing was changed.
    async fn renew(&self, lease: Lease, ttl: Duration) -> Result<bool>;

    /// Gives a lease back. Does nothing if somebody else holds it by now.
    async fn release(&self, lease: Lease) -> Result<()>;

    /// Who holds the lease, and until when on the store's clock.
    async fn holder(&self, scope: LeaseScope) -> Result<Option<Holder>>;

    /// Claims a lease and a place among the calls of an endpoint, both or neither, in one transaction. An endpoint that is
    /// shut admits nobody, but for one who finds out whether it works again. A claim may be repeated by its owner.
    async fn admit(&self, claim: EndpointClaim) -> Result<Admission>;

    /// Prolongs what was admitted, as [`renew`](Self::renew) does a lease. False: the lease or the place is somebody
    /// else's by now.
    async fn renew_pass(&self, pass: Pass, ttl: Duration) -> Result<bool>;

    /// Gives back what was admitted, as far as it is still the owner's, and notes what the call says of the endpoint:
    /// what [`EndpointState::after`] makes of it. One transaction.
    async fn depart(&self, departure: Departure) -> Result<Turned>;

    /// What is known of an endpoint.
    async fn endpoint(&self, endpoint: Origin) -> Result<EndpointView>;

    /// Stores a minted token, if its fence lets it pass, and the new grant with it, and ends the row's
    /// record of failures. One transaction. To repeat a commit whose answer was lost is harmless: the same token under
    /// the same generation counts as stored.
    async fn commit(&self, commit: Commit) -> Result<Committed>;

    /// Records a failed attempt, unless the row's generation has moved past `base`.
    async fn record_failure(&self, attempt: FailedAttempt) -> Result<()>;

    /// Takes a generation out of service: no lower than `generation + 1` may be served. Does nothing if the row has not
    /// come to that generation yet, or has been invalidated past it.
    async fn reject(&self, key: KeyHash, generation: Generation) -> Result<Rejected>;

    /// Refresh tokens of a credential that came too late to become its grant's, the oldest first. One is dropped only
    /// when it has become the grant's or the upstream has refused it, and another one has been taken since.
    async fn candidates(&self, credential: CredentialName) -> Result<Vec<GrantCandidate>>;

    /// The grant of a credential.
    async fn load_grant(&self, credential: CredentialName) -> Result<Option<Grant>>;

    /// Where the grant of a credential comes from, also of one that does not open.
    async fn grant_origin(&self, credential: CredentialName) -> Result<Option<GrantOrigin>> {
        let grant = self.load_grant(credential).await?;
        Ok(grant.map(|grant| GrantOrigin { version: grant.version, seed: grant.seed }))
    }

    /// Replaces the grant by one that a person supplied, if its version is still `expected` (0: there is none).
    /// Ends `needs_reauth` and any intent. Returns whether it did.
    async fn plant_grant(&self, seed: GrantSeed, expected: u64) -> Result<bool>;

    /// Stores a refresh token that came without a usable access token: as the grant's if its version is still
    /// `base_version`, else as a candidate. Returns whether it became the grant's.
    ///
    /// What was sent for it is from now on the one before. It ends the flight's own intent, never a successor's. It ends
    /// `needs_reauth` only if it was begun after the loss: otherwise the upstream may have ended the family since, and a
    /// loss that was reported stays so until a refresh has succeeded; `retry` says that there is something to try.
    async fn advance_grant(&self, credential: CredentialName, update: GrantUpdate) -> Result<bool>;

    /// Journals that a refresh token is about to be sent to the upstream. Returns false, and writes nothing, if the
    /// grant's version or its journal has moved: of two that would send a refresh token one finds out in time. An open
    /// intent of another owner becomes the stray one.
    async fn begin_rotation(&self, intent: RotationIntent) -> Result<bool>;

    /// Ends an intent whose call certainly consumed nothing. Does nothing if another one has taken its place.
    async fn abandon_rotation(&self, intent: RotationIntent) -> Result<()>;

    /// Records that a person has to log in again, and why, if the grant's version is still the one that was tried.
    async fn lose_grant(&self, loss: GrantLoss) -> Result<bool>;

    /// Events after `after`, in the order of their ids, at most `limit`.
    async fn events(&self, after: u64, limit: u32) -> Result<Vec<Event>>;

    /// Deletes what is of no more use: events older than this, and rows that never had a token and whose last attempt
    /// failed before it. Rows with a token stay, for their generation must not begin anew. Returns how many of both.
    async fn prune(&self, older_than: Timestamp) -> Result<u64>;

    /// Every API key that was made, revoked and expired ones, too, in the order of their making.
    async fn api_keys(&self) -> Result<Vec<ApiKey>>;

    /// Keeps a new API key. Its id is random: one that is there already is a defect.
    async fn add_api_key(&self, key: ApiKey) -> Result<()>;

    /// Revokes an API key. False: there is none with this id. One that is revoked already stays so since then.
    async fn revoke_api_key(&self, id: String, at: Timestamp) -> Result<bool>;

    /// Notes when API keys were last used, unless a later use is noted.
    async fn note_api_key_use(&self, used: Vec<(String, Timestamp)>) -> Result<()>;

    /// Keeps audit events, all or none. To repeat it is harmless: an event with a chain and a sequence that is known
    /// already is left as it is.
    async fn append_audit(&self, rows: Vec<AuditRow>) -> Result<()>;

    /// Audit events after the place `after` that are wanted, in the order of their places, at most `limit`.
    async fn audit_events(&self, after: u64, filter: AuditFilter, limit: u32) -> Result<Vec<AuditRow>>;

    /// Deletes audit events from before this time. Returns how many.
    async fn prune_audit(&self, older_than: Timestamp) -> Result<u64>;

    /// A page of the secrets as they are kept, of at most `limit` rows. What changes meanwhile may be seen or not.
    async fn secrets(&self, from: SecretCursor, limit: u32) -> Result<SecretPage>;

    /// Changes how the secrets of these rows are kept, in one transaction; a row that has changed since it was read stays as
    /// it is. Returns how many were changed. Nobody is told, for what they are stays the same.
    async fn reseal(&self, changes: Vec<Reseal>) -> Result<u64>;

    /// Seals all secrets with the active key, as far as they are sealed with another one or not at all; with `dry_run` only
    /// counts. May be broken off and begun again, and run beside all other operations.
    ///
    /// # Errors
    ///
    /// `Misconfigured` where nothing is sealed.
    async fn rotate_key(&self, _dry_run: bool) -> Result<sealed::KeyCensus> {
        Err(Error::new(ErrorKind::Misconfigured, "nothing is sealed here: there is no key in [encryption]"))
    }

    /// Whether what is stored outlives the process, and so may be read by others than this program.
    fn is_persistent(&self) -> bool {
        true
    }

    /// Whether several replicas may use the store at once. Then the methods below work; their defaults do not.
    fn is_shared(&self) -> bool {
        false
    }

    /// Says that a replica lives and which events it has applied. Whoever rejects a token waits for it from now on, for
    /// as long as `ttl` on the store's clock.
    async fn heartbeat(&self, _beat: Heartbeat) -> Result<()> {
        Err(not_shared())
    }

    /// Says which events a replica has applied, while somebody waits to hear it; its lease stays as it is. What is said so
    /// may be forgotten in a crash of the store. False: the replica is not known, and has to send a sign of life.
    async fn applied(&self, _replica: ReplicaId, _applied: Applied) -> Result<bool> {
        Err(not_shared())
    }

    /// The replicas that have said so lately, by their ids; also those whose lease has lapsed, for a day.
    async fn replicas(&self) -> Result<Vec<Replica>> {
        Err(not_shared())
    }

    /// Ends a replica's lease at once: nobody waits for it any more.
    async fn leave(&self, _replica: ReplicaId) -> Result<()> {
        Err(not_shared())
    }

    /// An id that every event younger than `age` comes after, committed or not yet.
    async fn event_horizon(&self, _age: Duration) -> Result<u64> {
        Err(not_shared())
    }

    /// Calls `hint` whenever there may be new events, for ever. A hint may be missing: it only hastens the next look.
    async fn listen(&self, _hint: Arc<Notify>) {
        std::future::pending::<()>().await;
    }

    /// Whether the store answers.
    async fn ping(&self) -> Result<()>;

    /// Ends all connections. Later calls fail.
    async fn close(&self);
}

fn not_shared() -> Error {
    Error::bug("this kind of store is not for several replicas")
}

/// A store that many share.
pub type SharedStore = Arc<dyn TokenStore>;
