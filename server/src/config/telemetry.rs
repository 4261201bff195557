//! `[telemetry]`: where traces are sent.

use toml::de::DeValue;
use url::Url;

use super::reader::{Section, Value};
use crate::{trace::Collector, types::ReplicaId};

/// Where traces are sent.
#[derive(Clone, Debug, PartialEq)]
pub struct TelemetryConfig {
    /// An OpenTelemetry collector that takes OTLP over gRPC. `None`: nothing is recorded.
    pub otlp_endpoint: Option<Url>,
    /// Which share of the traces that begin here is recorded, from 0 to 1.
    pub sample_ratio: f64,
    /// What this service is called.
    pub service_name: String,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self { otlp_endpoint: None, sample_ratio: 0.01, service_name: "tokencached".into() }
    }
}

impl TelemetryConfig {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let default = Self::default();
        Self {
            otlp_endpoint: section.value("otlp_endpoint").and_then(|value| read_endpoint(&value)),
            sample_ratio: section
                .value("sample_ratio")
                .and_then(|value| read_ratio(&value))
                .unwrap_or(default.sample_ratio),
            service_name: section.string("service_name").unwrap_or(default.service_name),
        }
    }

    /// Where and which spans a replica sends.
    #[must_use]
    pub fn collector(&self, replica: &ReplicaId) -> Option<Collector> {
        Some(Collector {
            endpoint: self.otlp_endpoint.clone()?,
            sample_ratio: self.sample_ratio,
            service_name: self.service_name.clone(),
            replica: replica.as_str().to_owned(),
        })
    }
}

fn read_endpoint(value: &Value<'_>) -> Option<Url> {
    let url = value.url()?;
    if !["http", "https"].contains(&url.scheme()) {
        value.problem("expected http or https, such as \"http://127.0.0.1:4317\": OTLP over gRPC");
        return None;
    }
    Some(url)
}

fn read_ratio(value: &Value<'_>) -> Option<f64> {
    let ratio = match value.get() {
        DeValue::Float(float) => float.as_str().replace('_', "").parse().ok(),
        DeValue::Integer(integer) => integer.as_str().parse().ok(),
        _ => return value.expected("a number from 0 to 1"),
    };
    let ratio = ratio.filter(|ratio| (0.0..=1.0).contains(ratio));
    if ratio.is_none() {
        value.problem("expected a number from 0 to 1");
    }
    ratio
}
