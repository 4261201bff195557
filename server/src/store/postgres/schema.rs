//! Brings the schema up to date.

use sqlx::{Connection as _, PgConnection, PgPool, migrate::Migrator, postgres::PgConnectOptions, query_as, raw_sql};

use super::{error::PgStoreError, queries, transaction::PgTransaction};

/// Runs the migrations that are missing.
///
/// A schema that is up to date is only read: so the server itself may have a role that owns no table, where an operator
/// runs `tokencached migrate` with another one.
pub(super) async fn prepare(pool: &PgPool, connect: &PgConnectOptions) -> Result<(), PgStoreError> {
    let mut migrator = sqlx::migrate!("../migrations/postgres");
    if is_current(pool, &migrator).await? {
        return Ok(());
    }
    // Its lock is one of the session and would outlive this behind a pooler; ours ends with the transaction.
    migrator.set_locking(false);
    migrate(connect, &migrator).await
}

async fn is_current(pool: &PgPool, migrator: &Migrator) -> Result<bool, PgStoreError> {
    let mut tx = PgTransaction::begin(pool).await?;
    let (exists,): (bool,) = query_as(queries::HAS_SCHEMA).persistent(false).fetch_one(&mut *tx).await?;
    let mut applied: Vec<(i64, Vec<u8>)> = vec![];
    if exists {
        applied = query_as(queries::APPLIED).persistent(false).fetch_all(&mut *tx).await?;
    }
    tx.commit().await?;
    let known = migrator.iter().map(|migration| (migration.version, &*migration.checksum));
    Ok(known.eq(applied.iter().map(|(version, checksum)| (*version, checksum.as_slice()))))
}

/// In one transaction on a connection of its own, which is closed afterwards together with what sqlx's migrator prepared
/// on it.
async fn migrate(connect: &PgConnectOptions, migrator: &Migrator) -> Result<(), PgStoreError> {
    let mut connection = PgConnection::connect_with(connect).await?;
    // Known to sqlx: its migrator begins a transaction for each migration, and would end ours with the first.
    let mut tx = connection.begin_with(queries::BEGIN_MIGRATION).await?;
    raw_sql(queries::LOCK_MIGRATIONS).execute(&mut *tx).await?;
    migrator.run_direct(None, &mut *tx, false).await?;
    raw_sql(queries::FORGET_STATEMENTS).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(connection.close().await?)
}
