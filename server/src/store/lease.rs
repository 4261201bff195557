//! The right to call an upstream: what it covers, whose it is, and until when.

use std::{fmt, time::Duration};

use crate::types::{CredentialName, KeyHash, ReplicaId};

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
