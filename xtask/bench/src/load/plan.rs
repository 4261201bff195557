//! What is done to a server.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use rustls::ClientConfig;

/// How long calls may take to end after the load, unless a plan says otherwise.
const PATIENCE: Duration = Duration::from_secs(20);

/// When requests are made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Pace {
    /// As soon as a stream is free.
    Closed,
    /// So many a second, one at a random moment of each interval, whatever comes back. A call's time counts from when it
    /// was due, so that a server that stalls is not spared the calls that would have been made meanwhile.
    Rate(f64),
    /// Each key from the first on once, as soon as a stream is free.
    Once,
    /// The first key on every stream at the same time, once.
    Herd,
}

/// Which keys are asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keys {
    /// Random ones of so many, from the first on.
    pub(crate) first: u32,
    pub(crate) warm: u32,
    /// One in so many is a key that nobody has asked for: from this one on, in order.
    pub(crate) cold: Option<(u32, u32)>,
}

impl Keys {
    pub(crate) fn warm(count: u32) -> Self {
        Self { first: 0, warm: count, cold: None }
    }
}

/// What is done to a server.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) address: SocketAddr,
    pub(crate) tls: Option<Arc<ClientConfig>>,
    pub(crate) connections: usize,
    /// Calls in progress on each connection.
    pub(crate) streams: usize,
    pub(crate) pace: Pace,
    pub(crate) keys: Keys,
    /// What is not counted at the beginning.
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
    /// How long what was begun may take after that.
    pub(crate) patience: Duration,
    pub(crate) seed: u64,
}

impl Plan {
    /// With the times of a short run.
    pub(crate) fn new(
        address: SocketAddr,
        tls: Option<Arc<ClientConfig>>,
        (connections, streams): (usize, usize),
        pace: Pace,
        keys: Keys,
    ) -> Self {
        let (warm_up, measured) = (Duration::from_millis(300), Duration::from_secs(1));
        Self { address, tls, connections, streams, pace, keys, warm_up, measured, patience: PATIENCE, seed: 1 }
    }
}
