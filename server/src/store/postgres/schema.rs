//! Brings the schema up to date, as far as that is not the business of another version of this program.

use sqlx::{
    Connection as _, PgConnection,
    migrate::{Migration, Migrator},
    query_as, raw_sql,
};

use super::{error::PgStoreError, pool::Pool, queries, route::Route, transaction::PgTransaction};
use crate::store::sql::schema::{Applied, Bounds, Fit, compare, newest};

/// What this program knows of the schema.
#[derive(Debug)]
pub(super) struct Schema {
    migrator: Migrator,
    newest: i64,
}

impl Schema {
    /// All migrations of this program.
    pub(super) fn of_this_program() -> Self {
        Self::of(sqlx::migrate!("../migrations/postgres"))
    }

    pub(super) fn of(mut migrator: Migrator) -> Self {
        // Its lock is one of the session and would outlive this behind a pooler; ours ends with the transaction.
        migrator.set_locking(false);
        let newest = newest(&known(&migrator));
        Self { migrator, newest }
    }

    /// The newest version.
    pub(super) fn newest(&self) -> i64 {
        self.newest
    }

    /// Runs the migrations that are missing, unless that cuts off replicas that live; `force` does it even so.
    ///
    /// A schema that is up to date is only read: so the server itself may have a role that owns no table, where an operator
    /// runs `tokencached migrate` with another one.
    pub(super) async fn prepare(&self, pool: &Pool, route: &Route, force: bool) -> Result<(), PgStoreError> {
        let mut tx = PgTransaction::begin(pool, None).await?;
        let fit = self.look(&mut tx).await?;
        tx.commit().await?;
        match fit {
            Fit::Current => Ok(()),
            Fit::Behind => self.migrate(route.connect().await?, force).await,
        }
    }

    /// In one transaction on a connection of its own, which is closed afterwards together with what sqlx's migrator
    /// prepared on it.
    async fn migrate(&self, mut connection: PgConnection, force: bool) -> Result<(), PgStoreError> {
        // sqlx has to know of it: it would begin and commit one for each migration otherwise, and end this one with the first.
        let mut tx = connection.begin_with(queries::BEGIN_MIGRATION).await?;
        raw_sql(queries::LOCK_MIGRATIONS).execute(&mut *tx).await?;
        // Again: a newer program may have had the lock meanwhile.
        if self.look(&mut tx).await? == Fit::Behind {
            self.migrator.run_direct(None, &mut *tx, false).await?;
            if !force {
                refuse_to_cut_off(&mut tx).await?;
            }
        }
        raw_sql(queries::FORGET_STATEMENTS).execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(connection.close().await?)
    }

    async fn look(&self, connection: &mut PgConnection) -> Result<Fit, PgStoreError> {
        let (mut applied, mut bounds): (Vec<Applied>, Option<Bounds>) = (vec![], None);
        if exists(connection, queries::HAS_SCHEMA).await? {
            applied = query_as(queries::APPLIED).persistent(false).fetch_all(&mut *connection).await?;
        }
        if exists(connection, queries::HAS_BOUNDS).await? {
            bounds = query_as(queries::BOUNDS).persistent(false).fetch_optional(&mut *connection).await?;
        }
        Ok(compare(&known(&self.migrator), &applied, bounds)?)
    }
}

fn known(migrator: &Migrator) -> Vec<(i64, &[u8])> {
    migrator.iter().map(|Migration { version, checksum, .. }| (*version, &**checksum)).collect()
}

async fn exists(connection: &mut PgConnection, sql: &'static str) -> Result<bool, PgStoreError> {
    let (exists,): (bool,) = query_as(sql).persistent(false).fetch_one(connection).await?;
    Ok(exists)
}

/// Replicas that could not write any more are left the schema that they know: what was run is rolled back.
async fn refuse_to_cut_off(connection: &mut PgConnection) -> Result<(), PgStoreError> {
    let older: Vec<(String, i64)> = query_as(queries::OLDER_REPLICAS).persistent(false).fetch_all(connection).await?;
    let Some(known) = older.iter().map(|(_, known)| *known).min() else { return Ok(()) };
    let replicas = older.into_iter().map(|(id, _)| id).collect::<Vec<_>>().join(", ");
    Err(PgStoreError::OlderReplicas { replicas, known })
}
