//! An access token and what is known of it.

use std::{collections::BTreeMap, fmt, time::Duration};

use super::{Fingerprint, Generation, Secret};
use crate::time::Timestamp;

/// A token as it is stored and served.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The access token.
    pub access_token: Secret,
    /// How it is presented (RFC 6749 section 7.1).
    pub token_type: String,
    /// When the broker received it.
    pub issued_at: Timestamp,
    /// When it expires.
    pub expires_at: Timestamp,
    /// When it is to be replaced: drawn once, when it was minted.
    pub refresh_at: Timestamp,
    /// The scopes that were granted, sorted.
    pub scopes: Vec<String>,
    /// Its place among the tokens of its key.
    pub generation: Generation,
    /// The short form of its hash.
    pub fingerprint: Fingerprint,
    /// What the upstream returned beside it.
    pub attributes: BTreeMap<String, String>,
}

impl Token {
    /// From its issue to its expiry.
    #[must_use]
    pub fn lifetime(&self) -> Duration {
        self.expires_at.since(self.issued_at)
    }
}

impl fmt::Debug for Token {
    /// Shows everything but the token and the values of its attributes, which the upstream chose.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("fingerprint", &self.fingerprint)
            .field("generation", &self.generation)
            .field("token_type", &self.token_type)
            .field("issued_at", &self.issued_at)
            .field("expires_at", &self.expires_at)
            .field("refresh_at", &self.refresh_at)
            .field("scopes", &self.scopes)
            .field("attributes", &self.attributes.keys())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_neither_the_token_nor_its_attributes() {
        let access_token = Secret::from("s3cr3t");
        let token = Token {
            fingerprint: Fingerprint::of(&access_token),
            access_token,
            token_type: "Bearer".into(),
            issued_at: Timestamp::from_millis(0),
            expires_at: Timestamp::from_millis(1),
            refresh_at: Timestamp::from_millis(0),
            scopes: vec![],
            generation: Generation::new(1),
            attributes: [("sid".into(), "s3cr3t".into())].into(),
        };
        let shown = format!("{token:?}");
        assert!(shown.contains("sid") && !shown.contains("s3cr3t"), "{shown}");
    }
}
