//! What is counted, in OpenMetrics names. Labels are few and of few values: never a credential's or a caller's name. An
//! endpoint is one of those in the configuration.

use std::{
    fmt::{self, Write as _},
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::{Registry, Unit},
};

use crate::error::ErrorKind;

mod audit;
mod fleet;
mod histogram;
mod listeners;
mod process;
mod sampled;
mod spread;
mod store;
mod tokens;

pub use audit::AuditMetrics;
pub use fleet::FleetMetrics;
pub use histogram::{DurationHistogram, Scale};
pub use listeners::{ListenerMetrics, Listeners};
pub use process::Process;
pub use sampled::{Counted, Sampled};
pub use spread::{SpreadCounter, thread_number};
pub use store::StoreMetrics;
pub use tokens::TokenMetrics;

/// The outcome of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AttemptLabels {
    provider: &'static str,
    outcome: &'static str,
}

/// A token endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndpointLabels {
    endpoint: String,
}

/// Why a flight was not let through to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndpointRefusal {
    /// It fails and is left alone.
    Open,
    /// It asked to be left alone.
    Asked,
    /// As many calls as may be were under way for too long.
    Full,
}

impl EncodeLabelValue for EndpointRefusal {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        encoder.write_str(match self {
            Self::Open => "open",
            Self::Asked => "retry_after",
            Self::Full => "full",
        })
    }
}

/// A refusal of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndpointRefusalLabels {
    endpoint: String,
    reason: EndpointRefusal,
}

/// The loss of a grant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LossLabels {
    in_doubt: &'static str,
}

/// The counters of a replica. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Calls that were answered from memory.
    pub hits: SpreadCounter,
    /// Calls that had to wait for a flight or were refused.
    pub misses: Counter,
    /// Tokens that were taken out of service because an upstream refused them.
    pub rejections: Counter,
    grants_lost: Family<LossLabels, Counter>,
    attempts: Family<AttemptLabels, Counter>,
    attempt_duration: Histogram,
    endpoint_calls: Family<EndpointLabels, Gauge>,
    endpoint_open: Family<EndpointLabels, Gauge>,
    endpoint_openings: Family<EndpointLabels, Counter>,
    endpoint_refusals: Family<EndpointRefusalLabels, Counter>,
    /// What becomes of audit events.
    pub audit: AuditMetrics,
    /// How tokens are handed out and replaced.
    pub tokens: TokenMetrics,
    /// What is heard of other replicas.
    pub fleet: FleetMetrics,
    /// How the store answers.
    pub store: StoreMetrics,
    /// Who is connected.
    pub listeners: Listeners,
}

/// What was built.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabels {
    version: &'static str,
}

impl Metrics {
    /// Counters at zero, registered.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            hits: SpreadCounter::default(),
            misses: Counter::default(),
            rejections: Counter::default(),
            grants_lost: Family::default(),
            attempts: Family::default(),
            attempt_duration: Histogram::new(exponential_buckets(0.005, 2.0, 13)),
            endpoint_calls: Family::default(),
            endpoint_open: Family::default(),
            endpoint_openings: Family::default(),
            endpoint_refusals: Family::default(),
            audit: AuditMetrics::default(),
            tokens: TokenMetrics::default(),
            fleet: FleetMetrics::default(),
            store: StoreMetrics::default(),
            listeners: Listeners::default(),
        };
        let registry = registry.sub_registry_with_prefix("tokencache");
        registry.register("hits", "Calls answered from memory", metrics.hits.clone());
        registry.register("misses", "Calls that waited for the store or the upstream", metrics.misses.clone());
        registry.register("rejections", "Tokens reported as refused and replaced", metrics.rejections.clone());
        let lost = "Grants lost: a person has to log in again; in doubt where a refresh had ended unseen";
        registry.register("grants_lost", lost, metrics.grants_lost.clone());
        registry.register("attempts", "Attempts to obtain a token, by outcome", metrics.attempts.clone());
        registry.register_with_unit(
            "attempt_duration",
            "How long attempts to obtain a token took",
            Unit::Seconds,
            metrics.attempt_duration.clone(),
        );
        // Those whose labels are known are there from the start: a series that begins at 1 has not risen, for an alert.
        for in_doubt in ["true", "false"] {
            drop(metrics.grants_lost.get_or_create(&LossLabels { in_doubt }));
        }
        metrics.register_endpoints(registry);
        metrics.audit.register(registry);
        metrics.tokens.register(registry);
        metrics.fleet.register(registry);
        metrics.store.register(registry);
        metrics.listeners.register(registry);
        let build = Info::new(BuildLabels { version: env!("CARGO_PKG_VERSION") });
        registry.register("build", "What runs here", build);
        metrics
    }

    /// Counts a grant that is lost; whether it was so because a refresh had ended unseen.
    pub fn grant_lost(&self, in_doubt: bool) {
        let in_doubt = if in_doubt { "true" } else { "false" };
        self.grants_lost.get_or_create(&LossLabels { in_doubt }).inc();
    }

    fn register_endpoints(&self, registry: &mut Registry) {
        let (calls, open) = (self.endpoint_calls.clone(), self.endpoint_open.clone());
        registry.register("endpoint_calls", "Calls of a token endpoint by this replica under way", calls);
        registry.register(
            "endpoint_open",
            "1 while a token endpoint is left alone, as last heard by this replica",
            open,
        );
        let (openings, refusals) = (self.endpoint_openings.clone(), self.endpoint_refusals.clone());
        registry.register("endpoint_openings", "How often this replica found a token endpoint failing", openings);
        registry.register("endpoint_refusals", "Refreshes that were not let through to a token endpoint", refusals);
    }

    /// How many calls of an endpoint are under way on this replica.
    #[must_use]
    pub fn endpoint_calls(&self, endpoint: &str) -> Gauge {
        self.endpoint_calls.get_or_create(&EndpointLabels { endpoint: endpoint.into() }).clone()
    }

    /// Notes whether an endpoint is left alone for failing.
    pub fn endpoint_open(&self, endpoint: &str, open: bool) {
        self.endpoint_open.get_or_create(&EndpointLabels { endpoint: endpoint.into() }).set(i64::from(open));
    }

    /// Counts that an endpoint was found to fail: at first, or by a probe.
    pub fn endpoint_opened(&self, endpoint: &str) {
        self.endpoint_openings.get_or_create(&EndpointLabels { endpoint: endpoint.into() }).inc();
    }

    /// Counts a flight that was not let through.
    pub fn endpoint_refusal(&self, endpoint: &str, reason: EndpointRefusal) {
        self.endpoint_refusals.get_or_create(&EndpointRefusalLabels { endpoint: endpoint.into(), reason }).inc();
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
