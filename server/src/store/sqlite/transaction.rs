//! Short transactions, retried where another process was in the way.

use std::time::Duration;

use super::error::SqliteStoreError;
use crate::error::{Error, Result};

const ATTEMPTS: u32 = 3;

/// The pause before the first retry; it doubles.
const PAUSE: Duration = Duration::from_millis(10);

/// Runs the transaction `name` until no other process is in its way, a bounded number of times.
pub(super) async fn retried<T, F>(name: &'static str, run: impl Fn() -> F + Send) -> Result<T>
where
    F: Future<Output = Result<T, SqliteStoreError>> + Send,
{
    attempts(name, run).await.map_err(Error::from)
}

pub(super) async fn attempts<T, F>(name: &'static str, run: impl Fn() -> F + Send) -> Result<T, SqliteStoreError>
where
    F: Future<Output = Result<T, SqliteStoreError>> + Send,
{
    let mut pause = PAUSE;
    for _ in 1..ATTEMPTS {
        match run().await {
            Err(error) if error.is_conflict() => tracing::debug!(transaction = name, %error, "conflict, trying again"),
            done => return done,
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    run().await
}
