//! Stands before services that know nothing of callers: whoever is not authenticated does not get there.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use ::http::{Request, Response};
use tonic::{body::Body, server::NamedService};
use tower::Service;

use super::{call_of, status};
use crate::{audit::Rpc, pipeline::Pipeline};

/// A service for authenticated callers alone.
#[derive(Clone, Debug)]
pub struct Guarded<S> {
    inner: S,
    pipeline: Arc<Pipeline>,
}

impl<S> Guarded<S> {
    /// Guards `inner`.
    #[must_use]
    pub fn new(inner: S, pipeline: Arc<Pipeline>) -> Self {
        Self { inner, pipeline }
    }
}

impl<S: NamedService> NamedService for Guarded<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let call = call_of(request.extensions().get(), request.headers());
        let pipeline = Arc::clone(&self.pipeline);
        // The one that said it was ready is the one to be called.
        let clone = self.inner.clone();
        let mut ready = std::mem::replace(&mut self.inner, clone);
        Box::pin(async move {
            match pipeline.identify(call, Rpc::ServerReflectionInfo).await {
                Ok(_) => ready.call(request).await,
                Err(error) => Ok(status::to_status(&error).into_http()),
            }
        })
    }
}
