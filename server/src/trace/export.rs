//! Sending spans to a collector over OTLP. Nothing waits for it: what finds no room, and what the collector does not take,
//! is lost and counted.

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{
        BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider, SpanData, SpanExporter as ExportSpans,
    },
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use tracing::{info, warn};
use url::Url;

use super::TraceError;

/// How long the collector may take for one batch.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long the end of the process may be held up by the last one.
pub(super) const LAST_BATCH: Duration = Duration::from_secs(2);

/// How long spans are gathered.
const GATHER: Duration = Duration::from_secs(1);

/// How many spans may wait; 8 MiB or so.
const ROOM: usize = 8192;

/// Where spans are sent, and which.
#[derive(Clone, Debug, PartialEq)]
pub struct Collector {
    /// Its URL, `http` or `https`.
    pub endpoint: Url,
    /// Which share of the traces that begin here is recorded, from 0 to 1.
    pub sample_ratio: f64,
    /// What this service is called.
    pub service_name: String,
    /// What this replica is called.
    pub replica: String,
}

/// What became of spans.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

/// The counters of spans. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SpanMetrics {
    spans: Family<OutcomeLabels, Counter>,
    sent: Counter,
    failed: Counter,
}

impl Default for SpanMetrics {
    fn default() -> Self {
        let spans: Family<OutcomeLabels, Counter> = Family::default();
        let of = |outcome| spans.get_or_create_owned(&OutcomeLabels { outcome });
        let (sent, failed) = (of("sent"), of("failed"));
        Self { spans, sent, failed }
    }
}

impl SpanMetrics {
    /// Has them shown.
    pub fn register(&self, registry: &mut Registry) {
        let help = "Spans by what became of them: the collector took them, or did not";
        registry.register("tokencache_spans", help, self.spans.clone());
    }
}

/// What makes spans and sends them.
pub(super) fn provider(collector: &Collector, metrics: SpanMetrics) -> Result<SdkTracerProvider, TraceError> {
    let wrong = |error: ExporterBuildError| TraceError(error.to_string());
    let builder =
        SpanExporter::builder().with_tonic().with_endpoint(collector.endpoint.as_str()).with_timeout(PATIENCE);
    let exporter = Counting { inner: builder.build().map_err(wrong)?, metrics, down: false.into() };
    let gathering = BatchConfigBuilder::default().with_max_queue_size(ROOM).with_scheduled_delay(GATHER).build();
    let processor = BatchSpanProcessor::builder(exporter).with_batch_config(gathering).build();
    let resource = Resource::builder_empty().with_service_name(collector.service_name.clone()).with_attributes([
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", collector.replica.clone()),
    ]);
    let provider = SdkTracerProvider::builder()
        // Who is recorded was decided before the span was made.
        .with_sampler(Sampler::AlwaysOn)
        .with_span_processor(processor)
        .with_resource(resource.build());
    Ok(provider.build())
}

/// Counts what is sent, and says once when the collector goes away and when it comes back.
#[derive(Debug)]
struct Counting {
    inner: SpanExporter,
    metrics: SpanMetrics,
    down: std::sync::atomic::AtomicBool,
}

impl ExportSpans for Counting {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len() as u64;
        let result = self.inner.export(batch).await;
        let counter = if result.is_ok() { &self.metrics.sent } else { &self.metrics.failed };
        counter.inc_by(count);
        let was_down = self.down.swap(result.is_err(), std::sync::atomic::Ordering::Relaxed);
        match (&result, was_down) {
            (Err(error), false) => warn!(%error, "the collector takes no spans; they are lost until it does"),
            (Ok(()), true) => info!("the collector takes spans again"),
            _ => {}
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}
