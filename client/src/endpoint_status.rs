//! What operators are told of a token endpoint.

use std::{fmt, time::SystemTime};

use tokencache_proto::v1;

use crate::convert;

/// Whether a token endpoint is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndpointState {
    /// A state that this client does not know.
    Unknown,
    /// It is called.
    Closed,
    /// It failed too often in a row and is left alone.
    Open,
    /// It was left alone for long enough: one call finds out whether it works again.
    HalfOpen,
    /// It asked to be left alone.
    Paused,
}

impl EndpointState {
    /// The word for it, e.g. `half-open`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
            Self::Paused => "paused",
        }
    }
}

impl fmt::Display for EndpointState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<v1::EndpointState> for EndpointState {
    fn from(state: v1::EndpointState) -> Self {
        match state {
            v1::EndpointState::Unspecified => Self::Unknown,
            v1::EndpointState::Closed => Self::Closed,
            v1::EndpointState::Open => Self::Open,
            v1::EndpointState::HalfOpen => Self::HalfOpen,
            v1::EndpointState::Paused => Self::Paused,
        }
    }
}

/// A token endpoint, whose budget all credentials and all replicas share.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EndpointStatus {
    /// Scheme, host and port.
    pub endpoint: String,
    /// Whether it is called.
    pub state: EndpointState,
    /// Transient failures in a row, of whatever credential, seen by all replicas together.
    pub consecutive_failures: u32,
    /// Not before this time is it called again, on the store's clock. `None`: any time.
    pub next_attempt_at: Option<SystemTime>,
    /// How many calls of all replicas are under way.
    pub calls: u32,
    /// How many may be.
    pub max_concurrent: u32,
    /// Which replica's call is finding out whether it works again. Empty: none.
    pub prober: String,
}

impl From<v1::EndpointStatus> for EndpointStatus {
    fn from(status: v1::EndpointStatus) -> Self {
        Self {
            state: status.state().into(),
            endpoint: status.endpoint,
            consecutive_failures: status.consecutive_failures,
            next_attempt_at: convert::time(status.next_attempt_at),
            calls: status.calls,
            max_concurrent: status.max_concurrent,
            prober: status.prober,
        }
    }
}
