//! What is counted of the store.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::{Registry, Unit},
};

use super::histogram::{DurationHistogram, Of, Scale};
use crate::error::ErrorKind;

/// An operation of the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabels {
    operation: &'static str,
}

/// How an operation of the store failed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailureLabels {
    operation: &'static str,
    reason: &'static str,
}

/// The operations whose failures are shown from the start, at zero: a series that begins at 1 has not risen, for an alert.
const VITAL: [&str; 6] = ["load", "admit", "commit", "reject", "heartbeat", "events"];

/// The counters of the store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct StoreMetrics {
    durations: Family<OperationLabels, DurationHistogram, Of>,
    failures: Family<FailureLabels, Counter>,
}

impl Default for StoreMetrics {
    fn default() -> Self {
        let failures: Family<FailureLabels, Counter> = Family::default();
        for operation in VITAL {
            drop(failures.get_or_create(&FailureLabels { operation, reason: ErrorKind::StoreDown.reason() }));
        }
        Self { durations: Family::new_with_constructor(Of(&Scale::STORE)), failures }
    }
}

impl StoreMetrics {
    /// Counts an operation that took so long, and how it failed.
    pub fn operation(&self, operation: &'static str, took: Duration, failed_with: Option<ErrorKind>) {
        self.durations.get_or_create(&OperationLabels { operation }).observe(took);
        if let Some(reason) = failed_with.map(ErrorKind::reason) {
            self.failures.get_or_create(&FailureLabels { operation, reason }).inc();
        }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "How long operations of the store took, failed ones, too";
        registry.register_with_unit("store_operation_duration", help, Unit::Seconds, self.durations.clone());
        registry.register("store_failures", "Operations of the store that failed", self.failures.clone());
    }
}
