//! Upstreams that are recorded once and replayed for ever, without a network and without a secret in the file.

mod scrub;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value, json};

/// Exchanges with an upstream, in a file of JSON that people can read and correct.
///
/// It is a transport: with the feature `reqwest` a middleware, to be put after all others. Recording, it lets requests
/// through and writes them down with their answers; replaying, it answers from the file and fails where a request is not
/// the next one of the file.
///
/// What carries a secret is not written: headers that are marked sensitive, as `TokenAuth` marks its own, those that carry credentials by their standard, and parameters and JSON members with the usual names
/// (`access_token`, `client_secret`, `password` and so on). Bodies that are no text are written as their length alone.
#[derive(Debug)]
pub struct Cassette {
    path: PathBuf,
    records: bool,
    exchanges: Mutex<Exchanges>,
}

#[derive(Debug, Default)]
struct Exchanges {
    all: Vec<Value>,
    played: usize,
}

/// Why a cassette cannot be used, or a request is not in it.
#[derive(Debug)]
#[non_exhaustive]
pub enum CassetteError {
    /// The file cannot be read or written.
    Io(PathBuf, io::Error),
    /// The file is none of ours.
    Malformed(PathBuf, String),
    /// This request is not the next one of the file.
    Unexpected {
        /// What the file has, if it has more.
        expected: Option<String>,
        /// What was sent.
        sent: String,
    },
}

impl Cassette {
    /// Records into a file, which is written anew.
    #[must_use]
    pub fn record(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), records: true, exchanges: Mutex::default() }
    }

    /// Replays a file.
    ///
    /// # Errors
    ///
    /// If there is no such file, or it is no cassette.
    pub fn replay(path: impl Into<PathBuf>) -> Result<Self, CassetteError> {
        let path = path.into();
        let text = fs::read_to_string(&path).map_err(|error| CassetteError::Io(path.clone(), error))?;
        let all: Vec<Value> =
            serde_json::from_str(&text).map_err(|error| CassetteError::Malformed(path.clone(), error.to_string()))?;
        Ok(Self { path, records: false, exchanges: Mutex::new(Exchanges { all, played: 0 }) })
    }

    /// How many exchanges of the file were not asked for.
    #[must_use]
    pub fn left(&self) -> usize {
        let exchanges = self.exchanges();
        if self.records { 0 } else { exchanges.all.len() - exchanges.played }
    }

    /// Whether it records.
    #[must_use]
    pub fn records(&self) -> bool {
        self.records
    }

    #[cfg_attr(not(feature = "reqwest"), expect(dead_code, reason = "the transports are behind features"))]
    fn write(&self, request: &Value, response: &Value) -> Result<(), CassetteError> {
        let mut exchanges = self.exchanges();
        exchanges.all.push(json!({ "request": request, "response": response }));
        let text = format!("{:#}\n", Value::from(exchanges.all.clone()));
        fs::write(&self.path, text).map_err(|error| CassetteError::Io(self.path.clone(), error))
    }

    /// The answer to a request.
    #[cfg_attr(not(feature = "reqwest"), expect(dead_code, reason = "the transports are behind features"))]
    fn play(&self, request: &Value) -> Result<(StatusCode, HeaderMap, String), CassetteError> {
        let mut exchanges = self.exchanges();
        let next = exchanges.all.get(exchanges.played).cloned();
        let expected = next.as_ref().map(|next| &next["request"]);
        let is_next = expected
            .is_some_and(|expected| ["method", "url", "body"].iter().all(|member| expected[member] == request[member]));
        let (true, Some(next)) = (is_next, next.as_ref()) else {
            return Err(CassetteError::Unexpected { expected: expected.map(line), sent: line(request) });
        };
        exchanges.played += 1;
        answer(&next["response"])
            .ok_or_else(|| CassetteError::Malformed(self.path.clone(), "a response is none".into()))
    }

    fn exchanges(&self) -> MutexGuard<'_, Exchanges> {
        self.exchanges.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// A request in a line.
fn line(request: &Value) -> String {
    let text = |member: &str| request[member].as_str().unwrap_or_default().to_owned();
    format!("{} {} {:?}", text("method"), text("url"), text("body"))
}

fn answer(response: &Value) -> Option<(StatusCode, HeaderMap, String)> {
    let status = StatusCode::from_u16(u16::try_from(response["status"].as_u64()?).ok()?).ok()?;
    let mut headers = HeaderMap::new();
    for (name, values) in response["headers"].as_object()? {
        let name: http::HeaderName = name.parse().ok()?;
        for value in values.as_array()? {
            headers.append(name.clone(), value.as_str()?.parse().ok()?);
        }
    }
    // The body is what was written, whatever length the upstream's had.
    for header in [http::header::CONTENT_LENGTH, http::header::TRANSFER_ENCODING, http::header::CONTENT_ENCODING] {
        headers.remove(header);
    }
    Some((status, headers, response["body"].as_str()?.to_owned()))
}

/// Headers by name, each with all its values.
#[cfg_attr(not(feature = "reqwest"), expect(dead_code, reason = "the transports are behind features"))]
fn headers(headers: &HeaderMap) -> Value {
    let mut written = Map::new();
    for name in headers.keys() {
        let values = headers.get_all(name).iter().map(|value| scrub::header(name, value));
        written.insert(name.to_string(), Value::from(values.collect::<Vec<_>>()));
    }
    written.into()
}

#[cfg(feature = "reqwest")]
mod transport {
    use bytes::Bytes;
    use http::Extensions;
    use reqwest::{Request, Response, ResponseBuilderExt as _};
    use reqwest_middleware::{Error, Middleware, Next, Result};
    use serde_json::json;

    use super::{Cassette, headers, scrub};

    #[async_trait::async_trait]
    impl Middleware for Cassette {
        /// Fails if the request is not the next one, or the file cannot be written. A streamed body is not written.
        async fn handle(&self, request: Request, extensions: &mut Extensions, next: Next<'_>) -> Result<Response> {
            let body = request.body().and_then(reqwest::Body::as_bytes).unwrap_or_default();
            let url = request.url().clone();
            let written = json!({
                "method": request.method().as_str(),
                "url": scrub::url(&url),
                "headers": headers(request.headers()),
                "body": scrub::body(body),
            });
            let (status, head, body) = if self.records() {
                let response = next.run(request, extensions).await?;
                let (status, head) = (response.status(), response.headers().clone());
                let body = response.bytes().await.map_err(Error::Reqwest)?;
                let answer =
                    json!({ "status": status.as_u16(), "headers": headers(&head), "body": scrub::body(&body) });
                self.write(&written, &answer).map_err(Error::middleware)?;
                (status, head, body)
            } else {
                let (status, head, body) = self.play(&written).map_err(Error::middleware)?;
                (status, head, Bytes::from(body))
            };
            let mut response = http::Response::builder().status(status).url(url);
            if let Some(all) = response.headers_mut() {
                *all = head;
            }
            response.body(body).map(Response::from).map_err(Error::middleware)
        }
    }
}

impl std::fmt::Display for CassetteError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Malformed(path, problem) => {
                write!(f, "{} is no cassette: {problem}; record it anew", path.display())
            }
            Self::Unexpected { expected: Some(expected), sent } => {
                write!(f, "the cassette has {expected} next, and this was sent: {sent}")
            }
            Self::Unexpected { expected: None, sent } => {
                write!(f, "the cassette is at its end, and this was sent: {sent}")
            }
        }
    }
}

impl std::error::Error for CassetteError {}
