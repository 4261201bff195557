//! HTTP to an upstream: one request, one answer, bounded in time and in size.
//!
//! Deliberately absent: redirects (they would carry a secret elsewhere), cookies, and decompression (a few bytes could
//! become gigabytes).
//!
//! A request that must not come twice, as one with a refresh token, is sent once, over a connection of its own: one that
//! was kept and that the upstream has closed in the meantime would leave it in doubt. One that may go over connections that
//! are kept, which saves opening them, and the handshakes of TLS.

mod answer;
mod clients;
mod egress;
mod kept;
mod settings;

use std::{fmt, iter, time::Duration};

use ::http::{
    HeaderMap, HeaderValue, Method,
    header::{ACCEPT_ENCODING, CONTENT_ENCODING},
};
use bytes::Bytes;
use thiserror::Error;
use tokio::time::Instant;
use url::Url;
use zeroize::Zeroizing;

use super::{MintFailure, buffer::SecretBuffer};
use crate::{
    error::{Error, ErrorKind},
    trace,
};

pub use answer::{Answer, BodyFault, Document};
pub use clients::{BadClient, HttpClients};
pub use egress::{AddressClass, Egress, ForbiddenAnswer};
pub use settings::{HttpSettings, InsecureUrl};

/// The longest body that is read of an answer, in bytes.
pub const MAX_BODY: usize = 64 * 1024;

/// A client with the HTTP settings of a credential. Cheap to clone.
#[derive(Clone, Debug)]
pub struct HttpClient {
    /// Opens a connection for each request.
    single: reqwest::Client,
    /// Keeps connections.
    keeping: reqwest::Client,
    settings: HttpSettings,
}

/// One request. Its headers and its body may hold secrets.
pub struct Call {
    /// The method.
    pub method: Method,
    /// The URL: https, or http where the settings allow it.
    pub url: Url,
    /// Headers. `accept-encoding` is always `identity`.
    pub headers: HeaderMap,
    /// The body. Empty: none. It is wiped once it was sent; copies in the buffers of a connection are not.
    pub body: Zeroizing<Vec<u8>>,
    /// How long the whole exchange may take, if less than the settings say.
    pub within: Option<Duration>,
    /// Whether it goes over a connection that was kept, and once more where that had ended or fallen silent. Only where it does
    /// no harm if the upstream gets it twice.
    pub repeatable: bool,
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, host_of(&self.url))
    }
}

/// Why there was no answer.
#[derive(Debug, Error)]
pub enum HttpFailure {
    /// The settings forbid this URL.
    #[error("{0}: {1}")]
    Insecure(String, InsecureUrl),
    /// The settings forbid what the host resolves to. Nothing was sent.
    #[error("{0}: {1}")]
    Forbidden(String, ForbiddenAnswer),
    /// The request cannot be built.
    #[error("the request to {0} cannot be built")]
    Request(String),
    /// There is no connection; nothing was sent.
    #[error("cannot connect to {0}: {1}")]
    Connect(String, String),
    /// There was no connection in time; nothing was sent.
    #[error("no connection to {0} within {1:?}")]
    ConnectSlow(String, Duration),
    /// The request may have been sent, and no answer came in time.
    #[error("{0} did not answer within {1:?}")]
    Slow(String, Duration),
    /// The request may have been sent, and the connection ended or carried something else than HTTP.
    #[error("the connection to {0} ended without a valid answer")]
    Broken(String),
}

impl HttpFailure {
    /// Whether the upstream may have seen the request.
    #[must_use]
    pub fn may_have_been_sent(&self) -> bool {
        matches!(self, Self::Slow(..) | Self::Broken(_))
    }

    /// In one word.
    fn name(&self) -> &'static str {
        match self {
            Self::Insecure(..) => "insecure",
            Self::Forbidden(..) => "forbidden",
            Self::Request(_) => "request",
            Self::Connect(..) => "connect",
            Self::ConnectSlow(..) => "connect_slow",
            Self::Slow(..) => "slow",
            Self::Broken(_) => "broken",
        }
    }

    fn new(error: &reqwest::Error, host: String, settings: &HttpSettings, limit: Duration) -> Self {
        if let Some(answer) = causes(error).find_map(|cause| cause.downcast_ref::<ForbiddenAnswer>()) {
            return Self::Forbidden(host, *answer);
        }
        match (error.is_connect(), error.is_timeout() && !kept::fell_silent(error)) {
            (true, true) => Self::ConnectSlow(host, settings.connect_timeout),
            (true, false) => Self::Connect(host, root_cause(error)),
            (false, true) => Self::Slow(host, limit),
            (false, false) if error.is_builder() => Self::Request(host),
            (false, false) => Self::Broken(host),
        }
    }
}

impl From<HttpFailure> for Error {
    fn from(failure: HttpFailure) -> Self {
        let kind = match failure {
            HttpFailure::Insecure(..) | HttpFailure::Request(_) => ErrorKind::Misconfigured,
            // A name may resolve to something else in a moment, and a forged answer must not stop a credential for good.
            HttpFailure::Forbidden(..) | HttpFailure::Connect(..) | HttpFailure::Broken(_) => ErrorKind::UpstreamDown,
            HttpFailure::ConnectSlow(..) | HttpFailure::Slow(..) => ErrorKind::UpstreamSlow,
        };
        Self::new(kind, failure.to_string())
    }
}

impl From<HttpFailure> for MintFailure {
    fn from(failure: HttpFailure) -> Self {
        let in_doubt = failure.may_have_been_sent();
        Self { error: failure.into(), grant: None, in_doubt }
    }
}

impl HttpClient {
    /// The settings that it was made with.
    #[must_use]
    pub fn settings(&self) -> &HttpSettings {
        &self.settings
    }

    /// Sends a request and reads the answer. Dropping the future closes the connection. One that is repeatable is sent once
    /// more, within the same time, if it went over a connection that had been kept, and that ended or fell silent before an
    /// answer began.
    ///
    /// # Errors
    ///
    /// If there is no answer. One of whatever status is `Ok`, also if its body came only in part.
    pub async fn send(&self, mut call: Call) -> Result<Answer, HttpFailure> {
        let mut resent = false;
        let Some(here) = trace::here() else { return self.exchange(call, &mut resent).await };
        let mut span = here.call(call.method.to_string());
        span.note("http.request.method", call.method.to_string());
        // Of a URL no more than this: what comes after it may hold what is nobody's business.
        span.note("server.address", call.url.host_str().unwrap_or_default().to_owned());
        span.note("server.port", i64::from(call.url.port_or_known_default().unwrap_or_default()));
        span.note("url.scheme", call.url.scheme().to_owned());
        if let Ok(header) = HeaderValue::from_str(&span.traceparent()) {
            call.headers.insert("traceparent", header);
        }
        let result = span.around(self.exchange(call, &mut resent)).await;
        if resent {
            span.note("http.request.resend_count", 1_i64);
        }
        match &result {
            Ok(answer) => {
                span.note("http.response.status_code", i64::from(answer.status.as_u16()));
                if !answer.status.is_success() {
                    span.fail("status");
                }
            }
            Err(failure) => span.fail(failure.name()),
        }
        result
    }

    async fn exchange(&self, call: Call, resent: &mut bool) -> Result<Answer, HttpFailure> {
        let host = host_of(&call.url);
        self.settings.check_target(&call.url).map_err(|error| HttpFailure::Insecure(host.clone(), error))?;
        let limit = call.within.unwrap_or(self.settings.timeout).min(self.settings.timeout);

        let mut headers = call.headers;
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let mut request = self.single.request(call.method, call.url).headers(headers).timeout(limit);
        if !call.body.is_empty() {
            request = request.body(Bytes::from_owner(call.body));
        }
        let failure = |error: reqwest::Error| HttpFailure::new(&error, host.clone(), &self.settings, limit);
        let mut request = request.build().map_err(failure)?;
        let mut response = None;
        if call.repeatable
            && let Some(first) = request.try_clone()
        {
            let begun = Instant::now();
            let (sent, was_kept) = kept::over_kept(self.keeping.execute(first)).await;
            match sent.map_err(failure) {
                Err(HttpFailure::Broken(_)) if was_kept => {
                    *resent = true;
                    *request.timeout_mut() = Some(limit.saturating_sub(begun.elapsed()));
                }
                sent => response = Some(sent?),
            }
        }
        let mut response = match response {
            Some(response) => response,
            None => self.single.execute(request).await.map_err(failure)?,
        };

        let (body, fault) = read_body(&mut response).await;
        Ok(Answer { host, status: response.status(), headers: response.headers().clone(), body, fault })
    }
}

/// Reads at most [`MAX_BODY`] bytes.
async fn read_body(response: &mut reqwest::Response) -> (Zeroizing<Vec<u8>>, Option<BodyFault>) {
    let encoded =
        response.headers().get_all(CONTENT_ENCODING).iter().any(|v| !v.as_bytes().eq_ignore_ascii_case(b"identity"));
    if encoded {
        return (Zeroizing::default(), Some(BodyFault::Encoded));
    }
    // At most twice as large as what came: all of its room is wiped, and goes through the processor's caches then.
    let mut body = SecretBuffer::default();
    let fault = loop {
        match response.chunk().await {
            Ok(Some(chunk)) => {
                let room = MAX_BODY - body.len();
                body.push(&chunk[..chunk.len().min(room)]);
                if chunk.len() > room {
                    break Some(BodyFault::TooLong);
                }
            }
            Ok(None) => break None,
            Err(error) if error.is_timeout() => break Some(BodyFault::Slow),
            Err(_) => break Some(BodyFault::Truncated),
        }
    };
    (body.into_bytes(), fault)
}

/// `host` or `host:port`: all of a URL that appears in a text for people.
#[must_use]
pub fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// The innermost cause of a failed connection. It comes from the resolver, the socket or the TLS library, never from a
/// body or a URL.
fn root_cause(error: &reqwest::Error) -> String {
    // The outermost error would show the URL.
    causes(error).last().map_or_else(|| "unknown reason".into(), ToString::to_string)
}

/// What led to an error, itself left out.
fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    iter::successors(std::error::Error::source(error), |cause| cause.source())
}

/// What tests of providers need.
#[cfg(test)]
pub(crate) mod testing {
    pub(crate) use super::egress::{
        Lookup,
        tests::{FakeDns, Traps},
    };
}

#[cfg(test)]
mod tests;
