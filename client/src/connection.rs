//! Calls to the broker: bounded in time, sent with the caller's identity, and tried once more on another replica where that
//! one could not serve it.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout_at};
use tonic::{Request, Response, Status, transport::Channel};

use crate::{
    Error, ErrorKind, Result,
    backoff::{RetryBudget, up_to},
    identity::Identity,
    replicas::{Replica, Replicas},
    trace::TraceSource,
};

/// The pause before a second try, at most, where the broker names none: all clients of a replica that died come at once.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// The replicas, and how they are called. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(crate) replicas: Arc<Replicas>,
    pub(crate) budget: Arc<RetryBudget>,
    pub(crate) identity: Option<Identity>,
    pub(crate) traces: Option<TraceSource>,
    pub(crate) deadline: Duration,
}

impl Connection {
    /// Makes a call that may be made twice.
    pub(crate) async fn call<T: Clone, R, F>(&self, message: T, send: impl Fn(Channel, Request<T>) -> F) -> Result<R>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let until = Instant::now() + self.deadline;
        let (first, result) = self.attempt(until, None, message.clone(), &send).await;
        let error = match result {
            Ok(answer) => {
                self.budget.succeeded();
                return Ok(answer);
            }
            Err(error) => error,
        };
        match pause_before_retry(&error) {
            Some(pause) if Instant::now() + pause < until && self.budget.failed() => sleep(pause).await,
            _ => return Err(error),
        }
        self.attempt(until, Some(&first), message, &send).await.1
    }

    /// Makes a call that must not be made twice.
    pub(crate) async fn call_once<T, R, F>(&self, message: T, send: impl Fn(Channel, Request<T>) -> F) -> Result<R>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        self.attempt(Instant::now() + self.deadline, None, message, &send).await.1
    }

    /// Begins a stream, which has no deadline once it has begun. Says which replica it comes from.
    pub(crate) async fn open<T, R, F>(
        &self,
        message: T,
        send: impl Fn(Channel, Request<T>) -> F,
    ) -> Result<(Arc<Replica>, R)>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let replica = self.replicas.pick(None);
        let begun = async {
            let call = send(replica.channel.clone(), self.request(message)?);
            answered(timeout_at(Instant::now() + self.deadline, call).await, self.deadline)
        };
        let begun: Result<R> = begun.await;
        judge(&replica, begun.as_ref().err());
        Ok((replica, begun?))
    }

    async fn attempt<T, R, F>(
        &self,
        until: Instant,
        not: Option<&Arc<Replica>>,
        message: T,
        send: &impl Fn(Channel, Request<T>) -> F,
    ) -> (Arc<Replica>, Result<R>)
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let replica = self.replicas.pick(not);
        let call = async {
            let mut request = self.request(message)?;
            // `Endpoint::timeout` would not tell the broker (`grpc-timeout`).
            request.set_timeout(until.saturating_duration_since(Instant::now()));
            answered(timeout_at(until, send(replica.channel.clone(), request)).await, self.deadline)
        };
        let result = call.await;
        judge(&replica, result.as_ref().err());
        (replica, result)
    }

    fn request<T>(&self, message: T) -> Result<Request<T>> {
        let mut request = Request::new(message);
        if let Some(identity) = &self.identity {
            request.metadata_mut().insert("authorization", identity.authorization()?);
        }
        if let Some(traceparent) = self.traces.as_ref().and_then(TraceSource::traceparent) {
            request.metadata_mut().insert("traceparent", traceparent);
        }
        Ok(request)
    }
}

fn answered<R, E>(call: Result<Result<Response<R>, Status>, E>, limit: Duration) -> Result<R> {
    match call {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(Error::from_status(&status)),
        Err(_) => Err(Error::slow(limit)),
    }
}

/// What the outcome of a call says about the replica: one that the upstream fails is well.
pub(crate) fn judge(replica: &Replica, error: Option<&Error>) {
    match error {
        Some(error) if is_about_the_replica(error) => replica.failed(),
        _ => replica.succeeded(),
    }
}

fn is_about_the_replica(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::Unreachable => true,
        ErrorKind::Unavailable => matches!(error.reason(), None | Some("DRAINING" | "STORE_DOWN" | "AUDIT_DOWN")),
        _ => false,
    }
}

/// How long to wait before the same call is made again. `None`: another replica would say the same.
fn pause_before_retry(error: &Error) -> Option<Duration> {
    if !is_about_the_replica(error) {
        return None;
    }
    Some(match error.retry_after() {
        // A replica that goes away says when one may come back to it; the next one is there now.
        Some(delay) if error.reason() != Some("DRAINING") => delay + up_to(delay / 2),
        _ => up_to(RETRY_PAUSE),
    })
}
