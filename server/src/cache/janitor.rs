//! Deletes from the store what is of no more use.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::TokenCache;

/// How long events, and rows that never had a token, are kept.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// How often it is looked.
const EVERY: Duration = Duration::from_secs(3600);

/// The worker.
#[derive(Debug)]
pub struct Janitor {
    cache: Arc<TokenCache>,
    audit_kept: Option<Duration>,
}

impl Janitor {
    /// Keeps the store of `cache` tidy; audit events go after `audit_kept`, if any.
    #[must_use]
    pub fn new(cache: Arc<TokenCache>, audit_kept: Option<Duration>) -> Self {
        Self { cache, audit_kept }
    }

    /// Runs until it is told to stop.
    pub async fn run(self, stop: CancellationToken) {
        while timeout(EVERY, stop.cancelled()).await.is_err() {
            let (store, now) = (&self.cache.parts.store, self.cache.now());
            match store.prune(now.before(KEPT)).await {
                Ok(0) => {}
                Ok(rows) => info!(rows, "old rows deleted from the store"),
                Err(error) => debug!(%error, "old rows are deleted later"),
            }
            let Some(kept) = self.audit_kept else { continue };
            match store.prune_audit(now.before(kept)).await {
                Ok(0) => {}
                Ok(rows) => info!(rows, "old audit events deleted from the store"),
                Err(error) => debug!(%error, "old audit events are deleted later"),
            }
        }
    }
}
