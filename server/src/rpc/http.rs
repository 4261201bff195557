//! Metrics and health over HTTP, for scrapers and load balancers.

use std::sync::Arc;

use axum::{Router, extract::State, routing::get};
use http::{StatusCode, header::CONTENT_TYPE};
use prometheus_client::registry::Registry;

use crate::{lifecycle::Readiness, metrics};

/// The media type of OpenMetrics 1.0.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// `/metrics`; `/healthz`: the process lives; `/readyz`: callers are to come here.
pub fn routes(registry: Arc<Registry>, readiness: Readiness) -> Router {
    Router::new()
        .route(
            "/metrics",
            get(async |State(r): State<Arc<Registry>>| ([(CONTENT_TYPE, OPENMETRICS)], metrics::render(&r))),
        )
        .with_state(registry)
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(async move || ready(&readiness)))
}

fn ready(readiness: &Readiness) -> (StatusCode, &'static str) {
    if readiness.is_serving() { (StatusCode::OK, "ready\n") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready\n") }
}
