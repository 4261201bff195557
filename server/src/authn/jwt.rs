//! Callers by a JWT of a configured issuer (RFC 7519, with the advice of RFC 8725): OpenID Connect, Kubernetes' service
//! accounts, JWT-SVIDs.
//!
//! The token does not choose: issuer, audience, algorithms and keys are the configuration's. Keys that a token names or
//! carries (`jku`, `jwk`, `x5u`, `x5c`) are ignored.

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use aws_lc_rs::digest;
use jsonwebtoken::{Header, Validation};
use moka::sync::Cache;
use serde_json::{Map, Value};
use url::Url;

use super::BearerAuthenticator;
use crate::{
    error::{Error, ErrorKind, Result},
    provider::http::HttpSettings,
    time::{SharedClock, Timestamp},
    types::{Caller, Claims, Secret},
};

mod keys;

pub use keys::JwtKeys;

/// The longest token that is looked at, in bytes: room for hundreds of groups.
const MAX_LEN: usize = 16 * 1024;

/// The longest subject, in bytes (OpenID Connect Core section 2 has 255; service accounts of Kubernetes more).
const MAX_SUBJECT: usize = 1024;

/// Verified tokens that are remembered. A signature costs tens of microseconds, and a client sends one token many times.
const REMEMBERED: u64 = 10_000;

/// How long one is remembered at most: as long a key that its issuer has withdrawn may still count.
const REMEMBERED_FOR: Duration = Duration::from_secs(60);

/// A signature algorithm (RFC 7518 section 3.1, RFC 8037) with a public key. Those with a shared secret are absent: whoever
/// could verify could also sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RS256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    RS384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    RS512,
    /// RSASSA-PSS with SHA-256.
    PS256,
    /// RSASSA-PSS with SHA-384.
    PS384,
    /// RSASSA-PSS with SHA-512.
    PS512,
    /// ECDSA on P-256.
    ES256,
    /// ECDSA on P-384.
    ES384,
    /// Ed25519.
    EdDSA,
}

impl Algorithm {
    /// All that can be allowed.
    pub const ALL: [Self; 9] = [
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::ES256,
        Self::ES384,
        Self::EdDSA,
    ];

    /// Its name in a token's header.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::EdDSA => "EdDSA",
        }
    }

    const fn foreign(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::RS256 => jsonwebtoken::Algorithm::RS256,
            Self::RS384 => jsonwebtoken::Algorithm::RS384,
            Self::RS512 => jsonwebtoken::Algorithm::RS512,
            Self::PS256 => jsonwebtoken::Algorithm::PS256,
            Self::PS384 => jsonwebtoken::Algorithm::PS384,
            Self::PS512 => jsonwebtoken::Algorithm::PS512,
            Self::ES256 => jsonwebtoken::Algorithm::ES256,
            Self::ES384 => jsonwebtoken::Algorithm::ES384,
            Self::EdDSA => jsonwebtoken::Algorithm::EdDSA,
        }
    }
}

/// Where an issuer's keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// Where the issuer's metadata say (OpenID Connect Discovery section 4).
    Discovery(Url),
    /// A JWK Set at a URL (RFC 7517 section 5).
    Url(Url),
    /// A JWK Set in a file.
    File(PathBuf),
}

/// Which JWTs count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtRules {
    /// What subjects begin with: `jwt:NAME/`.
    pub name: String,
    /// The `iss` claim, to the letter.
    pub issuer: String,
    /// The names of this broker, one of which the `aud` claim has.
    pub audiences: Vec<String>,
    /// Where the keys are.
    pub keys: KeySource,
    /// The algorithms that are allowed.
    pub algorithms: Vec<Algorithm>,
    /// The claims that the policy may look at.
    pub claims: Vec<String>,
    /// How much clocks may differ.
    pub leeway: Duration,
    /// How the keys are fetched.
    pub http: HttpSettings,
}

/// Knows the JWTs of one issuer.
#[derive(Debug)]
pub struct JwtAuthenticator {
    rules: JwtRules,
    keys: Arc<JwtKeys>,
    verified: Cache<[u8; 32], Caller>,
    clock: SharedClock,
}

impl JwtAuthenticator {
    /// One that verifies with these keys.
    #[must_use]
    pub fn new(rules: JwtRules, keys: Arc<JwtKeys>, clock: SharedClock) -> Self {
        let verified = Cache::builder().max_capacity(REMEMBERED).time_to_live(REMEMBERED_FOR).build();
        Self { rules, keys, verified, clock }
    }

    /// Which JWTs it knows.
    #[must_use]
    pub fn rules(&self) -> &JwtRules {
        &self.rules
    }

    async fn verify(&self, token: &str) -> Result<Caller> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| bad("the JWT has no legible header"))?;
        let algorithm = self.check_header(&header)?;
        let key = self.keys.find(header.kid.as_deref(), algorithm).await?;
        let mut validation = Validation::new(algorithm.foreign());
        validation.set_issuer(&[&self.rules.issuer]);
        validation.set_audience(&self.rules.audiences);
        validation.set_required_spec_claims(&["iss", "aud", "exp", "sub"]);
        // By our clock, below.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        let decoded = jsonwebtoken::decode::<Map<String, Value>>(token, &key, &validation);
        let claims = decoded.map_err(|error| bad(reason(&error)))?.claims;
        self.caller(&claims)
    }

    fn check_header(&self, header: &Header) -> Result<Algorithm> {
        // RFC 7515 section 4.1.11: what is critical must be understood, and nothing is here.
        if header.crit.is_some() || header.enc.is_some() || header.zip.is_some() {
            return Err(bad("the JWT has critical header parameters or is encrypted"));
        }
        let allowed = self.rules.algorithms.iter().copied().find(|algorithm| algorithm.foreign() == header.alg);
        allowed.ok_or_else(|| bad("the JWT is signed with an algorithm that is not allowed"))
    }

    /// The caller, if the token is valid at this time.
    fn caller(&self, claims: &Map<String, Value>) -> Result<Caller> {
        let time = |name: &str| claims.get(name).and_then(seconds);
        let expires_at = time("exp").ok_or_else(|| bad("the JWT has no `exp` that is a time"))?;
        let expires_at = expires_at.after(self.rules.leeway);
        if claims.contains_key("nbf") {
            let begins = time("nbf").ok_or_else(|| bad("the JWT has a `nbf` that is no time"))?;
            if begins > self.clock.now().after(self.rules.leeway) {
                return Err(bad("the JWT is not valid yet"));
            }
        }
        let subject = claims.get("sub").and_then(Value::as_str).unwrap_or_default();
        if subject.is_empty() || subject.len() > MAX_SUBJECT || subject.chars().any(char::is_control) {
            return Err(bad("the JWT has no `sub`, or one that is too long or has control characters"));
        }
        let known = self.rules.claims.iter().filter_map(|name| Some((name.clone(), texts(claims.get(name)?)?)));
        let known: Claims = known.collect();
        Ok(Caller::with_claims(format!("jwt:{}/{subject}", self.rules.name), known, Some(expires_at)))
    }
}

#[async_trait]
impl BearerAuthenticator for JwtAuthenticator {
    async fn recognise(&self, token: &Secret) -> Result<Option<Caller>> {
        let text = token.expose();
        if text.len() > MAX_LEN || issuer_of(text).as_deref() != Some(&self.rules.issuer) {
            return Ok(None);
        }
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
        if let Some(caller) = self.verified.get(&hash) {
            return Ok(Some(caller));
        }
        let caller = self.verify(text).await?;
        self.verified.insert(hash, caller.clone());
        Ok(Some(caller))
    }
}

/// The `iss` claim of what looks like a JWT, not verified: it tells whose rules apply, nothing more.
#[must_use]
pub fn issuer_of(token: &str) -> Option<String> {
    if token.bytes().filter(|byte| *byte == b'.').count() != 2 {
        return None;
    }
    let claims: Map<String, Value> = jsonwebtoken::dangerous::insecure_decode_claims(token).ok()?;
    claims.get("iss")?.as_str().map(str::to_owned)
}

/// A NumericDate (RFC 7519 section 2), which may have a fraction.
fn seconds(value: &Value) -> Option<Timestamp> {
    let seconds = value.as_f64().filter(|seconds| (0.0..1e12).contains(seconds))?;
    Some(Timestamp::from_millis(0).after(Duration::from_secs_f64(seconds)))
}

/// The values of a claim, where they are texts, numbers or truths, or a list of them.
fn texts(value: &Value) -> Option<Vec<String>> {
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    };
    match value {
        Value::Array(items) => items.iter().map(text).collect(),
        single => Some(vec![text(single)?]),
    }
}

/// Why a JWT is refused, by the kind of error alone.
fn reason(error: &jsonwebtoken::errors::Error) -> &'static str {
    use jsonwebtoken::errors::ErrorKind as Why;
    match error.kind() {
        Why::InvalidSignature => "the signature of the JWT is not by the issuer's key",
        Why::InvalidAudience => "the JWT is for another audience",
        Why::InvalidIssuer => "the JWT is of another issuer",
        Why::MissingRequiredClaim(_) => "the JWT lacks one of `iss`, `aud`, `exp` and `sub`",
        Why::InvalidAlgorithm => "the JWT's algorithm does not fit the issuer's key",
        _ => "the JWT cannot be read",
    }
}

fn bad(why: &'static str) -> Error {
    Error::new(ErrorKind::BadIdentity, why)
}

#[cfg(test)]
mod tests;
