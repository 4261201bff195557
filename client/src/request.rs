//! What a caller asks for.

use std::time::Duration;

use tokencache_proto::v1;

use crate::convert;

/// Names one token: a credential and what is asked of it. What is left empty is as configured for the credential.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selector {
    credential: String,
    scopes: Vec<String>,
    audience: String,
    resources: Vec<String>,
}

impl Selector {
    /// The token of a credential, as configured.
    pub fn new(credential: impl Into<String>) -> Self {
        Self { credential: credential.into(), ..Self::default() }
    }

    /// With these scopes (RFC 6749 section 3.3).
    #[must_use]
    pub fn with_scopes<S: Into<String>>(mut self, scopes: impl IntoIterator<Item = S>) -> Self {
        self.scopes = scopes.into_iter().map(Into::into).collect();
        self
    }

    /// For this audience.
    #[must_use]
    pub fn with_audience(mut self, audience: impl Into<String>) -> Self {
        self.audience = audience.into();
        self
    }

    /// For these resources (RFC 8707).
    #[must_use]
    pub fn with_resources<S: Into<String>>(mut self, resources: impl IntoIterator<Item = S>) -> Self {
        self.resources = resources.into_iter().map(Into::into).collect();
        self
    }

    /// The credential's name.
    #[must_use]
    pub fn credential(&self) -> &str {
        &self.credential
    }

    /// The scopes.
    #[must_use]
    pub fn scopes(&self) -> &[String] {
        &self.scopes
    }

    /// The audience; empty: as configured.
    #[must_use]
    pub fn audience(&self) -> &str {
        &self.audience
    }

    /// The resource indicators.
    #[must_use]
    pub fn resources(&self) -> &[String] {
        &self.resources
    }

    pub(crate) fn into_refresh(self) -> v1::RefreshTokenRequest {
        let Self { credential, scopes, audience, resources } = self;
        v1::RefreshTokenRequest { credential, scopes, audience, resources }
    }
}

impl<T: Into<String>> From<T> for Selector {
    fn from(credential: T) -> Self {
        Self::new(credential)
    }
}

impl From<Selector> for v1::TokenSelector {
    fn from(Selector { credential, scopes, audience, resources }: Selector) -> Self {
        Self { credential, scopes, audience, resources }
    }
}

impl Selector {
    pub(crate) fn from_proto(selector: Option<v1::TokenSelector>) -> Self {
        let v1::TokenSelector { credential, scopes, audience, resources } = selector.unwrap_or_default();
        Self { credential, scopes, audience, resources }
    }
}

/// Asks for a token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GetToken {
    selector: Selector,
    min_validity: Duration,
    if_generation_not: u64,
    rejected_generation: u64,
}

impl GetToken {
    /// Asks for the token of a selector; the name of a credential is one.
    pub fn of(selector: impl Into<Selector>) -> Self {
        Self { selector: selector.into(), ..Self::default() }
    }

    /// The token must be valid for this long. Default: any unexpired token will do.
    #[must_use]
    pub fn min_validity(mut self, duration: Duration) -> Self {
        self.min_validity = duration;
        self
    }

    /// Answer without a token if this is still the current generation.
    #[must_use]
    pub fn if_generation_not(mut self, generation: u64) -> Self {
        self.if_generation_not = generation;
        self
    }

    /// The upstream refused this generation: report it and get its replacement in one round trip.
    #[must_use]
    pub fn rejected_generation(mut self, generation: u64) -> Self {
        self.rejected_generation = generation;
        self
    }
}

impl From<GetToken> for v1::GetTokenRequest {
    fn from(get: GetToken) -> Self {
        let Selector { credential, scopes, audience, resources } = get.selector;
        Self {
            credential,
            scopes,
            audience,
            resources,
            min_validity: (!get.min_validity.is_zero()).then(|| convert::to_proto(get.min_validity)),
            if_generation_not: get.if_generation_not,
            rejected_generation: get.rejected_generation,
        }
    }
}

/// Reports that the upstream refused a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    selector: Selector,
    rejected: Rejected,
    http_status: Option<u16>,
    error: String,
    description: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Rejected {
    Generation(u64),
    Fingerprint(String),
}

impl Rejection {
    /// The token named by its generation.
    pub fn of_generation(selector: impl Into<Selector>, generation: u64) -> Self {
        Self::of(selector.into(), Rejected::Generation(generation))
    }

    /// The token named by its fingerprint: the first 16 hexadecimal digits of its SHA-256.
    pub fn of_fingerprint(selector: impl Into<Selector>, fingerprint: impl Into<String>) -> Self {
        Self::of(selector.into(), Rejected::Fingerprint(fingerprint.into()))
    }

    fn of(selector: Selector, rejected: Rejected) -> Self {
        Self { selector, rejected, http_status: None, error: String::new(), description: String::new() }
    }

    /// The upstream's HTTP status. Default: counts as 401.
    #[must_use]
    pub fn http_status(mut self, status: u16) -> Self {
        self.http_status = Some(status);
        self
    }

    /// The upstream's error code: `error` of `WWW-Authenticate` (RFC 6750 section 3), or one of its own.
    #[must_use]
    pub fn error(mut self, code: impl Into<String>) -> Self {
        self.error = code.into();
        self
    }

    /// The upstream's description, for the operator.
    #[must_use]
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.description = description.into();
        self
    }
}

impl From<Rejection> for v1::InvalidateTokenRequest {
    fn from(rejection: Rejection) -> Self {
        use v1::invalidate_token_request::Rejected as Wire;
        let Selector { credential, scopes, audience, resources } = rejection.selector;
        Self {
            credential,
            scopes,
            audience,
            resources,
            rejected: Some(match rejection.rejected {
                Rejected::Generation(generation) => Wire::Generation(generation),
                Rejected::Fingerprint(fingerprint) => Wire::Fingerprint(fingerprint),
            }),
            http_status: rejection.http_status.unwrap_or_default().into(),
            error: rejection.error,
            description: rejection.description,
        }
    }
}
