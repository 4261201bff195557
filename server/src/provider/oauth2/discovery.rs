//! The endpoints of an issuer, from its metadata (RFC 8414, OpenID Connect Discovery 1.0).

use std::{sync::Arc, time::Duration};

use ::http::{HeaderMap, Method};
use serde_json::Value;
use tokio::{sync::Mutex, time::Instant};
use url::Url;
use zeroize::Zeroizing;

use crate::{
    config::reader::Section,
    error::{Error, ErrorKind, Result},
    provider::http::{Answer, Call, HttpClient, HttpFailure, HttpSettings, host_of},
    types::Origin,
};

/// How long metadata is believed.
const FRESH_FOR: Duration = Duration::from_secs(3600);

/// An issuer identifier: to be compared to the letter, so its text is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Issuer {
    text: String,
    url: Url,
}

/// What is used of the metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Metadata {
    pub(super) token_endpoint: Url,
    pub(super) revocation_endpoint: Option<Url>,
}

/// Fetches metadata and remembers it for an hour. What is remembered is used beyond that if no newer is to be had.
#[derive(Clone)]
pub(super) struct Discovery {
    issuer: Issuer,
    client: HttpClient,
    known: Arc<Mutex<Option<Known>>>,
}

struct Known {
    metadata: Metadata,
    fetched_at: Instant,
    distrusted: bool,
}

impl Issuer {
    /// Reads the key `issuer`.
    pub(super) fn read(section: &Section<'_>, http: &HttpSettings) -> Option<Self> {
        let url = http.read_url(section, "issuer")?;
        if url.query().is_some() || url.fragment().is_some() {
            section.problem_at("issuer", "an issuer has neither a query nor a fragment (RFC 8414 section 2)");
            return None;
        }
        Some(Self { text: section.string("issuer")?, url })
    }

    /// To the letter as configured.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The server that is asked for its metadata.
    pub(super) fn origin(&self) -> Origin {
        Origin::of(&self.url)
    }

    /// Its identifier, which is a URL.
    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// Where the metadata may be: the well-known part comes before the issuer's path by RFC 8414 section 3.1, after it by
    /// OpenID Connect Discovery section 4.1.
    fn metadata_urls(&self) -> [Url; 2] {
        let path = self.url.path().trim_end_matches('/');
        [format!("/.well-known/oauth-authorization-server{path}"), format!("{path}/.well-known/openid-configuration")]
            .map(|path| {
                let mut url = self.url.clone();
                url.set_path(&path);
                url
            })
    }
}

impl Discovery {
    pub(super) fn new(issuer: Issuer, client: HttpClient) -> Self {
        Self { issuer, client, known: Arc::default() }
    }

    /// The endpoints. One fetch at a time: those who wait for it share its result.
    pub(super) async fn metadata(&self) -> Result<Metadata> {
        let mut known = self.known.lock().await;
        if let Some(known) = known.as_ref().filter(|k| !k.distrusted && k.fetched_at.elapsed() < FRESH_FOR) {
            return Ok(known.metadata.clone());
        }
        match (self.fetch().await, known.as_mut()) {
            (Ok(metadata), _) => {
                *known = Some(Known { metadata: metadata.clone(), fetched_at: Instant::now(), distrusted: false });
                Ok(metadata)
            }
            (Err(_), Some(stale)) => Ok(stale.metadata.clone()),
            (Err(error), None) => Err(error),
        }
    }

    /// Has the metadata fetched again next time, for a call by them failed: the endpoint may have moved.
    pub(super) fn distrust(&self) {
        // Whoever holds the lock is fetching already.
        if let Ok(mut guard) = self.known.try_lock()
            && let Some(known) = guard.as_mut()
        {
            known.distrusted = true;
        }
    }

    async fn fetch(&self) -> Result<Metadata> {
        let mut last = None;
        for url in self.issuer.metadata_urls() {
            // Half of the time at most: the token request is to have its share.
            let within = Some(self.client.settings().timeout / 2);
            let (headers, body) = (HeaderMap::new(), Zeroizing::default());
            let call = Call { method: Method::GET, url, headers, body, within, repeatable: false };
            match self.client.send(call).await {
                Ok(answer) => match self.read(&answer) {
                    Ok(metadata) => return Ok(metadata),
                    Err(error) => last = Some(error),
                },
                // The host is the same for both.
                Err(failure @ HttpFailure::Broken(_)) => last = Some(failure.into()),
                Err(failure) => return Err(failure.into()),
            }
        }
        Err(last.unwrap_or_else(|| Error::bug("no metadata URL")))
    }

    fn read(&self, answer: &Answer) -> Result<Metadata> {
        if !answer.status.is_success() {
            let text = format!("{} answered {} when asked for its metadata", answer.host, answer.status.as_u16());
            return Err(Error::new(ErrorKind::UpstreamDown, text));
        }
        let document = answer.json().ok_or_else(|| answer.illegible())?;
        if document.get("issuer").and_then(Value::as_str) != Some(self.issuer.text()) {
            let text = format!("the metadata of {} name another issuer than the configured one", answer.host);
            return Err(Error::new(ErrorKind::Misconfigured, text));
        }
        let endpoint = |key: &str| {
            let url = Url::parse(document.get(key)?.as_str()?).ok()?;
            Some(self.client.settings().check_target(&url).map(|()| url.clone()).map_err(|error| {
                let text = format!("the metadata of {} name a {key} at {}: {error}", answer.host, host_of(&url));
                Error::new(ErrorKind::Misconfigured, text)
            }))
        };
        let missing =
            || Error::new(ErrorKind::Misconfigured, format!("the metadata of {} name no token_endpoint", answer.host));
        Ok(Metadata {
            token_endpoint: endpoint("token_endpoint").ok_or_else(missing)??,
            revocation_endpoint: endpoint("revocation_endpoint").transpose().ok().flatten(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_well_known_part_stands_before_or_after_the_path() {
        for (text, expected) in [
            (
                "https://a.example",
                [
                    "https://a.example/.well-known/oauth-authorization-server",
                    "https://a.example/.well-known/openid-configuration",
                ],
            ),
            (
                "https://a.example/t/1/",
                [
                    "https://a.example/.well-known/oauth-authorization-server/t/1",
                    "https://a.example/t/1/.well-known/openid-configuration",
                ],
            ),
        ] {
            let issuer = Issuer { text: text.into(), url: Url::parse(text).unwrap() };
            assert_eq!(issuer.metadata_urls().map(|url| url.to_string()), expected);
        }
    }
}
