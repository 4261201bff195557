//! What is added to every answer, gRPC and HTTP alike, in the one place that does it.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

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

    /// To an answer that took so long.
    pub(super) fn add(&self, headers: &mut HeaderMap, took: Duration) {
        headers.insert(NODE, self.node.clone());
        headers.insert(TIME, seconds(took));
    }
}

/// To the millisecond, rounded.
fn seconds(took: Duration) -> HeaderValue {
    if took < Duration::from_micros(500) {
        // Nearly every answer, for it comes from memory.
        return HeaderValue::from_static("0.000s");
    }
    let millis = (took + Duration::from_micros(500)).as_millis();
    let text = format!("{}.{:03}s", millis / 1000, millis % 1000);
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("unknown"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_names_the_replica_and_the_time_it_took() {
        let headers = AnswerHeaders::new(&ReplicaId::new("node-1"));
        for (took, told) in [(0, "0.000s"), (499, "0.000s"), (501, "0.001s"), (1_234_567, "1.235s")] {
            let mut map = HeaderMap::new();
            headers.add(&mut map, Duration::from_micros(took));
            assert_eq!((map[NODE].as_bytes(), map[TIME].as_bytes()), (&b"node-1"[..], told.as_bytes()), "{took}");
        }
    }
}
