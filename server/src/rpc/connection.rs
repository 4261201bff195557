//! One connection, from its first byte to its last: HTTP/2 by hyper, and HTTP/1.1 where it is wanted.
//!
//! A call that is answered at once is answered within the turn of its connection, without a task of its own; one that has
//! to wait gets a task. What that is worth, with the writes collected, stands in `wire.rs`.

use std::{
    error::Error as StdError,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use hyper::{rt::Executor, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::{select, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{accept::Accepted, front::Front, hold::Hold, standing::Standing, wire::Wire};

/// Calls in progress on one connection. hyper's default is 200.
const MAX_STREAMS: u32 = 128;

/// Resets that one connection may cause (RUSTSEC-2024-0003).
const MAX_LOCAL_RESETS: usize = 256;

/// Calls that one connection may give up before they were looked at, at a time: all of its calls, for a client whose calls
/// run into one deadline while this process is busy must not lose its connection, and other callers' calls with it. h2's
/// own limit is 20 (CVE-2023-44487).
const MAX_EARLY_RESETS: usize = MAX_STREAMS as usize;

/// The headers of one call together, in bytes, as HTTP/2 counts them: room for the longest JWT that is looked at.
const MAX_HEADERS: u32 = 32 * 1024;

/// How long a peer may take to read the last words.
const LINGER: Duration = Duration::from_secs(1);

/// Runs what can end at once where it is begun, and the rest in tasks of their own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inline;

impl<F> Executor<F> for Inline
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        let mut future = Box::pin(future);
        // Whatever it waits for is waited for anew by its task, which polls it again at once.
        if future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            tokio::spawn(future);
        }
    }
}

/// How connections are spoken with.
pub(super) fn protocol(http1: bool) -> Builder<Inline> {
    let mut builder = Builder::new(Inline);
    if !http1 {
        builder = builder.http2_only();
    }
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_local_error_reset_streams(MAX_LOCAL_RESETS)
        .max_pending_accept_reset_streams(MAX_EARLY_RESETS)
        .max_header_list_size(MAX_HEADERS);
    // It gives up on headers that do not end, which takes a timer.
    builder.http1().timer(TokioTimer::new());
    builder
}

/// Serves a connection until its peer closes it, or, once `stop` is cancelled, until its calls are answered.
pub(super) async fn serve(
    accepted: Accepted,
    protocol: Arc<Builder<Inline>>,
    front: Arc<Front>,
    standing: Standing,
    stop: CancellationToken,
) {
    let Accepted { stream, facts, place: _place } = accepted;
    let (peer, facts) = (facts.peer, Arc::new(facts));
    let hold = Hold::default();
    let wire = Wire::new(stream, standing.is_in_disgrace(peer), hold.clone());
    let service = service_fn(|request| front.answer(&facts, &hold, request));
    let connection = protocol.serve_connection(TokioIo::new(wire.clone()), service);
    let mut turns = pin!(Turns { connection, wire: wire.clone(), stepped_back: false });
    let ended = select! {
        ended = &mut turns => ended,
        () = stop.cancelled() => {
            turns.as_mut().connection().graceful_shutdown();
            turns.await
        }
    };
    // What hyper said last, such as why it hangs up.
    let _ = timeout(LINGER, std::future::poll_fn(|context| wire.poll_send(context))).await;
    if let Err(error) = &ended {
        debug!(%peer, error = %describe(&**error), "a connection ended badly");
    }
    if wire.is_in_debt() || ended.is_err_and(|error| is_a_breach(&*error)) {
        standing.strike(peer);
    }
}

type BoxError = Box<dyn StdError + Send + Sync>;

pin_project_lite::pin_project! {
    /// The turns of a connection. What one of them writes is sent at its end.
    struct Turns<C> {
        #[pin]
        connection: C,
        wire: Wire,
        stepped_back: bool,
    }
}

impl<C> Turns<C> {
    fn connection(self: Pin<&mut Self>) -> Pin<&mut C> {
        self.project().connection
    }
}

impl<C: Future<Output = Result<(), BoxError>>> Future for Turns<C> {
    type Output = Result<(), BoxError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let turns = self.project();
        // What waits to be sent goes first: meanwhile nothing new is taken on.
        if turns.wire.poll_release(context)?.is_pending() {
            return Poll::Pending;
        }
        if let Poll::Ready(ended) = turns.connection.poll(context) {
            return Poll::Ready(ended);
        }
        // What was not asked for in this turn comes from the tasks of calls that had to wait, or of watches. Many are woken
        // together, and the first would have this task run next, to send its answer alone: the others go before.
        if !*turns.stepped_back && turns.wire.is_unasked() {
            *turns.stepped_back = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        *turns.stepped_back = false;
        match turns.wire.poll_send(context) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        }
    }
}

/// Whether the connection ended because the peer broke the protocol's rules or this listener's limits, as told by the words
/// of RFC 9113 section 7 that it was sent off with.
fn is_a_breach(error: &(dyn StdError + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |&error| error.source());
    causes.any(|cause| {
        cause
            .downcast_ref::<h2::Error>()
            .is_some_and(|error| (error.is_go_away() || error.is_library()) && !error.is_remote())
    })
}

/// An error with its causes.
fn describe(error: &(dyn StdError + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
