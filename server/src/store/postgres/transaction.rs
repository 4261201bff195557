//! Short transactions: limited in time, retried where another one was in the way, and never handed back half done.
//!
//! The round trip that begins one also finds out whether it may be: on a server that takes no writes it may not, not even
//! to read, for what a standby shows is old; nor on a schema that has outgrown this program.

use std::{
    ops::{Deref, DerefMut},
    time::Duration,
};

use sqlx::{AssertSqlSafe, PgConnection, RawSql, Row as _, postgres::PgRow, raw_sql};
use tokio::time::timeout;

use super::{
    error::{PgStoreError, ends_the_session, is_read_only},
    pool::{Pool, Pooled},
    queries,
};
use crate::{
    error::{Error, ErrorKind, Result},
    store::sql::schema::{Access, Bounds, Misfit},
};

/// How long an operation takes at most, retries and all. The database has limits of its own, which come first; this one
/// is for a connection that has gone silent.
const LIMIT: Duration = Duration::from_secs(8);

/// How long the beginning of a transaction may take, which waits for nobody: a connection that is silent for longer leads
/// nowhere.
const BEGIN_LIMIT: Duration = Duration::from_secs(2);

const ATTEMPTS: u32 = 6;

/// The pause before the first retry; it doubles.
const PAUSE: Duration = Duration::from_millis(5);

/// A transaction. Dropped before its commit, by an error, a time-out or a cancellation, it closes its connection, for
/// nobody knows what state that is in (sqlx#4393); the database rolls back.
pub(super) struct PgTransaction(Pooled);

/// What a transaction needs of the schema.
#[derive(Clone, Copy, Debug)]
pub(super) struct Need {
    pub(super) access: Access,
    /// The newest version that this program knows.
    pub(super) known: i64,
}

impl PgTransaction {
    /// Begins one that does what `need` says; without it, one that makes do with any schema or none.
    pub(super) async fn begin(pool: &Pool, need: Option<Need>) -> Result<Self, PgStoreError> {
        let mut tx = Self(pool.acquire().await?);
        let sql = if need.is_some() { queries::BEGIN } else { queries::BEGIN_ON_ANY_SCHEMA };
        let rows = without_waiting(pool, &mut tx, raw_sql(sql)).await?;
        admit(pool, rows.last(), need)?;
        Ok(tx)
    }

    /// A whole transaction in one round trip, for what others wait for: begin, one statement without parameters that
    /// waits for nobody, and commit. Returns the statement's rows.
    ///
    /// The statement is done before it is known whether the schema admits it. If it writes, it has to see to that itself,
    /// and to be one that may be done twice, for it is repeated where the answer was lost.
    pub(super) async fn at_once(pool: &Pool, need: Need, statement: &str) -> Result<Vec<PgRow>, PgStoreError> {
        let mut tx = Self(pool.acquire().await?);
        let batch = format!("{}; {statement}; {}", queries::BEGIN, queries::COMMIT);
        let mut rows = without_waiting(pool, &mut tx, raw_sql(AssertSqlSafe(batch))).await?;
        tx.0.give_back();
        admit(pool, rows.first(), Some(need))?;
        rows.remove(0);
        Ok(rows)
    }

    /// Commits, and tells when that was done, in milliseconds by the database's clock.
    pub(super) async fn commit_timed(mut self) -> Result<i64, PgStoreError> {
        let rows = raw_sql(queries::COMMIT_TIMED).fetch_all(&mut *self).await?;
        self.0.give_back();
        Ok(rows.last().ok_or(sqlx::Error::RowNotFound)?.try_get("done_at")?)
    }

    pub(super) async fn commit(mut self) -> Result<(), PgStoreError> {
        raw_sql(queries::COMMIT).execute(&mut *self).await?;
        self.0.give_back();
        Ok(())
    }
}

impl Deref for PgTransaction {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.0
    }
}

impl DerefMut for PgTransaction {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.0
    }
}

/// Makes a round trip in which the database waits for nobody.
async fn without_waiting(pool: &Pool, connection: &mut PgConnection, sql: RawSql) -> Result<Vec<PgRow>, PgStoreError> {
    let error = match timeout(BEGIN_LIMIT, sql.fetch_all(connection)).await {
        Ok(Ok(rows)) => return Ok(rows),
        Ok(Err(error)) if is_read_only(&error) => PgStoreError::ReadOnly,
        Ok(Err(error)) if !ends_the_session(&error) => return Err(error.into()),
        Ok(Err(error)) => PgStoreError::Stale(error),
        Err(_) => PgStoreError::Silent,
    };
    // What ended this connection, or swallows what it says, has hit its fellows, too.
    pool.suspect();
    Err(error)
}

/// Whether the server takes writes, and the schema this program.
fn admit(pool: &Pool, row: Option<&PgRow>, need: Option<Need>) -> Result<(), PgStoreError> {
    let row = row.ok_or(Misfit::Unmarked)?;
    if row.try_get::<&str, _>(0)? != "off" {
        pool.suspect();
        return Err(PgStoreError::ReadOnly);
    }
    if let Some(Need { access, known }) = need {
        Bounds { min_reader: row.try_get(1)?, min_writer: row.try_get(2)? }.admit(access, known)?;
    }
    Ok(())
}

/// Runs the transaction `name` until it is not in another one's way, a bounded number of times.
pub(super) async fn retried<T, F>(name: &'static str, run: impl Fn() -> F + Send) -> Result<T>
where
    F: Future<Output = Result<T, PgStoreError>> + Send,
{
    let attempts = async {
        let mut pause = PAUSE;
        for attempt in 1..ATTEMPTS {
            match run().await {
                Err(error) if error.is_conflict() || (attempt == 1 && error.is_elsewhere()) => {
                    tracing::debug!(transaction = name, %error, "conflict, trying again");
                }
                done => return done,
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        run().await
    };
    match timeout(LIMIT, attempts).await {
        Ok(done) => done.map_err(Error::from),
        Err(_) => Err(Error::new(ErrorKind::StoreDown, "the database does not answer in time")),
    }
}
