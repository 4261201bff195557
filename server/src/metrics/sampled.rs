//! Gauges that are looked at when somebody scrapes, and guards that count what is under way.

use std::{fmt, sync::Arc};

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder},
    metrics::{MetricType, gauge::Gauge},
    registry::Registry,
};

/// A gauge whose value is asked for when it is scraped: nobody has to keep it up to date.
pub struct Sampled(Arc<dyn Fn() -> u64 + Send + Sync>);

impl Sampled {
    /// Registers what `look` sees. It is called on every scrape and must not wait.
    pub fn register(registry: &mut Registry, name: &str, help: &str, look: impl Fn() -> u64 + Send + Sync + 'static) {
        registry.register(name, help, Self(Arc::new(look)));
    }
}

impl fmt::Debug for Sampled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sampled").field(&(self.0)()).finish()
    }
}

impl EncodeMetric for Sampled {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        encoder.encode_gauge(&(self.0)())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}

/// One that is counted by a gauge until it is dropped.
#[derive(Debug)]
#[must_use = "it is counted for as long as this lives"]
pub struct Counted(Gauge);

impl Counted {
    /// Counts one more.
    pub fn by(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}
