//! Traces: what a sampled call did, as spans for an OpenTelemetry collector.
//!
//! Whether a call is recorded is decided before anything is made for it: one that is not costs a look at its
//! `traceparent`. Where the work for a recorded call goes on, the span that it belongs to is found in the task
//! ([`Span::around`], [`carry`]), so that stores and providers need not hand it on.
//!
//! No span holds a secret: names of rpcs, operations, credentials and hosts, numbers and reasons of errors.

mod export;
mod sample;
mod span;

use std::sync::Arc;

use opentelemetry::trace::{SpanKind, TracerProvider as _};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use thiserror::Error;

pub use export::{Collector, SpanMetrics};
pub use span::{Child, Span, carry, here};

/// What the spans say that recorded them.
const SCOPE: &str = "tokencached";

/// Why traces cannot be sent.
#[derive(Debug, Error)]
#[error("telemetry.otlp_endpoint: {0}")]
pub struct TraceError(String);

/// Begins traces. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Tracer(Option<Arc<Recorder>>);

#[derive(Debug)]
struct Recorder {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    sampler: sample::Sampler,
}

impl Tracer {
    /// Records nothing.
    #[must_use]
    pub fn off() -> Self {
        Self::default()
    }

    /// Whether nothing is recorded.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.0.is_none()
    }

    /// Sends spans to a collector. Starts the exporter's thread and connects with the first span; needs a tokio runtime.
    ///
    /// # Errors
    ///
    /// If the settings cannot be used. That nobody listens there is none.
    pub fn to(collector: &Collector, seed: u64, metrics: SpanMetrics) -> Result<Self, TraceError> {
        let provider = export::provider(collector, metrics)?;
        let tracer = provider.tracer(SCOPE);
        let sampler = sample::Sampler::new(collector.sample_ratio, seed);
        Ok(Self(Some(Arc::new(Recorder { provider, tracer, sampler }))))
    }

    /// The span of a call with this `traceparent`, if it is to be recorded: as its caller says, or, if that says nothing,
    /// by chance.
    #[must_use]
    pub fn of_call(&self, traceparent: Option<&[u8]>, name: impl FnOnce() -> String) -> Option<Span> {
        let recorder = self.0.as_deref()?;
        let parent = match traceparent {
            Some(header) => match sample::Parent::read(header) {
                sample::Parent::Unsampled => return None,
                sample::Parent::Sampled(context) => Some(context),
                // What cannot be read is not there (W3C Trace Context section 4.3).
                sample::Parent::Invalid => None,
            },
            None => None,
        };
        if parent.is_none() && !recorder.sampler.chance() {
            return None;
        }
        Some(Span::begin(&recorder.tracer, parent, name(), SpanKind::Server))
    }

    /// The span of work that goes on in the background: part of the trace that the task belongs to, or, if it belongs to
    /// none, by chance the first of a new one.
    #[must_use]
    pub fn of_work(&self, name: &'static str) -> Option<Span> {
        let recorder = self.0.as_deref()?;
        match here() {
            Some(child) => Some(child.begin(name, SpanKind::Internal)),
            None => recorder.sampler.chance().then(|| Span::begin(&recorder.tracer, None, name, SpanKind::Internal)),
        }
    }

    /// Sends what there is, for at most as long as the exporter takes for one batch. Blocks.
    pub fn finish(&self) {
        if let Some(recorder) = &self.0 {
            // What could not be sent was counted.
            let _ = recorder.provider.shutdown_with_timeout(export::LAST_BATCH);
        }
    }
}
