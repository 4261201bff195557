//! Where tokens and grants outlive the process: the seam and its words.
//!
//! Invariants, which `store/conformance.rs` tests of every back end:
//! - a generation never goes back: a commit is fenced on the generation that it was begun from;
//! - no refresh token is lost: a late one is kept as a candidate even if its commit is superseded;
//! - a lease lapses on the *store's* clock and is released by its owner alone;
//! - every commit and rejection appends an event in the same transaction.
//!
//! A store knows nothing of providers, and nothing here decides whether a token is fresh.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::sync::Notify;

use crate::{
    error::{Error, ErrorKind, Result},
    time::Timestamp,
    types::{CredentialName, Fingerprint, Generation, KeyHash, ReplicaId, Secret, Token, TokenKey},
};

#[cfg(any(test, feature = "testing"))]
pub mod conformance;
mod detached;
#[cfg(test)]
pub(crate) mod faulty;
mod memory;
mod postgres;
mod registry;
mod sql;
mod sqlite;

pub use detached::DetachedTokenStore;
pub use memory::MemoryTokenStore;
pub use postgres::PgTokenStore;
pub use registry::{StoreBackend, StoreRegistry, StoreUrl};
pub use sqlite::SqliteTokenStore;

/// The longest that a lease lasts without being renewed.
const MAX_LEASE: Duration = Duration::from_secs(24 * 60 * 60);

/// Keeps tokens, grants, leases and events.
///
/// Every method is bounded in time and fails with [`ErrorKind::StoreDown`] when the store cannot be reached. None of
/// them is cancel-safe by itself; `store/detached.rs` makes them so.
#[async_trait]
pub trait TokenStore: fmt::Debug + Send + Sync + 'static {
    /// The kind of store, as in its URL: `memory`, `sqlite`, `postgres`.
    fn kind(&self) -> &'static str;

    /// Brings the schema up to date under a lock, so that replicas may start together; refuses one that is newer than
    /// this program knows. Called once before everything else, and again if it failed.
    async fn prepare(&self) -> Result<()>;

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

    /// Stores a minted token, if its generation is the one after the row's, and the new grant with it, and ends the row's
    /// record of failures. One transaction. To repeat a commit whose answer was lost is harmless: the same token under
    /// the same generation counts as stored.
    async fn commit(&self, commit: Commit) -> Result<Committed>;

    /// Records a failed attempt, unless the row's generation has moved past `base`.
    async fn record_failure(&self, attempt: FailedAttempt) -> Result<()>;

    /// Takes a generation out of service: no lower than `generation + 1` may be served. Does nothing if the row has not
    /// come to that generation yet, or has been invalidated past it.
    async fn reject(&self, key: KeyHash, generation: Generation) -> Result<Rejected>;

    /// Refresh tokens of a credential that came too late to become its grant's, the oldest first. They are never dropped.
    async fn candidates(&self, credential: CredentialName) -> Result<Vec<GrantCandidate>>;

    /// The grant of a credential.
    async fn load_grant(&self, credential: CredentialName) -> Result<Option<Grant>>;

    /// Replaces the grant by one that a person supplied, if its version is still `expected` (0: there is none).
    /// Ends `needs_reauth` and any intent. Returns whether it did.
    async fn plant_grant(&self, seed: GrantSeed, expected: u64) -> Result<bool>;

    /// Stores a refresh token that came without a usable access token: as the grant's if its version is still
    /// `base_version`, else as a candidate. Returns whether it became the grant's.
    async fn advance_grant(&self, credential: CredentialName, update: GrantUpdate) -> Result<bool>;

    /// Journals that the refresh token of this version is about to be sent to the upstream. Returns false, and writes
    /// nothing, if the grant's version has moved, or if another intent is open than the one it takes the place of: of two
    /// that would send the same refresh token one finds out in time.
    async fn begin_rotation(&self, intent: RotationIntent) -> Result<bool>;

    /// Ends an intent whose call certainly consumed nothing. Does nothing if the version has moved.
    async fn abandon_rotation(&self, intent: RotationIntent) -> Result<()>;

    /// Records that a person has to log in again, and why, if the grant's version is still `version`.
    async fn lose_grant(&self, credential: CredentialName, version: u64, reason: String) -> Result<bool>;

    /// Events after `after`, in the order of their ids, at most `limit`.
    async fn events(&self, after: u64, limit: u32) -> Result<Vec<Event>>;

    /// Deletes what is of no more use: events older than this, and rows that never had a token and whose last attempt
    /// failed before it. Rows with a token stay, for their generation must not begin anew. Returns how many of both.
    async fn prune(&self, older_than: Timestamp) -> Result<u64>;

    /// Whether several replicas may use the store at once. Then the methods below work; their defaults do not.
    fn is_shared(&self) -> bool {
        false
    }

    /// Says that a replica lives and which events it has applied. Whoever rejects a token waits for it from now on, for
    /// as long as `ttl` on the store's clock.
    async fn heartbeat(&self, _beat: Heartbeat) -> Result<()> {
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

/// What a store knows of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRow {
    /// The key.
    pub key: TokenKey,
    /// The generation of the last token minted.
    pub generation: Generation,
    /// The lowest generation that may be served.
    pub min_generation: Generation,
    /// The last token minted, valid or not.
    pub token: Option<Token>,
    /// Fingerprint of the configuration that the last token was minted with; before the first one, of the first attempt.
    pub config: Fingerprint,
    /// Failed attempts since the last success.
    pub failures: Option<Failures>,
    /// When a client last asked for it, as far as it was known when the last token was minted.
    pub last_used_at: Timestamp,
}

/// The failed attempts since the last success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failures {
    /// How many.
    pub count: u32,
    /// What the last one failed with.
    pub kind: ErrorKind,
    /// The last one's text for people.
    pub message: String,
    /// When the last one ended.
    pub at: Timestamp,
    /// Not before this time is the upstream asked again.
    pub next_attempt_at: Timestamp,
    /// Fingerprint of the configuration that the last one was made with.
    pub config: Fingerprint,
}

/// What a lease covers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LeaseScope {
    /// One token key.
    Token(KeyHash),
    /// All keys of a credential, for they share a grant that rotates.
    Grant(CredentialName),
}

impl LeaseScope {
    /// The text that names the scope in a table. Distinct scopes have distinct texts.
    #[must_use]
    pub fn as_text(&self) -> String {
        match self {
            Self::Token(hash) => format!("token:{hash}"),
            Self::Grant(credential) => format!("grant:{credential}"),
        }
    }
}

/// Who holds a lease: a replica, and which of its flights.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LeaseOwner {
    /// The replica.
    pub replica: ReplicaId,
    /// Drawn at random for every claim, so that a late flight never takes a successor's lease for its own.
    pub nonce: u64,
}

impl fmt::Display for LeaseOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{:016x}", self.replica, self.nonce)
    }
}

/// The right to call the upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// What it covers.
    pub scope: LeaseScope,
    /// Whose it is.
    pub owner: LeaseOwner,
}

/// The answer to a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The lease is the caller's.
    Granted(Lease),
    /// Somebody holds it.
    Held(Holder),
}

/// Who holds a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The owner's text, see [`LeaseOwner`].
    pub owner: String,
    /// How long until it lapses, by the store's clock.
    pub remaining: Duration,
}

/// A token that was minted, to be stored.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Its key.
    pub key: TokenKey,
    /// The token. The fence: it is stored only if its generation is the one after the row's.
    pub token: Token,
    /// Fingerprint of the configuration that it was minted with.
    pub config: Fingerprint,
    /// When a client last asked for the key.
    pub last_used_at: Timestamp,
    /// The refresh token that came with it, if any.
    pub grant: Option<GrantUpdate>,
}

/// A refresh token that the upstream issued.
#[derive(Clone, Debug)]
pub struct GrantUpdate {
    /// The version of the grant that was sent to the upstream.
    pub base_version: u64,
    /// The new one.
    pub refresh_token: Secret,
    /// When it was received.
    pub at: Timestamp,
}

/// What became of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Committed {
    /// It is stored.
    Stored,
    /// Somebody else's token came first; a refresh token that came with this one was kept all the same: as the grant's
    /// if its version had not moved, else as a candidate.
    Superseded,
}

/// An attempt that failed, to be recorded.
#[derive(Clone, Debug)]
pub struct FailedAttempt {
    /// Its key.
    pub key: TokenKey,
    /// The generation that the attempt was begun from.
    pub base: Generation,
    /// What the row is to say.
    pub failures: Failures,
}

/// What became of a rejection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rejected {
    /// Whether this call raised the floor.
    pub invalidated: bool,
    /// The lowest generation that may be served from now on.
    pub min_generation: Generation,
    /// The generation of the row's last token.
    pub generation: Generation,
    /// The event of the key's last rejection, this one or an earlier one. 0: there was none.
    pub event: u64,
}

/// A refresh token or log-in session that a credential must not lose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Whose it is.
    pub credential: CredentialName,
    /// Counts its changes, from 1.
    pub version: u64,
    /// The refresh token.
    pub refresh_token: Secret,
    /// The one before it, which a lenient upstream may still take.
    pub previous: Option<Secret>,
    /// Fingerprint of the refresh token that a person supplied and that this one descends from.
    pub seed: Fingerprint,
    /// A call that is under way, or whose end nobody saw.
    pub intent: Option<OpenIntent>,
    /// Why a person has to log in again.
    pub needs_reauth: Option<String>,
    /// When its refresh token last changed.
    pub updated_at: Timestamp,
}

/// A refresh token that came too late to become the grant's, and which the upstream may hold for the live one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantCandidate {
    /// The version of the grant that was sent to the upstream for it.
    pub base_version: u64,
    /// The refresh token.
    pub refresh_token: Secret,
    /// When it was received.
    pub at: Timestamp,
}

/// A grant that a person supplied.
#[derive(Clone, Debug)]
pub struct GrantSeed {
    /// Whose it is.
    pub credential: CredentialName,
    /// The refresh token.
    pub refresh_token: Secret,
    /// When it was read.
    pub at: Timestamp,
}

/// The journal's entry before a refresh token is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RotationIntent {
    /// Whose refresh token.
    pub credential: CredentialName,
    /// Which version of it.
    pub version: u64,
    /// Whose call it is: no two calls have the same.
    pub owner: String,
    /// The owner of the open intent that this one takes the place of. `None`: there is none.
    pub over: Option<String>,
}

/// An intent whose end is not journalled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenIntent {
    /// The text of the lease's owner.
    pub owner: String,
    /// How long ago it was journalled, by the store's clock.
    pub age: Duration,
}

/// A replica's sign of life.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    /// The replica.
    pub replica: ReplicaId,
    /// What it runs.
    pub version: String,
    /// For how long it is to be waited for.
    pub ttl: Duration,
    /// The events that it has applied.
    pub applied: Applied,
}

/// A set of events: all up to one, but for those that are missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The highest.
    pub through: u64,
    /// Those below it that have not been seen: their transactions may still commit.
    pub missing: Vec<u64>,
}

impl Applied {
    /// Whether an event is in the set.
    #[must_use]
    pub fn contains(&self, event: u64) -> bool {
        event <= self.through && !self.missing.contains(&event)
    }
}

/// A replica, as the others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Its identifier.
    pub id: ReplicaId,
    /// What it runs.
    pub version: String,
    /// When it first said that it lives, by the store's clock.
    pub started_at: Timestamp,
    /// For how long it is still to be waited for. Zero: its lease has lapsed.
    pub remaining: Duration,
    /// The events that it has applied.
    pub applied: Applied,
}

/// A change that other replicas must hear of. It carries no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its place in the feed. Ids may commit out of order.
    pub id: u64,
    /// What happened.
    pub kind: EventKind,
    /// To which key.
    pub key: KeyHash,
    /// Of which credential.
    pub credential: CredentialName,
    /// The generation committed, or the one rejected.
    pub generation: Generation,
    /// The lowest generation that may be served.
    pub min_generation: Generation,
    /// When, by the store's clock.
    pub at: Timestamp,
}

/// What happened to a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A token was committed.
    Committed,
    /// A token was rejected.
    Rejected,
}

impl EventKind {
    /// Its name in a table.
    #[must_use]
    pub const fn as_text(self) -> &'static str {
        match self {
            Self::Committed => "committed",
            Self::Rejected => "rejected",
        }
    }

    /// The kind of this name.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        [Self::Committed, Self::Rejected].into_iter().find(|kind| kind.as_text() == text)
    }
}
