//! An issuer's keys: fetched when they are needed, seldom, and kept through an outage.

use std::{fmt, sync::Arc, time::Duration};

use ::http::{HeaderMap, Method};
use arc_swap::ArcSwapOption;
use jsonwebtoken::{
    DecodingKey,
    jwk::{Jwk, JwkSet, KeyAlgorithm, PublicKeyUse},
};
use serde_json::Value;
use tokio::{sync::Mutex, time::Instant};
use tracing::warn;
use url::Url;
use zeroize::Zeroizing;

use super::{Algorithm, KeySource};
use crate::{
    error::{Error, ErrorKind, Result},
    provider::http::{Call, HttpClient},
};

/// How old keys are fetched anew, behind the back of the call that noticed.
const FRESH_FOR: Duration = Duration::from_secs(600);

/// How long after a fetch, whatever became of it, the next one is allowed: a token with a made-up key id must not have the
/// issuer asked again and again.
const PAUSE: Duration = Duration::from_secs(10);

/// The most keys of an issuer.
const MAX_KEYS: usize = 100;

/// The keys of an issuer.
pub struct JwtKeys {
    source: KeySource,
    client: HttpClient,
    known: ArcSwapOption<Known>,
    /// When the last fetch ended. Held while one is under way.
    last_fetch: Mutex<Option<Instant>>,
}

struct Known {
    keys: JwkSet,
    fetched_at: Instant,
}

impl fmt::Debug for JwtKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.source, f)
    }
}

impl JwtKeys {
    /// Keys from there. Nothing is fetched until one is needed.
    #[must_use]
    pub fn new(source: KeySource, client: HttpClient) -> Self {
        Self { source, client, known: ArcSwapOption::empty(), last_fetch: Mutex::new(None) }
    }

    /// The key of this id; without an id the only one that fits the algorithm.
    pub(super) async fn find(self: &Arc<Self>, id: Option<&str>, algorithm: Algorithm) -> Result<DecodingKey> {
        let mut failure = None;
        if let Some(known) = self.known.load_full() {
            if known.fetched_at.elapsed() > FRESH_FOR {
                let keys = Arc::clone(self);
                tokio::spawn(async move { keys.fetch_again(Some(known.fetched_at)).await });
            }
            if let Some(key) = self.pick(id, algorithm) {
                return decoding(&key);
            }
        }
        let before = self.known.load().as_ref().map(|known| known.fetched_at);
        if let Err(error) = self.fetch_again(before).await {
            failure = Some(error);
        }
        match (self.pick(id, algorithm), failure) {
            (Some(key), _) => decoding(&key),
            // Nobody can tell whether the token is good.
            (None, Some(error)) => Err(error),
            (None, None) => {
                Err(Error::new(ErrorKind::BadIdentity, "the JWT is signed with a key that its issuer does not have"))
            }
        }
    }

    fn pick(&self, id: Option<&str>, algorithm: Algorithm) -> Option<Jwk> {
        let known = self.known.load();
        let keys = &known.as_ref()?.keys.keys;
        let mut fitting = keys.iter().filter(|key| fits(key, algorithm));
        match id {
            Some(id) => fitting.find(|key| key.common.key_id.as_deref() == Some(id)).cloned(),
            None => fitting.next().filter(|_| fitting.next().is_none()).cloned(),
        }
    }

    /// Fetches the keys, unless somebody has since `before`, or the last fetch was a moment ago. One fetch at a time:
    /// those who wait for it share its result.
    async fn fetch_again(&self, before: Option<Instant>) -> Result<()> {
        let mut last = self.last_fetch.lock().await;
        let known = self.known.load().as_ref().map(|known| known.fetched_at);
        if known != before || last.is_some_and(|last| last.elapsed() < PAUSE) {
            return if known.is_some() { Ok(()) } else { Err(unavailable()) };
        }
        let fetched = self.fetch().await;
        *last = Some(Instant::now());
        match fetched {
            Ok(keys) => {
                self.known.store(Some(Arc::new(Known { keys, fetched_at: Instant::now() })));
                Ok(())
            }
            Err(error) => {
                warn!(%error, source = ?self.source, "the keys of an issuer cannot be fetched");
                if known.is_some() { Ok(()) } else { Err(error) }
            }
        }
    }

    async fn fetch(&self) -> Result<JwkSet> {
        let keys = match &self.source {
            KeySource::File(path) => {
                let text = tokio::fs::read(path).await.map_err(|error| {
                    Error::new(ErrorKind::UpstreamDown, format!("cannot read {}: {}", path.display(), error.kind()))
                })?;
                serde_json::from_slice(&text).ok()
            }
            KeySource::Url(url) => self.get(url.clone()).await?,
            KeySource::Discovery(issuer) => self.get(self.discover(issuer).await?).await?,
        };
        let keys: JwkSet =
            keys.ok_or_else(|| Error::new(ErrorKind::UpstreamDown, "the issuer's keys are no JWK Set"))?;
        if keys.keys.len() > MAX_KEYS {
            return Err(Error::new(ErrorKind::UpstreamDown, format!("the issuer has more than {MAX_KEYS} keys")));
        }
        Ok(keys)
    }

    /// Where the issuer's metadata say that its keys are.
    async fn discover(&self, issuer: &Url) -> Result<Url> {
        let mut url = issuer.clone();
        url.set_path(&format!("{}/.well-known/openid-configuration", issuer.path().trim_end_matches('/')));
        let metadata: Value = self.get(url).await?.unwrap_or_default();
        let unusable = |why: &str| Error::new(ErrorKind::UpstreamDown, format!("the metadata of the issuer {why}"));
        let named = metadata.get("issuer").and_then(|named| named.as_str()).unwrap_or_default();
        if named.trim_end_matches('/') != issuer.as_str().trim_end_matches('/') {
            return Err(unusable("name another issuer than the configured one"));
        }
        let keys = metadata.get("jwks_uri").and_then(|uri| Url::parse(uri.as_str()?).ok());
        let keys = keys.ok_or_else(|| unusable("name no jwks_uri"))?;
        self.client
            .settings()
            .check_target(&keys)
            .map_err(|error| unusable(&format!("name an unsafe jwks_uri: {error}")))?;
        Ok(keys)
    }

    /// A JSON document, `None` if it is none of that form.
    async fn get<T: serde::de::DeserializeOwned>(&self, url: Url) -> Result<Option<T>> {
        let (headers, body) = (HeaderMap::new(), Zeroizing::default());
        let call = Call { method: Method::GET, url, headers, body, within: None, repeatable: false };
        let answer = self.client.send(call).await?;
        if !answer.status.is_success() {
            let text = format!("{} answered {} when asked for an issuer's keys", answer.host, answer.status.as_u16());
            return Err(Error::new(ErrorKind::UpstreamDown, text));
        }
        Ok(answer.json().and_then(|document| serde_json::from_value(Value::clone(&document)).ok()))
    }
}

/// Whether the key may be used with the algorithm, as far as it says (RFC 7517 sections 4.2 and 4.4).
fn fits(key: &Jwk, algorithm: Algorithm) -> bool {
    let named = key.common.key_algorithm.as_ref().map(KeyAlgorithm::to_string);
    let signs = key.common.public_key_use.as_ref().is_none_or(|used| *used == PublicKeyUse::Signature);
    let family = DecodingKey::from_jwk(key).is_ok_and(|key| key.family() == algorithm.foreign().family());
    signs && family && named.is_none_or(|named| named == algorithm.name())
}

fn decoding(key: &Jwk) -> Result<DecodingKey> {
    DecodingKey::from_jwk(key).map_err(|_| Error::new(ErrorKind::UpstreamDown, "a key of the issuer cannot be used"))
}

fn unavailable() -> Error {
    Error::new(ErrorKind::UpstreamDown, "the keys of the JWT's issuer are not known yet")
}
