//! A middleware for `reqwest_middleware`, around the user's own `reqwest::Client`: proxies, TLS, certificates, cookies,
//! time-outs and redirects are theirs.
//!
//! ```no_run
//! use tokencache_client::{Client, TokenAuth};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let broker = Client::builder().endpoint("http://127.0.0.1:50051").build()?;
//! let session = reqwest::Client::builder().cookie_store(true).build()?; // as you like it
//! let session = reqwest_middleware::ClientBuilder::new(session)
//!     .with(TokenAuth::new(broker.source("github-ci")).middleware())
//!     .build();
//! let answer = session.get("https://api.example/user").send().await?;
//! # Ok(()) }
//! ```

use bytes::Bytes;
use http::{Extensions, StatusCode};
use reqwest::{Body, Request, Response, ResponseBuilderExt as _};
use reqwest_middleware::{Error, Middleware, Next, Result};
use tokio::time::Instant;

use crate::{Refusal, Timing, TokenAuth, body::ReadBody};

/// The middleware. Put it last, next to the client, so that other middleware (retries, traces) sees one request.
#[derive(Clone, Debug)]
pub struct TokenMiddleware(TokenAuth);

impl TokenAuth {
    /// For `reqwest_middleware::ClientBuilder::with`.
    #[must_use]
    pub fn middleware(self) -> TokenMiddleware {
        TokenMiddleware(self)
    }
}

#[async_trait::async_trait]
impl Middleware for TokenMiddleware {
    /// Fails if there is no token. What the upstream answers is never an error.
    async fn handle(&self, request: Request, extensions: &mut Extensions, next: Next<'_>) -> Result<Response> {
        let auth = &self.0;
        let mut timing = Timing::default();
        let begun = Instant::now();
        let mut token = auth.source.get().await.map_err(Error::middleware)?;
        timing.broker += begun.elapsed();
        let mut request = Some(replayable(request, auth).await);
        loop {
            let mut attempt = request.take().expect("it is put back before each replay");
            let again = if timing.replays < auth.max_replays { attempt.try_clone() } else { None };
            auth.attach(attempt.headers_mut(), &token).map_err(Error::middleware)?;
            let (origin, method) = (attempt.url().origin(), attempt.method().clone());
            let begun = Instant::now();
            let response = next.clone().run(attempt, extensions).await?;
            timing.upstream += begun.elapsed();
            // After a redirect to another host the token was not sent along: that host refuses something else.
            let (response, refusal) =
                if response.url().origin() == origin { judge(response, auth).await } else { (response, None) };
            let again = again.filter(|_| auth.may_replay(&method, response.status()));
            let replacement = match refusal {
                Some(refusal) if again.is_some() => {
                    let begun = Instant::now();
                    let replacement = auth.replacement(&token, refusal).await;
                    timing.broker += begun.elapsed();
                    replacement
                }
                Some(refusal) if timing.replays == 0 => {
                    auth.report(&token, refusal);
                    None
                }
                // The last one is not reported: an upstream that refuses fresh tokens has another reason.
                _ => None,
            };
            let (Some(newer), Some(original)) = (replacement, again) else { return Ok(timed(response, timing)) };
            timing.replays += 1;
            (token, request) = (newer, Some(original));
        }
    }
}

/// Reads a streamed body that is short enough into memory. A longer one stays a stream, which `try_clone` refuses.
async fn replayable(mut request: Request, auth: &TokenAuth) -> Request {
    let is_stream = request.body().is_some_and(|body| body.as_bytes().is_none());
    if is_stream
        && auth.max_replays > 0
        && let Some(body) = request.body_mut().take()
    {
        let (body, whole) = ReadBody::read(body, auth.body_limit).await;
        *request.body_mut() = Some(whole.map_or_else(|| Body::wrap(body), Body::from));
    }
    request
}

async fn judge(response: Response, auth: &TokenAuth) -> (Response, Option<Refusal>) {
    if let Some(refusal) = auth.refusal(response.status(), response.headers()) {
        return (response, Some(refusal));
    }
    let Some(limit) = auth.reads_body() else { return (response, None) };
    let url = response.url().clone();
    let (mut parts, body) = http::Response::from(response).into_parts();
    let (body, whole): (_, Option<Bytes>) = ReadBody::read(body, limit).await;
    let refusal = whole.and_then(|bytes| auth.refusal_in(parts.status, &parts.headers, &bytes));
    // A response that is put together again has forgotten where it came from.
    let placed = http::Response::builder().status(StatusCode::OK).url(url).body(());
    parts.extensions.extend(placed.expect("a status and a URL make a response").into_parts().0.extensions);
    (Response::from(http::Response::from_parts(parts, Body::wrap(body))), refusal)
}

fn timed(mut response: Response, timing: Timing) -> Response {
    response.extensions_mut().insert(timing);
    response
}
