//! What is added to every answer, gRPC and HTTP alike, in the one place that does it.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{HeaderName, HeaderValue, Request, Response};
use tokio::time::Instant;
use tower::{Layer, Service};

use crate::types::ReplicaId;

/// The replica that answered.
const NODE: HeaderName = HeaderName::from_static("x-api-node");

/// How long it took to answer, in seconds: `0.003s`. Of a stream: to its beginning.
const TIME: HeaderName = HeaderName::from_static("x-api-time");

/// Adds `x-api-node` and `x-api-time`.
#[derive(Clone, Debug)]
pub struct AnswerHeaders {
    node: HeaderValue,
}

impl AnswerHeaders {
    /// For the answers of `replica`.
    #[must_use]
    pub fn new(replica: &ReplicaId) -> Self {
        // A replica's id is printable ASCII by construction.
        let node = HeaderValue::from_str(replica.as_str()).unwrap_or(HeaderValue::from_static("unknown"));
        Self { node }
    }
}

impl<S> Layer<S> for AnswerHeaders {
    type Service = Timed<S>;

    fn layer(&self, inner: S) -> Timed<S> {
        Timed { inner, node: self.node.clone() }
    }
}

/// A service whose answers carry the headers.
#[derive(Clone, Debug)]
pub struct Timed<S> {
    inner: S,
    node: HeaderValue,
}

impl<S, B, R> Service<Request<B>> for Timed<S>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = TimedFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        TimedFuture { begun: Instant::now(), node: self.node.clone(), inner: Box::pin(self.inner.call(request)) }
    }
}

/// The future of a [`Timed`] service.
#[derive(Debug)]
pub struct TimedFuture<F> {
    inner: Pin<Box<F>>,
    begun: Instant,
    node: HeaderValue,
}

impl<F, R, E> Future for TimedFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let result = ready!(self.inner.as_mut().poll(context));
        Poll::Ready(result.map(|mut response| {
            let took = format!("{:.3}s", self.begun.elapsed().as_secs_f64());
            let headers = response.headers_mut();
            headers.insert(NODE, self.node.clone());
            if let Ok(took) = HeaderValue::from_str(&took) {
                headers.insert(TIME, took);
            }
            response
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tower::ServiceExt as _;

    use super::*;

    #[tokio::test]
    async fn every_answer_names_the_replica_and_the_time_it_took() {
        let service =
            tower::service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::builder().status(500).body(())) });
        let service = service.map_response(|response| response.expect("a valid response"));
        let service = AnswerHeaders::new(&ReplicaId::new("node-1")).layer(service);
        let response = service.oneshot(Request::new(())).await.expect("infallible");
        assert_eq!(response.headers()[NODE], "node-1");
        let took = response.headers()[TIME].to_str().expect("ASCII");
        assert!(took.ends_with('s') && took[..took.len() - 1].parse::<f64>().is_ok(), "{took}");
    }
}
