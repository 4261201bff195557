//! A `tower` layer for whatever sends `http` requests: hyper clients, tonic channels, axum's oneshots.
//!
//! ```no_run
//! use bytes::Bytes;
//! use http_body_util::Full;
//! use hyper_util::{client::legacy::Client as Hyper, rt::TokioExecutor};
//! use tokencache_client::{Client, TokenAuth};
//! use tower::{Service as _, ServiceBuilder, ServiceExt as _};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! let broker = Client::builder().endpoint("http://127.0.0.1:50051").build()?;
//! let session = Hyper::builder(TokioExecutor::new()).build_http(); // as you like it
//! let mut session = ServiceBuilder::new().layer(TokenAuth::new(broker.source("github-ci")).layer()).service(session);
//! let request = http::Request::get("http://api.example/user").body(Full::<Bytes>::default())?;
//! let answer = session.ready().await?.call(request).await?;
//! # Ok(()) }
//! ```
//!
//! The service inside is given bodies of type [`TokenBody`]; one that takes another type, as a tonic channel does, is
//! wrapped with `map_request(|request| request.map(tonic::body::Body::new))`. A gRPC upstream refuses with status 200 and
//! `grpc-status: 16`, which [`TokenAuth::refused_by`] sees among the headers; see [`TokenAuth::replay_any_method`], too.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response, request::Parts};
use http_body::Body;
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

use crate::{Refusal, Timing, TokenAuth, body::ReadBody};

pub use crate::body::BodyError;

/// The body of a decorated request or response.
pub type TokenBody<B> = ReadBody<B>;

/// Puts a [`TokenService`] around a service.
#[derive(Clone, Debug)]
pub struct TokenLayer(TokenAuth);

/// Attaches tokens to the requests of a service.
#[derive(Clone, Debug)]
pub struct TokenService<S> {
    inner: S,
    auth: TokenAuth,
}

impl TokenAuth {
    /// For `tower::ServiceBuilder::layer`.
    #[must_use]
    pub fn layer(self) -> TokenLayer {
        TokenLayer(self)
    }
}

impl<S> Layer<S> for TokenLayer {
    type Service = TokenService<S>;

    fn layer(&self, inner: S) -> TokenService<S> {
        TokenService { inner, auth: self.0.clone() }
    }
}

impl<S, B, R> Service<Request<B>> for TokenService<S>
where
    S: Service<Request<TokenBody<B>>, Response = Response<R>> + Clone + Send + 'static,
    S::Error: Into<BodyError>,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BodyError>,
    R: Body<Data = Bytes> + Send + Unpin + 'static,
    R::Error: Into<BodyError>,
{
    type Response = Response<TokenBody<R>>;
    type Error = BodyError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BodyError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    /// Fails if there is no token, or as the service inside does. What the upstream answers is never an error.
    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The one that is ready is used; its copy has to get ready itself.
        let copy = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, copy);
        Box::pin(exchange(inner, self.auth.clone(), request))
    }
}

async fn exchange<S, B, R>(
    mut inner: S,
    auth: TokenAuth,
    request: Request<B>,
) -> Result<Response<TokenBody<R>>, BodyError>
where
    S: Service<Request<TokenBody<B>>, Response = Response<R>>,
    S::Error: Into<BodyError>,
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BodyError>,
    R: Body<Data = Bytes> + Unpin,
    R::Error: Into<BodyError>,
{
    let mut timing = Timing::default();
    let begun = Instant::now();
    let mut token = auth.source.get().await?;
    timing.broker += begun.elapsed();
    let (parts, body) = request.into_parts();
    let limit = if auth.max_replays > 0 { auth.body_limit } else { 0 };
    let (body, whole) = ReadBody::read(body, limit).await;
    let mut body = Some(body);
    loop {
        let again = whole.clone().filter(|_| timing.replays < auth.max_replays);
        let mut attempt = Request::from_parts(copy(&parts), body.take().expect("it is put back before each replay"));
        auth.attach(attempt.headers_mut(), &token)?;
        let begun = Instant::now();
        let response = inner.call(attempt).await.map_err(Into::into)?;
        timing.upstream += begun.elapsed();
        let (mut response, refusal) = judge(response, &auth).await;
        let again = again.filter(|_| auth.may_replay(&parts.method, response.status()));
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
        let (Some(newer), Some(bytes)) = (replacement, again) else {
            response.extensions_mut().insert(timing);
            return Ok(response);
        };
        timing.replays += 1;
        (token, body) = (newer, Some(ReadBody::whole(bytes)));
        std::future::poll_fn(|cx| inner.poll_ready(cx)).await.map_err(Into::into)?;
    }
}

fn copy(parts: &Parts) -> Parts {
    let mut copy = Request::new(()).into_parts().0;
    copy.method.clone_from(&parts.method);
    copy.uri.clone_from(&parts.uri);
    copy.version = parts.version;
    copy.headers.clone_from(&parts.headers);
    copy.extensions.clone_from(&parts.extensions);
    copy
}

async fn judge<R>(response: Response<R>, auth: &TokenAuth) -> (Response<TokenBody<R>>, Option<Refusal>)
where
    R: Body<Data = Bytes> + Unpin,
    R::Error: Into<BodyError>,
{
    if let Some(refusal) = auth.refusal(response.status(), response.headers()) {
        return (response.map(ReadBody::unread), Some(refusal));
    }
    let Some(limit) = auth.reads_body() else { return (response.map(ReadBody::unread), None) };
    let (parts, body) = response.into_parts();
    let (body, whole) = ReadBody::read(body, limit).await;
    let refusal = whole.and_then(|bytes| auth.refusal_in(parts.status, &parts.headers, &bytes));
    (Response::from_parts(parts, body), refusal)
}
