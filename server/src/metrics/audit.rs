//! What is counted of the audit log.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

/// Where events go.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SinkLabels {
    sink: &'static str,
}

/// The counters of the audit log. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AuditMetrics {
    /// Events that were written.
    pub written: Counter,
    /// Events that found no room.
    pub lost: Counter,
    /// How long the writing of what was queued took.
    pub write_duration: Histogram,
    failures: Family<SinkLabels, Counter>,
}

impl Default for AuditMetrics {
    fn default() -> Self {
        let failures: Family<SinkLabels, Counter> = Family::default();
        for sink in ["file", "stdout", "store"] {
            drop(failures.get_or_create(&SinkLabels { sink }));
        }
        Self {
            written: Counter::default(),
            lost: Counter::default(),
            write_duration: Histogram::new(exponential_buckets(0.000_05, 2.0, 16)),
            failures,
        }
    }
}

impl AuditMetrics {
    /// Counts an attempt to write that failed.
    pub fn failure(&self, sink: &'static str) {
        self.failures.get_or_create(&SinkLabels { sink }).inc();
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("audit_events", "Audit events that were written", self.written.clone());
        registry.register("audit_lost", "Audit events that found no room", self.lost.clone());
        let failures = "Failed attempts to write audit events, by sink";
        registry.register("audit_failures", failures, self.failures.clone());
        registry.register_with_unit(
            "audit_write_duration",
            "How long it took to write the audit events that were queued",
            Unit::Seconds,
            self.write_duration.clone(),
        );
    }
}
