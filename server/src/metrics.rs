//! What is counted, in OpenMetrics names. Labels are few and of few values: never a credential's or a caller's name.

use std::time::Duration;

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

use crate::error::ErrorKind;

/// The outcome of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AttemptLabels {
    provider: &'static str,
    outcome: &'static str,
}

/// The counters of a replica. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Calls that were answered from memory.
    pub hits: Counter,
    /// Calls that had to wait for a flight or were refused.
    pub misses: Counter,
    /// Tokens that were taken out of service because an upstream refused them.
    pub rejections: Counter,
    attempts: Family<AttemptLabels, Counter>,
    attempt_duration: Histogram,
}

impl Metrics {
    /// Counters at zero, registered.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            hits: Counter::default(),
            misses: Counter::default(),
            rejections: Counter::default(),
            attempts: Family::default(),
            attempt_duration: Histogram::new(exponential_buckets(0.005, 2.0, 13)),
        };
        let registry = registry.sub_registry_with_prefix("tokencache");
        registry.register("hits", "Calls answered from memory", metrics.hits.clone());
        registry.register("misses", "Calls that waited for the store or the upstream", metrics.misses.clone());
        registry.register("rejections", "Tokens reported as refused and replaced", metrics.rejections.clone());
        registry.register("attempts", "Attempts to obtain a token, by outcome", metrics.attempts.clone());
        registry.register_with_unit(
            "attempt_duration",
            "How long attempts to obtain a token took",
            Unit::Seconds,
            metrics.attempt_duration.clone(),
        );
        metrics
    }

    /// Counts an attempt of a kind of provider.
    pub fn attempt(&self, provider: &'static str, failed_with: Option<ErrorKind>, duration: Duration) {
        let outcome = failed_with.map_or("OK", ErrorKind::reason);
        self.attempts.get_or_create(&AttemptLabels { provider, outcome }).inc();
        self.attempt_duration.observe(duration.as_secs_f64());
    }
}

/// The metrics in the OpenMetrics text format.
#[must_use]
pub fn render(registry: &Registry) -> String {
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = encode(&mut text, registry);
    text
}
