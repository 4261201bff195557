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
}

impl Janitor {
    /// Keeps the store of `cache` tidy.
    #[must_use]
    pub fn new(cache: Arc<TokenCache>) -> Self {
        Self { cache }
    }

    /// Runs until it is told to stop.
    pub async fn run(self, stop: CancellationToken) {
        while timeout(EVERY, stop.cancelled()).await.is_err() {
            match self.cache.parts.store.prune(self.cache.now().before(KEPT)).await {
                Ok(0) => {}
                Ok(rows) => info!(rows, "old rows deleted from the store"),
                Err(error) => debug!(%error, "old rows are deleted later"),
            }
        }
    }
}
