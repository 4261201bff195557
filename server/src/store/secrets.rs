//! The secrets of a store row by row, as they are kept: for whoever seals them anew.

use super::GrantSecret;
use crate::types::{CredentialName, Fingerprint, Generation, KeyHash, Secret};

/// The secrets of one row, as they are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoredSecrets {
    /// Of a row with a token.
    Token {
        /// Its key.
        key: KeyHash,
        /// The generation of the token.
        generation: Generation,
        /// Fingerprint of the configuration that the token was minted with.
        config: Fingerprint,
        /// The access token.
        access_token: Secret,
        /// The attributes, a JSON object.
        attributes: Secret,
    },
    /// Of a grant.
    Grant {
        /// Whose it is.
        credential: CredentialName,
        /// Its version.
        version: u64,
        /// The refresh token.
        refresh_token: Secret,
        /// Its fingerprint. `None`: it was kept by a program that did not note it.
        fingerprint: Option<Fingerprint>,
        /// The one before.
        previous: Option<Secret>,
        /// Its fingerprint, likewise.
        previous_fingerprint: Option<Fingerprint>,
        /// The version with which it became that. 0: it was not noted.
        previous_since: u64,
    },
    /// Of a refresh token that came late.
    Candidate {
        /// Its row.
        id: u64,
        /// Whose it is.
        credential: CredentialName,
        /// The version of the grant that was sent to the upstream for it.
        base_version: u64,
        /// The refresh token.
        refresh_token: Secret,
        /// Its fingerprint. `None`: it was kept by a program that did not note it.
        fingerprint: Option<Fingerprint>,
    },
}

/// Where a page begins. The default is the beginning of all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretCursor {
    /// Among the tokens, after this hash.
    Tokens(Vec<u8>),
    /// Among the grants, after this name.
    Grants(String),
    /// Among the refresh tokens that came late, after this row.
    Candidates(u64),
}

impl Default for SecretCursor {
    fn default() -> Self {
        Self::Tokens(vec![])
    }
}

impl SecretCursor {
    /// The beginning of the next table, if there is one.
    pub(super) fn next_table(&self) -> Option<Self> {
        match self {
            Self::Tokens(_) => Some(Self::Grants(String::new())),
            Self::Grants(_) => Some(Self::Candidates(0)),
            Self::Candidates(_) => None,
        }
    }
}

/// A page of rows, all of one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretPage {
    /// Those that can be read, in the order of the table.
    pub rows: Vec<StoredSecrets>,
    /// How many besides cannot have been written by this program.
    pub unreadable: u64,
    /// Where the next page begins. `None`: this was the last.
    pub next: Option<SecretCursor>,
}

/// A change of how the secrets of a row are kept, not of what they are.
#[derive(Clone, Debug)]
pub struct Reseal {
    /// As they were read. Whoever has changed the row since wins.
    pub old: StoredSecrets,
    /// As they are to be kept.
    pub new: StoredSecrets,
}

/// The value of an optional secret, for a column.
pub(super) fn value_of(secret: Option<&GrantSecret>) -> Option<&[u8]> {
    secret.map(|secret| secret.value.expose().as_bytes())
}
