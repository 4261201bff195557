//! Which addresses have hurt before: who reconnects to go on with it does not begin afresh.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use crate::types::Peer;

/// Connections that may end badly before their address is in disgrace. Several, for many clients may share an address.
const STRIKES: u32 = 10;

/// How long a bad end is remembered, counted from the first.
const MEMORY: Duration = Duration::from_secs(60);

/// Addresses that are remembered; whoever has more of them is not held up by this.
const MAX_ADDRESSES: u64 = 10_000;

/// How often the connections of each address have ended badly of late. Cheap to clone; all clones count together.
#[derive(Clone, Debug)]
pub(super) struct Standing(moka::sync::Cache<IpAddr, Arc<AtomicU32>>);

impl Default for Standing {
    fn default() -> Self {
        Self(moka::sync::Cache::builder().max_capacity(MAX_ADDRESSES).time_to_live(MEMORY).build())
    }
}

impl Standing {
    /// Whether a new connection of this peer is to wait before it is listened to.
    pub(super) fn is_in_disgrace(&self, peer: Peer) -> bool {
        let Peer::Tcp(address) = peer else { return false };
        self.0.get(&address.ip()).is_some_and(|strikes| strikes.load(Ordering::Relaxed) >= STRIKES)
    }

    /// Notes that a connection of this peer has ended badly.
    pub(super) fn strike(&self, peer: Peer) {
        if let Peer::Tcp(address) = peer {
            self.0.get_with(address.ip(), Arc::default).fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_bad_ends_are_a_disgrace_of_that_address_alone() {
        let peer = |text: &str| Peer::Tcp(text.parse().expect("an address"));
        let standing = Standing::default();
        for port in 1..=STRIKES {
            assert!(!standing.is_in_disgrace(peer("192.0.2.1:1")));
            standing.strike(peer(&format!("192.0.2.1:{port}")));
        }
        assert!(standing.is_in_disgrace(peer("192.0.2.1:9999")));
        assert!(!standing.is_in_disgrace(peer("192.0.2.2:1")));
        standing.strike(Peer::Unix(None));
        assert!(!standing.is_in_disgrace(Peer::Unix(None)), "whoever may open the socket is trusted that far");
    }
}
