//! Short transactions: limited in time, retried where another one was in the way, and never handed back half done.

use std::{
    ops::{Deref, DerefMut},
    time::Duration,
};

use sqlx::{PgConnection, PgPool, Postgres, pool::PoolConnection, raw_sql};

use super::{error::PgStoreError, queries};
use crate::error::{Error, ErrorKind, Result};

/// How long an operation takes at most, retries and all. The database has limits of its own, which come first; this one
/// is for a connection that has gone silent.
const LIMIT: Duration = Duration::from_secs(8);

const ATTEMPTS: u32 = 6;

/// The pause before the first retry; it doubles.
const PAUSE: Duration = Duration::from_millis(5);

/// A transaction. Dropped before its commit, by an error, a time-out or a cancellation, it closes its connection, for
/// nobody knows what state that is in (sqlx#4393); the database rolls back.
pub(super) struct PgTransaction {
    connection: PoolConnection<Postgres>,
    committed: bool,
}

impl PgTransaction {
    pub(super) async fn begin(pool: &PgPool) -> Result<Self, PgStoreError> {
        let mut transaction = Self { connection: pool.acquire().await?, committed: false };
        match raw_sql(queries::BEGIN).execute(&mut *transaction).await {
            Ok(_) => Ok(transaction),
            Err(error) => Err(PgStoreError::Stale(error)),
        }
    }

    pub(super) async fn commit(mut self) -> Result<(), PgStoreError> {
        raw_sql(queries::COMMIT).execute(&mut *self).await?;
        self.committed = true;
        Ok(())
    }
}

impl Deref for PgTransaction {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for PgTransaction {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

impl Drop for PgTransaction {
    fn drop(&mut self) {
        if !self.committed {
            self.connection.close_on_drop();
        }
    }
}

/// Runs the transaction `name` until it is not in another one's way, a bounded number of times.
pub(super) async fn retried<T, F>(name: &'static str, run: impl Fn() -> F + Send) -> Result<T>
where
    F: Future<Output = Result<T, PgStoreError>> + Send,
{
    let attempts = async {
        let mut pause = PAUSE;
        for _ in 1..ATTEMPTS {
            match run().await {
                Err(error) if error.is_conflict() => {
                    tracing::debug!(transaction = name, %error, "conflict, trying again");
                }
                done => return done,
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        run().await
    };
    match tokio::time::timeout(LIMIT, attempts).await {
        Ok(done) => done.map_err(Error::from),
        Err(_) => Err(Error::new(ErrorKind::StoreDown, "the database does not answer in time")),
    }
}
