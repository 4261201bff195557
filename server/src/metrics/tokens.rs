//! What is counted of tokens: how fast they are handed out, how long they last then, and how early they are replaced.
//!
//! A hit costs four relaxed additions, in cache lines that threads rarely share.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

use super::histogram::{DurationHistogram, Of, Scale};
use crate::error::ErrorKind;

/// How a call for a token ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

/// A call of an upstream.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UpstreamLabels {
    provider: &'static str,
    outcome: &'static str,
}

/// What became of a report that a token was refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReportLabels {
    outcome: &'static str,
}

/// Makes the histograms of a family whose every member is observed on hits, or nearly.
#[derive(Clone, Copy, Debug)]
struct Hot;

impl prometheus_client::metrics::family::MetricConstructor<DurationHistogram> for Hot {
    fn new_metric(&self) -> DurationHistogram {
        DurationHistogram::hot(&Scale::FINE)
    }
}

/// The counters of tokens. Cheap to clone.
#[derive(Clone, Debug)]
pub struct TokenMetrics {
    durations: Family<ResultLabels, DurationHistogram, Hot>,
    /// Members of the family above: a hit looks nothing up.
    hit: DurationHistogram,
    miss: DurationHistogram,
    error: DurationHistogram,
    remaining: DurationHistogram,
    refresh_lead: DurationHistogram,
    upstream: Family<UpstreamLabels, DurationHistogram, Of>,
    reports: Family<ReportLabels, Counter>,
    /// Callers who wait for a flight.
    pub waiters: Gauge,
    /// Streams of watchers that are open.
    pub watch_streams: Gauge,
}

impl Default for TokenMetrics {
    fn default() -> Self {
        let durations = Family::new_with_constructor(Hot);
        let of = |result| durations.get_or_create_owned(&ResultLabels { result });
        let (hit, miss, error) = (of("hit"), of("miss"), of("error"));
        let reports: Family<ReportLabels, Counter> = Family::default();
        for outcome in ["invalidated", "unchanged", "storm", "failed"] {
            drop(reports.get_or_create(&ReportLabels { outcome }));
        }
        Self {
            durations,
            hit,
            miss,
            error,
            remaining: DurationHistogram::hot(&Scale::LIVES),
            refresh_lead: DurationHistogram::new(&Scale::LIVES),
            upstream: Family::new_with_constructor(Of(&Scale::CALLS)),
            reports,
            waiters: Gauge::default(),
            watch_streams: Gauge::default(),
        }
    }
}

impl TokenMetrics {
    /// Notes a token that was handed out: whether it was in memory, how long that took, and how long it is still valid.
    pub fn served(&self, hit: bool, took: Duration, remaining: Duration) {
        if hit { &self.hit } else { &self.miss }.observe(took);
        self.remaining.observe(remaining);
    }

    /// Notes a call for a token that was answered with an error.
    pub fn not_served(&self, took: Duration) {
        self.error.observe(took);
    }

    /// Notes how long its predecessor was still valid when a replacement was there.
    pub fn replaced(&self, lead: Duration) {
        self.refresh_lead.observe(lead);
    }

    /// Notes a call of an upstream.
    pub fn upstream(&self, provider: &'static str, failed_with: Option<ErrorKind>, took: Duration) {
        let outcome = failed_with.map_or("ok", class_of);
        self.upstream.get_or_create(&UpstreamLabels { provider, outcome }).observe(took);
    }

    /// Notes a report that a token was refused: whether it took the token out of service, or why it did not.
    pub fn report(&self, invalidated: Result<bool, ErrorKind>) {
        let outcome = match invalidated {
            Ok(true) => "invalidated",
            Ok(false) => "unchanged",
            Err(ErrorKind::TooManyInvalidations) => "storm",
            Err(_) => "failed",
        };
        self.reports.get_or_create(&ReportLabels { outcome }).inc();
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        let durations = "How long calls for a token took in the broker, from the request to the recorded answer";
        registry.register_with_unit("get_token_duration", durations, Unit::Seconds, self.durations.clone());
        let remaining = "How long tokens were still valid when they were handed out";
        registry.register_with_unit("token_remaining_lifetime", remaining, Unit::Seconds, self.remaining.clone());
        let lead =
            "How long a token was still valid when its replacement was there, of those replaced ahead; 0: too late";
        registry.register_with_unit("refresh_lead", lead, Unit::Seconds, self.refresh_lead.clone());
        let upstream = "How long calls of upstreams for a token took";
        registry.register_with_unit("upstream_call_duration", upstream, Unit::Seconds, self.upstream.clone());
        let reports = "Reports of callers that an upstream refused a token";
        registry.register("rejection_reports", reports, self.reports.clone());
        registry.register("waiters", "Callers who wait for a flight", self.waiters.clone());
        registry.register("watch_streams", "Streams of watchers that are open", self.watch_streams.clone());
    }
}

/// What a failure of an upstream says of it, in few words.
fn class_of(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::UpstreamThrottled => "throttled",
        ErrorKind::UpstreamSlow => "slow",
        ErrorKind::UpstreamDown => "failed",
        // What a person has to mend.
        kind if kind.is_permanent() => "refused",
        _ => "other",
    }
}
