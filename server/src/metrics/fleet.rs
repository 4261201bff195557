//! What is counted of the other replicas, and of what is heard from them.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

use super::histogram::{DurationHistogram, Scale};

/// Whether a replica's lease is live.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReplicaLabels {
    lease: &'static str,
}

/// A kind of event.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EventLabels {
    kind: &'static str,
}

/// The counters of the fleet. Cheap to clone.
#[derive(Clone, Debug)]
pub struct FleetMetrics {
    replicas: Family<ReplicaLabels, Gauge>,
    events: Family<EventLabels, Counter>,
    lag: DurationHistogram,
    /// Events whose ids are missing and may still appear.
    pub missing: Gauge,
    /// Answers that may be outdated, for touch with the other replicas was lost.
    pub degraded: Counter,
}

impl Default for FleetMetrics {
    fn default() -> Self {
        let (replicas, events): (_, Family<EventLabels, Counter>) = (Family::default(), Family::default());
        for kind in ["committed", "rejected", "grant_lost"] {
            drop(events.get_or_create(&EventLabels { kind }));
        }
        let lag = DurationHistogram::new(&Scale::STORE);
        Self { replicas, events, lag, missing: Gauge::default(), degraded: Counter::default() }
    }
}

impl FleetMetrics {
    /// Notes how many replicas there are whose lease is live, this one among them, and whose lease has lapsed.
    pub fn replicas(&self, live: usize, lapsed: usize) {
        for (lease, count) in [("live", live), ("lapsed", lapsed)] {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.replicas.get_or_create(&ReplicaLabels { lease }).set(count);
        }
    }

    /// Counts an event that was applied; how long after it happened, where that is known.
    pub fn event(&self, kind: &'static str, lag: Option<Duration>) {
        self.events.get_or_create(&EventLabels { kind }).inc();
        if let Some(lag) = lag {
            self.lag.observe(lag);
        }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "replicas",
            "Replicas that share the store, by their leases; looked at every 10 s",
            self.replicas.clone(),
        );
        registry.register("events", "Events of the fleet, its own ones too, that were applied", self.events.clone());
        registry.register_with_unit(
            "event_lag",
            "How long after they happened, by the store's clock, events were applied here",
            Unit::Seconds,
            self.lag.clone(),
        );
        let missing = "Events that were not seen yet and may still appear";
        registry.register("events_missing", missing, self.missing.clone());
        let degraded = "Answers with a token that another replica may have rejected";
        registry.register("degraded_answers", degraded, self.degraded.clone());
    }
}
