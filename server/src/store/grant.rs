//! What a credential must not lose, and the journal of its use.

use std::time::Duration;

use crate::{
    time::Timestamp,
    types::{CredentialName, Fingerprint, Secret},
};

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
