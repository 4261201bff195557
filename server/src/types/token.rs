//! An access token and what is known of it.

use std::{collections::BTreeMap, fmt, time::Duration};

use super::{Fingerprint, Generation, Secret};
use crate::time::Timestamp;

/// A token as it is stored and served.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The access token.
    pub access_token: Secret,
    /// When the broker received it.
    pub issued_at: Timestamp,
    /// When it expires.
    pub expires_at: Timestamp,
    /// When it is to be replaced: drawn once, when it was minted.
    pub refresh_at: Timestamp,
    /// Its place among the tokens of its key.
    pub generation: Generation,
    /// The short form of its hash.
    pub fingerprint: Fingerprint,
    /// What else the upstream said of it.
    pub terms: Terms,
}

impl Token {
    /// From its issue to its expiry.
    #[must_use]
    pub fn lifetime(&self) -> Duration {
        self.expires_at.since(self.issued_at)
    }
}

impl fmt::Debug for Token {
    /// Shows everything but the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("fingerprint", &self.fingerprint)
            .field("generation", &self.generation)
            .field("issued_at", &self.issued_at)
            .field("expires_at", &self.expires_at)
            .field("refresh_at", &self.refresh_at)
            .field("terms", &self.terms)
            .finish_non_exhaustive()
    }
}

/// How a token is presented, what it is good for, and what the upstream returned beside it.
///
/// A bearer token without more takes eight bytes: of a million tokens in memory that counts.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Terms(Option<Box<Said>>);

#[derive(Clone, PartialEq, Eq)]
struct Said {
    token_type: String,
    scopes: Vec<String>,
    attributes: BTreeMap<String, String>,
}

impl Terms {
    const BEARER: &str = "Bearer";

    /// Of a token of this type, with these scopes, sorted, and attributes.
    #[must_use]
    pub fn new(token_type: String, scopes: Vec<String>, attributes: BTreeMap<String, String>) -> Self {
        let is_plain = token_type == Self::BEARER && scopes.is_empty() && attributes.is_empty();
        Self((!is_plain).then(|| Box::new(Said { token_type, scopes, attributes })))
    }

    /// The same with other attributes.
    #[must_use]
    pub fn with_attributes(self, attributes: BTreeMap<String, String>) -> Self {
        match self.0 {
            Some(said) => Self::new(said.token_type, said.scopes, attributes),
            None => Self::new(Self::BEARER.into(), vec![], attributes),
        }
    }

    /// How it is presented (RFC 6749 section 7.1), as the upstream spelled it.
    #[must_use]
    pub fn token_type(&self) -> &str {
        self.0.as_ref().map_or(Self::BEARER, |said| &said.token_type)
    }

    /// The scopes that were granted, sorted.
    #[must_use]
    pub fn scopes(&self) -> &[String] {
        self.0.as_ref().map_or(&[], |said| &said.scopes)
    }

    /// What the upstream returned beside it.
    #[must_use]
    pub fn attributes(&self) -> &BTreeMap<String, String> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        self.0.as_ref().map_or(&NONE, |said| &said.attributes)
    }
}

impl fmt::Debug for Terms {
    /// Shows everything but the values of the attributes, which the upstream chose.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terms")
            .field("token_type", &self.token_type())
            .field("scopes", &self.scopes())
            .field("attributes", &self.attributes().keys())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_are_what_was_said_however_little() {
        let attributes = BTreeMap::from([("sid".to_owned(), "x".to_owned())]);
        let none = BTreeMap::new();
        for (token_type, scopes, attributes) in [
            ("Bearer", vec![], &none),
            ("bearer", vec![], &none),
            ("", vec!["a".to_owned(), "b".to_owned()], &none),
            ("Bearer", vec![], &attributes),
        ] {
            let terms = Terms::new(token_type.into(), scopes.clone(), attributes.clone());
            assert_eq!((terms.token_type(), terms.scopes(), terms.attributes()), (token_type, &*scopes, attributes));
            let other = terms.clone().with_attributes([("y".into(), String::new())].into());
            assert_eq!((other.token_type(), other.scopes(), other.attributes().len()), (token_type, &*scopes, 1));
            assert_eq!(other.with_attributes(attributes.clone()), terms);
        }
        assert_eq!(Terms::default(), Terms::new("Bearer".into(), vec![], none));
        assert_eq!(size_of::<Terms>(), 8);
    }

    #[test]
    fn debug_shows_neither_the_token_nor_its_attributes() {
        let access_token = Secret::from("s3cr3t");
        let token = Token {
            fingerprint: Fingerprint::of(&access_token),
            access_token,
            terms: Terms::new("Bearer".into(), vec![], [("sid".into(), "s3cr3t".into())].into()),
            issued_at: Timestamp::from_millis(0),
            expires_at: Timestamp::from_millis(1),
            refresh_at: Timestamp::from_millis(0),
            generation: Generation::new(1),
        };
        let shown = format!("{token:?}");
        assert!(shown.contains("sid") && !shown.contains("s3cr3t"), "{shown}");
    }
}
