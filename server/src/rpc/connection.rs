//! One connection, from its first byte to its last: HTTP/2 by hyper, and HTTP/1.1 where it is wanted.

use std::{error::Error as StdError, pin::pin, sync::Arc, time::Duration};

use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::{select, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{
    accept::Accepted,
    front::Front,
    hold::Hold,
    standing::Standing,
    turn::{Inline, Turns},
    wire::Wire,
};

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

/// How a connection is spoken with.
fn protocol(http1: bool, inline: Inline) -> Builder<Inline> {
    let mut builder = Builder::new(inline);
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
    http1: bool,
    front: Arc<Front>,
    standing: Standing,
    stop: CancellationToken,
) {
    let Accepted { stream, facts, place: _place } = accepted;
    let (peer, facts) = (facts.peer, Arc::new(facts));
    let hold = Hold::default();
    let wire = Wire::new(stream, standing.is_in_disgrace(peer), hold.clone());
    let service = service_fn(|request| front.answer(&facts, &hold, request));
    let inline = Inline::default();
    let protocol = protocol(http1, inline.clone());
    let connection = protocol.serve_connection(TokioIo::new(wire.clone()), service);
    let ended = {
        let mut turns = pin!(Turns::new(connection, wire.clone(), &inline));
        select! {
            ended = &mut turns => ended,
            () = stop.cancelled() => {
                turns.as_mut().connection().graceful_shutdown();
                turns.await
            }
        }
        // Here its calls end as well.
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
