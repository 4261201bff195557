//! What replicas tell one another: that they live, and what happened.

use std::time::Duration;

use crate::{
    time::Timestamp,
    types::{CredentialName, Generation, KeyHash, ReplicaId},
};

/// How long a replica looks for an event whose id is missing; then it takes its transaction for rolled back. A store sees to
/// it that an event which is visible only later is appended again.
pub const EVENT_PATIENCE: Duration = Duration::from_secs(30);

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
    /// To which key; all zeros where it happened to the credential.
    pub key: KeyHash,
    /// Of which credential.
    pub credential: CredentialName,
    /// The generation committed, or the one rejected, or the version of the grant that was lost.
    pub generation: Generation,
    /// The lowest generation that may be served.
    pub min_generation: Generation,
    /// When, by the store's clock.
    pub at: Timestamp,
}

/// What happened to a token or a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A token was committed.
    Committed,
    /// A token was rejected.
    Rejected,
    /// A grant is believed to be lost: a person has to log in again.
    GrantLost,
    /// Something that only newer versions know of.
    Other,
}

impl EventKind {
    /// Its name in a table.
    #[must_use]
    pub const fn as_text(self) -> &'static str {
        match self {
            Self::Committed => "committed",
            Self::Rejected => "rejected",
            Self::GrantLost => "grant_lost",
            Self::Other => "other",
        }
    }

    /// The kind of this name.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        let known = [Self::Committed, Self::Rejected, Self::GrantLost];
        known.into_iter().find(|kind| kind.as_text() == text).unwrap_or(Self::Other)
    }
}
