//! What callers ask for, validated.

use std::time::Duration;

use super::{CredentialName, Fingerprint, Generation};

/// Names a token: a credential and what is asked of it. Scopes and resources are sorted and without repetition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    /// The credential.
    pub credential: CredentialName,
    /// The `audience` parameter, if any.
    pub audience: Option<String>,
    scopes: Vec<String>,
    resources: Vec<String>,
}

impl Selector {
    /// Sorts what has no order and drops repetitions.
    #[must_use]
    pub fn new(
        credential: CredentialName,
        scopes: Vec<String>,
        audience: Option<String>,
        resources: Vec<String>,
    ) -> Self {
        let audience = audience.filter(|audience| !audience.is_empty());
        Self { credential, audience, scopes: sorted(scopes), resources: sorted(resources) }
    }

    /// The scopes (RFC 6749 section 3.3), sorted.
    #[must_use]
    pub fn scopes(&self) -> &[String] {
        &self.scopes
    }

    /// The resource indicators (RFC 8707), sorted.
    #[must_use]
    pub fn resources(&self) -> &[String] {
        &self.resources
    }
}

fn sorted(mut items: Vec<String>) -> Vec<String> {
    items.sort_unstable();
    items.dedup();
    items
}

/// A valid request for a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRequest {
    /// Which token.
    pub selector: Selector,
    /// How long it must still be valid.
    pub min_validity: Duration,
    /// Answer without a token if this is still the current generation.
    pub if_generation_not: Option<Generation>,
    /// The upstream refused this generation.
    pub rejected: Option<Generation>,
}

/// A valid report that the upstream refused a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Which token.
    pub selector: Selector,
    /// Which of its generations.
    pub rejected: RejectedToken,
    /// The upstream's HTTP status, if told.
    pub http_status: Option<u16>,
    /// The upstream's error code, if told.
    pub error: Option<String>,
}

/// How a refused token is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejectedToken {
    /// By its generation.
    Generation(Generation),
    /// By its fingerprint.
    Fingerprint(Fingerprint),
}
