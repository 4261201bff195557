//! Sheds calls before anybody looks who makes them: no more are in progress than the replica can hold, and no more come
//! in a second than it is told to take.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use http::{Request, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::body::Body;
use tower::{Layer, Service};

use super::status;
use crate::error::{Error, ErrorKind};

/// When one that was refused may come again.
const COME_AGAIN: Duration = Duration::from_millis(500);

/// Sheds calls. Cheap to clone; all clones count together.
#[derive(Clone, Debug)]
pub struct Shed {
    room: Arc<Semaphore>,
    rate: Option<Arc<DefaultDirectRateLimiter>>,
}

impl Shed {
    /// Takes so many calls at once, and so many a second.
    #[must_use]
    pub fn new(max_calls: usize, per_second: Option<u32>) -> Self {
        let quota = per_second.and_then(std::num::NonZeroU32::new).map(Quota::per_second);
        Self {
            room: Arc::new(Semaphore::new(max_calls.min(Semaphore::MAX_PERMITS))),
            rate: quota.map(|quota| Arc::new(RateLimiter::direct(quota))),
        }
    }

    /// Takes whatever comes.
    #[must_use]
    pub fn none() -> Self {
        Self::new(usize::MAX, None)
    }

    /// A place for a call, or what to answer.
    fn admit(&self) -> Result<OwnedSemaphorePermit, Error> {
        let overloaded =
            |_| Error::new(ErrorKind::Overloaded, "the replica has as many calls in progress as it can hold");
        let place = Arc::clone(&self.room).try_acquire_owned().map_err(overloaded);
        match &self.rate {
            Some(rate) if place.is_ok() && rate.check().is_err() => {
                Err(Error::new(ErrorKind::TooManyRequests, "the replica takes no more calls in this second"))
            }
            _ => place,
        }
    }
}

impl<S> Layer<S> for Shed {
    type Service = Shedding<S>;

    fn layer(&self, inner: S) -> Shedding<S> {
        Shedding { inner, shed: self.clone() }
    }
}

/// A service that refuses what is too much.
#[derive(Clone, Debug)]
pub struct Shedding<S> {
    inner: S,
    shed: Shed,
}

impl<S, B> Service<Request<B>> for Shedding<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = SheddingFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        match self.shed.admit() {
            Ok(place) => SheddingFuture::Admitted { inner: Box::pin(self.inner.call(request)), _place: place },
            Err(error) => {
                let error = error.with_retry_after(COME_AGAIN);
                SheddingFuture::Refused(Some(status::to_status(&error).into_http()))
            }
        }
    }
}

/// The future of a [`Shedding`] service.
#[derive(Debug)]
pub enum SheddingFuture<F> {
    /// The call goes on.
    Admitted {
        /// What the service does.
        inner: Pin<Box<F>>,
        /// Its place, until the answer begins.
        _place: OwnedSemaphorePermit,
    },
    /// It is refused.
    Refused(Option<Response<Body>>),
}

impl<F, E> Future for SheddingFuture<F>
where
    F: Future<Output = Result<Response<Body>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Admitted { inner, .. } => Poll::Ready(ready!(inner.as_mut().poll(context))),
            Self::Refused(response) => Poll::Ready(Ok(response.take().expect("polled once only"))),
        }
    }
}
