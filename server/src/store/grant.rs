//! What a credential must not lose, and the journal of its use.

use std::time::Duration;

use crate::{
    time::Timestamp,
    types::{CredentialName, Fingerprint, Secret},
};

/// A refresh token, and what it is told from others by: its value may be sealed, and the same one sealed twice differs.
#[derive(Clone, Debug)]
pub struct GrantSecret {
    /// The refresh token, as it is to be kept.
    pub value: Secret,
    /// Fingerprint of the refresh token itself.
    pub fingerprint: Fingerprint,
}

impl From<Secret> for GrantSecret {
    fn from(value: Secret) -> Self {
        Self { fingerprint: Fingerprint::of(&value), value }
    }
}

impl From<&str> for GrantSecret {
    fn from(value: &str) -> Self {
        Secret::from(value).into()
    }
}

/// A refresh token that the upstream issued.
#[derive(Clone, Debug)]
pub struct GrantUpdate {
    /// The version of the grant when the call was begun that brought it.
    pub base_version: u64,
    /// The count of the grant's journal then, with the call's own intent.
    pub as_of: u64,
    /// The refresh token that was sent for it, and may be sent again to a lenient upstream.
    pub sent: GrantSecret,
    /// The new one.
    pub refresh_token: GrantSecret,
    /// The new one as a candidate keeps it, should it become no more than that. `None`: as the grant would.
    pub late: Option<Secret>,
    /// Those that the upstream refused before it took the one that was sent: they are dead.
    pub refused: Vec<GrantSecret>,
    /// The owner of the intent that ends with it.
    pub intent: Option<String>,
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
    /// The one that was sent for it, which a lenient upstream may still take; after a planting the one of before.
    pub previous: Option<Secret>,
    /// The version with which `previous` became that. 0: it was not noted.
    pub previous_since: u64,
    /// Fingerprint of the refresh token that a person supplied and that this one descends from.
    pub seed: Fingerprint,
    /// The version with which that person supplied it: what is older has nothing to do with it.
    pub planted: u64,
    /// Counts the entries of its journal, intents and losses. It never goes back.
    pub journal: u64,
    /// A call that is under way, or whose end nobody saw.
    pub intent: Option<OpenIntent>,
    /// The youngest intent that another one took the place of. Its call may be under way, too.
    pub stray: Option<StrayCall>,
    /// Why a person has to log in again.
    pub needs_reauth: Option<String>,
    /// Whether a refresh token has come since the loss, from a call that was begun before it: it deserves one try.
    pub retry: bool,
    /// When its refresh token last changed.
    pub updated_at: Timestamp,
}

/// Where a grant comes from, without its secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrantOrigin {
    /// Its version.
    pub version: u64,
    /// Fingerprint of the refresh token that a person supplied and that it descends from.
    pub seed: Fingerprint,
}

/// A refresh token that came too late to become the grant's, and which the upstream may hold for the live one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantCandidate {
    /// The version of the grant that was sent to the upstream for it.
    pub base_version: u64,
    /// The refresh token.
    pub refresh_token: Secret,
    /// Its fingerprint. `None`: it was kept by a program that did not note it.
    pub fingerprint: Option<Fingerprint>,
    /// When it was received.
    pub at: Timestamp,
}

/// A grant that a person supplied.
#[derive(Clone, Debug)]
pub struct GrantSeed {
    /// Whose it is.
    pub credential: CredentialName,
    /// The refresh token.
    pub refresh_token: GrantSecret,
    /// The grant's own of before, which it takes the place of. `None`: there is none, or it cannot be read.
    pub previous: Option<GrantSecret>,
    /// When it was read.
    pub at: Timestamp,
}

/// The journal's entry before a refresh token is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RotationIntent {
    /// Whose refresh token.
    pub credential: CredentialName,
    /// Of which version of the grant.
    pub version: u64,
    /// The count of the journal that the version was loaded with: the entry is made only if there has been none since.
    pub journal: u64,
    /// Whose call it is: no two flights have the same.
    pub owner: String,
    /// Fingerprint of the refresh token.
    pub token: Fingerprint,
}

/// An intent whose end is not journalled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenIntent {
    /// Whose it is.
    pub owner: String,
    /// Fingerprint of the refresh token that it sends. `None`: it was journalled by a program that did not say.
    pub token: Option<Fingerprint>,
    /// How long ago it was journalled, by the store's clock.
    pub age: Duration,
}

/// A call whose intent another one took the place of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StrayCall {
    /// Fingerprint of the refresh token that it carries. `None`: it was journalled by a program that did not say.
    pub token: Option<Fingerprint>,
    /// How long ago its intent was journalled, by the store's clock.
    pub age: Duration,
}

/// The journal's entry when the upstream has refused all that there was to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantLoss {
    /// Whose grant.
    pub credential: CredentialName,
    /// Which version of it.
    pub version: u64,
    /// The owner of the intent that ends with it.
    pub intent: Option<String>,
    /// Why, in words for a person.
    pub reason: String,
}
