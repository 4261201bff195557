//! What a fuzzer makes up, and what must hold of whatever the broker makes of it: one module for each target.
//!
//! A target asserts more than that nothing panics: what is accepted is compared with a second opinion that shares no code
//! with the broker's. Inputs begin with a byte that says how the rest is meant; the corpora are as legible as that allows.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod certificate;
pub mod configuration;
pub mod jwt;
pub mod policy_pattern;
pub mod retry_after;
pub mod sealed_blob;
pub mod short;
pub mod token_response;

mod edit;

use std::time::Duration;

use tokencache_server::time::{Clock, Timestamp};

/// A clock that stands still: a run is to be repeated.
#[derive(Debug)]
struct Standing(Timestamp);

impl Clock for Standing {
    fn now(&self) -> Timestamp {
        self.0
    }

    fn uptime(&self) -> Duration {
        Duration::ZERO
    }
}

/// The rest of an input behind the byte that says, out of `ways`, how it is meant.
fn way_of(input: &[u8], ways: u8) -> Option<(u8, &[u8])> {
    input.split_first().map(|(first, rest)| (first % ways, rest))
}
