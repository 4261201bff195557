//! The border to gRPC: messages in, messages out; tonic and prost stay here.

pub mod admin_service;
mod audit;
pub mod convert;
pub mod http;
pub mod layers;
pub mod routes;
pub mod serve;
pub mod status;
pub mod token_service;

use std::{net::SocketAddr, time::Duration};

use tokio::time::Instant;
use tonic::{Request, transport::server::UdsConnectInfo};

use crate::{audit::TraceId, pipeline::Call, types::Peer};

/// How much earlier than the caller's deadline its answer is given up: it has to travel back in time.
const MAX_MARGIN: Duration = Duration::from_millis(100);

/// What the transport says about a call.
fn call<T>(request: &Request<T>) -> Call {
    let peer = match request.remote_addr() {
        Some(address) => Peer::Tcp(SocketAddr::new(address.ip().to_canonical(), address.port())),
        None if request.extensions().get::<UdsConnectInfo>().is_some() => Peer::Unix,
        None => Peer::Unknown,
    };
    let timeout = request.metadata().get("grpc-timeout").and_then(|value| parse_timeout(value.to_str().ok()?));
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout - (timeout / 10).min(MAX_MARGIN)));
    let header = request.metadata().get("traceparent");
    let trace = header.and_then(|value| TraceId::of_traceparent(value.to_str().ok()?));
    Call { peer, deadline, trace }
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
}
