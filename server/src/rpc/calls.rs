//! Counts calls by rpc and gRPC code, whoever answers them: also those that are shed and those that reach no service.
//!
//! A call costs one relaxed addition, in a cache line that threads rarely share. A stream is counted when it begins.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use http::{HeaderMap, StatusCode};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _},
    metrics::{MetricType, counter::ConstCounter},
    registry::Registry,
};

use super::get_token;
use crate::{audit::Rpc, metrics::thread_number};

/// The codes of gRPC by their numbers.
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

const OK: usize = 0;
const UNKNOWN: usize = 2;

/// How many copies of the numbers there are.
const SPREAD: usize = 8;

/// Our rpcs, and one row for everything else: health checks, and paths that do not exist.
const ROWS: usize = Rpc::ALL.len() + 1;

/// What calls of our own services begin with.
const OURS: [&str; 2] = ["/tokencache.v1.", "/grpc.reflection."];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    rpc: &'static str,
    code: &'static str,
}

/// One copy of the numbers, in cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard([[AtomicU64; CODES.len()]; ROWS]);

/// What is called, in the form that it is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row(usize);

impl Row {
    /// That of nearly all calls.
    pub(super) const GET_TOKEN: Self = Self(Rpc::GetToken as usize);

    /// Of a request's path.
    #[must_use]
    pub fn of(path: &str) -> Self {
        if path == get_token::PATH {
            return Self::GET_TOKEN;
        }
        let ours = OURS.iter().any(|service| path.starts_with(service));
        let method = path.rsplit_once('/').map(|(_, method)| method).filter(|_| ours);
        let known = method.and_then(|method| Rpc::ALL.iter().position(|rpc| rpc.as_str() == method));
        Self(known.unwrap_or(Rpc::ALL.len()))
    }

    /// The service and the method, of calls that are worth a span.
    #[must_use]
    pub fn traced(self) -> Option<(&'static str, &'static str)> {
        let service = match Rpc::ALL.get(self.0)? {
            Rpc::GetToken | Rpc::WatchTokens | Rpc::InvalidateToken => "tokencache.v1.TokenService",
            Rpc::ServerReflectionInfo => return None,
            _ => "tokencache.v1.AdminService",
        };
        Some((service, self.name()))
    }

    fn name(self) -> &'static str {
        Rpc::ALL.get(self.0).map_or("other", |rpc| rpc.as_str())
    }
}

/// The counters of calls. Cheap to clone; all clones count together.
#[derive(Clone, Debug)]
pub struct Calls(Arc<[Shard]>);

impl Default for Calls {
    fn default() -> Self {
        Self((0..SPREAD).map(|_| Shard::default()).collect())
    }
}

impl Calls {
    /// Has them shown.
    pub fn register(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(self.clone()));
    }

    /// Counts an answer by what it begins with.
    pub fn count(&self, row: Row, status: StatusCode, headers: &HeaderMap) {
        let (code, _) = code_of(status, headers);
        self.0[thread_number() % SPREAD].0[row.0][code].fetch_add(1, Relaxed);
    }

    fn total(&self, row: Row, code: usize) -> u64 {
        self.0.iter().map(|shard| shard.0[row.0][code].load(Relaxed)).sum()
    }
}

impl Collector for Calls {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Calls by rpc and gRPC code; a stream's code is that of its beginning.";
        let mut family = encoder.encode_descriptor("tokencache_calls", help, None, MetricType::Counter)?;
        for row in (0..ROWS).map(Row) {
            for (number, code) in CODES.into_iter().enumerate() {
                let total = self.total(row, number);
                // Of three hundred series most would be zero for ever.
                if total > 0 || number == OK {
                    let labels = CallLabels { rpc: row.name(), code };
                    ConstCounter::new(total).encode(family.encode_family(&labels)?)?;
                }
            }
        }
        Ok(())
    }
}

/// The code of an answer by what it begins with: its number and its name.
#[must_use]
pub fn code_of(status: StatusCode, headers: &HeaderMap) -> (usize, &'static str) {
    let code = match headers.get("grpc-status") {
        Some(code) => code.to_str().ok().and_then(|code| code.parse().ok()).unwrap_or(UNKNOWN),
        // The status of a call that went well comes after its answer.
        None if status == StatusCode::OK => OK,
        None => UNKNOWN,
    };
    CODES.get(code).map_or((UNKNOWN, CODES[UNKNOWN]), |name| (code, name))
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn calls_are_counted_by_what_is_called_and_what_is_answered() {
        let (calls, mut registry) = (Calls::default(), Registry::default());
        calls.register(&mut registry);
        let count = |path: &str, status: u16, code: Option<&str>| {
            let mut headers = HeaderMap::new();
            code.map(|code| headers.insert("grpc-status", code.parse().unwrap()));
            calls.count(Row::of(path), StatusCode::from_u16(status).unwrap(), &headers);
        };
        count("/tokencache.v1.TokenService/GetToken", 200, None);
        count("/tokencache.v1.TokenService/GetToken", 200, Some("14"));
        count("/tokencache.v1.AdminService/ListReplicas", 200, Some("7"));
        count("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", 200, None);
        // Nothing that a caller makes up becomes a label.
        count("/somebody.Else/GetToken", 200, Some("12"));
        count("/tokencache.v1.TokenService/GetToken2", 200, Some("12"));
        count("/nowhere", 404, None);
        count("/tokencache.v1.TokenService/GetToken", 200, Some("99"));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for (rpc, code, total) in [
            ("GetToken", "OK", 1),
            ("GetToken", "UNAVAILABLE", 1),
            ("GetToken", "UNKNOWN", 1),
            ("ListReplicas", "PERMISSION_DENIED", 1),
            ("ServerReflectionInfo", "OK", 1),
            ("WatchTokens", "OK", 0),
            ("other", "UNIMPLEMENTED", 2),
            ("other", "UNKNOWN", 1),
        ] {
            let line = format!("tokencache_calls_total{{rpc=\"{rpc}\",code=\"{code}\"}} {total}");
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn the_codes_stand_at_their_numbers() {
        for (number, name) in CODES.into_iter().enumerate() {
            let code = tonic::Code::from(i32::try_from(number).unwrap());
            let spelled = format!("{code:?}").replace("Ok", "OK");
            assert_eq!(spelled.to_uppercase(), name.replace('_', ""));
        }
    }
}
