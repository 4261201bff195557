//! What is counted of connections.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// A listener.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ListenerLabels {
    listener: &'static str,
}

/// The counters of all listeners. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Listeners {
    open: Family<ListenerLabels, Gauge>,
    turned_away: Family<ListenerLabels, Counter>,
    handshakes_failed: Family<ListenerLabels, Counter>,
}

/// The counters of one listener. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct ListenerMetrics {
    /// Connections that may call.
    pub open: Gauge,
    /// Connections that were one too many.
    pub turned_away: Counter,
    /// Connections that did not get through their TLS handshake.
    pub handshakes_failed: Counter,
}

impl Listeners {
    /// Those of the listener with this name.
    #[must_use]
    pub fn of(&self, listener: &'static str) -> ListenerMetrics {
        let labels = ListenerLabels { listener };
        ListenerMetrics {
            open: self.open.get_or_create_owned(&labels),
            turned_away: self.turned_away.get_or_create_owned(&labels),
            handshakes_failed: self.handshakes_failed.get_or_create_owned(&labels),
        }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("connections", "Connections that are open", self.open.clone());
        let turned_away = "Connections that were ended at once, for there were too many";
        registry.register("connections_turned_away", turned_away, self.turned_away.clone());
        let failed = "TLS handshakes that failed or took too long";
        registry.register("tls_handshakes_failed", failed, self.handshakes_failed.clone());
    }
}
