//! The border to gRPC: messages in, messages out; tonic and prost stay here.

pub mod accept;
pub mod admin_service;
mod answer;
mod audit;
pub mod calls;
mod connection;
pub mod convert;
pub mod front;
mod get_token;
pub mod guard;
pub mod headers;
mod hold;
pub mod http;
mod message;
mod meter;
pub mod routes;
pub mod serve;
pub mod shed;
mod standing;
pub mod status;
pub mod tls;
pub mod token_service;
mod traced;
mod turn;
mod watch_tokens;
mod wire;

use std::{sync::Arc, task::Poll, time::Duration};

use ::http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use futures::{Stream, StreamExt as _, stream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

use self::accept::Facts;
use crate::{
    audit::{Rpc, TraceId},
    error::{Error, ErrorKind},
    pipeline::{Call, Identified, Pipeline},
    types::{Evidence, Peer, Secret},
};

/// How much earlier than the caller's deadline its answer is given up: it has to travel back in time.
const MAX_MARGIN: Duration = Duration::from_millis(100);

/// How many items of a stream follow one another before it is seen whether it is to end.
const LONGEST_RUN: u32 = 32;

/// An answer as it goes to the transport: a message with its prefix.
#[cfg(any(test, feature = "testing"))]
#[must_use]
pub fn encode(served: &crate::cache::Served) -> bytes::Bytes {
    get_token::encode(served)
}

/// What the transport says about a call.
fn call<T>(request: &Request<T>) -> Call {
    call_of(request.extensions().get(), request.metadata().as_ref())
}

/// The same, of a request that has not been decoded.
fn call_of(facts: Option<&Arc<Facts>>, headers: &HeaderMap) -> Call {
    let evidence = Evidence {
        peer: facts.map_or(Peer::Unknown, |facts| facts.peer),
        certificate: facts.and_then(|facts| facts.certificate.clone()),
        bearer: presented(headers),
    };
    let deadline =
        timeout_of(headers).and_then(|timeout| Instant::now().checked_add(timeout - (timeout / 10).min(MAX_MARGIN)));
    let trace = headers.get("traceparent").and_then(|value| TraceId::of_traceparent(value.to_str().ok()?));
    Call { evidence, deadline, trace }
}

/// How long the caller waits.
fn timeout_of(headers: &HeaderMap) -> Option<Duration> {
    headers.get("grpc-timeout").and_then(|value| parse_timeout(value.to_str().ok()?))
}

/// Who calls, before anything else is looked at.
async fn identified<T>(pipeline: &Pipeline, request: &Request<T>, rpc: Rpc) -> Result<Identified, Status> {
    pipeline.identify(call(request), rpc).await.map_err(|error| status::to_status(&error))
}

/// A stream that ends, and says why, when the replica drains or its caller loses the right to it.
fn ends_with<T>(
    mut items: impl Stream<Item = Result<T, Status>> + Send + Unpin + 'static,
    lost: impl Future<Output = Error> + Send + 'static,
    draining: CancellationToken,
) -> impl Stream<Item = Result<T, Status>> + Send + 'static
where
    T: Send + 'static,
{
    // Two boxes and no `select!`, which would have room for both twice: as long as a stream is open it has all of this.
    let mut ends = Some((Box::pin(draining.cancelled_owned()), Box::pin(lost)));
    let mut run = 0;
    stream::poll_fn(move |context| {
        let Some((draining, lost)) = &mut ends else { return Poll::Ready(None) };
        // First, for when one comes there is little else to do; but not for ever, where they come without a pause.
        if run < LONGEST_RUN
            && let Poll::Ready(item) = items.poll_next_unpin(context)
        {
            run += 1;
            return Poll::Ready(item);
        }
        let is_run = std::mem::take(&mut run) == LONGEST_RUN;
        let ended = match draining.as_mut().poll(context) {
            Poll::Ready(()) => {
                Poll::Ready(Error::new(ErrorKind::Draining, "this replica is shutting down: ask another one"))
            }
            Poll::Pending => lost.as_mut().poll(context),
        };
        if let Poll::Ready(error) = ended {
            ends = None;
            return Poll::Ready(Some(Err(status::to_status(&error))));
        }
        if is_run { items.poll_next_unpin(context) } else { Poll::Pending }
    })
}

/// What is presented, unless it is presented twice: then nobody can tell which of them counts.
fn presented(headers: &HeaderMap) -> Option<Result<Secret, &'static str>> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let first = values.next()?;
    Some(if values.next().is_some() { Err("there is more than one authorization header") } else { bearer(first) })
}

/// The bearer token of an `authorization` header (RFC 6750 section 2.1). The name of the scheme has no case (RFC 9110
/// section 11.1).
fn bearer(value: &HeaderValue) -> Result<Secret, &'static str> {
    let expected = "the authorization header is not `Bearer TOKEN`";
    let text = value.to_str().map_err(|_| expected)?;
    let (scheme, token) = text.split_once(' ').ok_or(expected)?;
    let token = token.trim_start_matches(' ');
    let visible = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    if scheme.eq_ignore_ascii_case("bearer") && visible { Ok(Secret::from(token)) } else { Err(expected) }
}

/// Reads `grpc-timeout`: up to eight digits and a unit (gRPC over HTTP/2, "Requests").
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stream_without_a_pause_ends_all_the_same() {
        for draining in [true, false] {
            let stop = CancellationToken::new();
            let lost = async move {
                if draining {
                    std::future::pending::<()>().await;
                }
                Error::new(ErrorKind::NotAllowed, "no longer")
            };
            let items = ends_with(stream::repeat_with(|| Ok(1)), lost, stop.clone());
            if draining {
                stop.cancel();
            }
            let ended: Vec<_> = items.take(10_000).collect().await;
            let expected = if draining { tonic::Code::Unavailable } else { tonic::Code::PermissionDenied };
            assert_eq!(ended.len(), LONGEST_RUN as usize + 1);
            assert!(matches!(ended.last(), Some(Err(status)) if status.code() == expected), "{:?}", ended.last());
        }
    }

    #[test]
    fn the_timeout_header_is_read_as_its_specification_says() {
        assert_eq!(parse_timeout("5S"), Some(Duration::from_secs(5)));
        assert_eq!(parse_timeout("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!(parse_timeout("250m"), Some(Duration::from_millis(250)));
        assert_eq!(parse_timeout("7u"), Some(Duration::from_micros(7)));
        for bad in ["", "S", "5", "5s", "-5S", "123456789S", "+5S", "5é"] {
            assert_eq!(parse_timeout(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_bearer_token_is_read_as_its_specification_says() {
        let read = |text: &str| bearer(&text.parse().expect("a header value"));
        assert_eq!(read("Bearer abc"), Ok(Secret::from("abc")));
        assert_eq!(read("bearer  a-b_c.~+/="), Ok(Secret::from("a-b_c.~+/=")));
        for bad in ["", "abc", "Bearer", "Bearer ", "Basic YTpi", "Bearer a b", "Bearer a\tb"] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }
}
