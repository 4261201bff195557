//! What callers ask for, validated.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use super::{CredentialName, Fingerprint, Generation, KeyHash};

/// Names a token: a credential and what is asked of it. Scopes and resources are sorted and without repetition.
///
/// Cheap to clone, and all clones find the hash of their key together: it is computed once.
#[derive(Clone)]
pub struct Selector(Arc<Parts>);

struct Parts {
    credential: CredentialName,
    audience: Option<Box<str>>,
    scopes: Box<[String]>,
    resources: Box<[String]>,
    hash: OnceLock<KeyHash>,
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
        let audience = audience.filter(|audience| !audience.is_empty()).map(String::into_boxed_str);
        let (scopes, resources) = (sorted(scopes), sorted(resources));
        Self(Arc::new(Parts { credential, audience, scopes, resources, hash: OnceLock::new() }))
    }

    /// The credential.
    #[must_use]
    pub fn credential(&self) -> &CredentialName {
        &self.0.credential
    }

    /// The `audience` parameter, if any.
    #[must_use]
    pub fn audience(&self) -> Option<&str> {
        self.0.audience.as_deref()
    }

    /// The scopes (RFC 6749 section 3.3), sorted.
    #[must_use]
    pub fn scopes(&self) -> &[String] {
        &self.0.scopes
    }

    /// The resource indicators (RFC 8707), sorted.
    #[must_use]
    pub fn resources(&self) -> &[String] {
        &self.0.resources
    }

    /// Whether it names a credential and asks nothing of it.
    #[must_use]
    pub fn is_bare(&self) -> bool {
        self.scopes().is_empty() && self.audience().is_none() && self.resources().is_empty()
    }

    /// The same, holding this name instead of an equal one of its own: of a million keys that is 32 MB.
    #[must_use]
    pub(crate) fn named(&self, name: &CredentialName) -> Self {
        let Parts { credential, audience, scopes, resources, hash } = &*self.0;
        if credential.is_held_as(name) {
            return self.clone();
        }
        let (audience, scopes, resources) = (audience.clone(), scopes.clone(), resources.clone());
        Self(Arc::new(Parts { credential: name.clone(), audience, scopes, resources, hash: hash.clone() }))
    }

    /// The hash of its key, by this function if it is not known yet.
    pub(super) fn hash_by(&self, compute: impl FnOnce(&Self) -> KeyHash) -> &KeyHash {
        self.0.hash.get_or_init(|| compute(self))
    }
}

impl PartialEq for Selector {
    fn eq(&self, other: &Self) -> bool {
        let (one, two) = (&*self.0, &*other.0);
        one.credential == two.credential
            && one.audience == two.audience
            && one.scopes == two.scopes
            && one.resources == two.resources
    }
}

impl Eq for Selector {}

impl fmt::Debug for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Selector")
            .field("credential", self.credential())
            .field("audience", &self.audience())
            .field("scopes", &self.scopes())
            .field("resources", &self.resources())
            .finish()
    }
}

fn sorted(mut items: Vec<String>) -> Box<[String]> {
    items.sort_unstable();
    items.dedup();
    items.into()
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
