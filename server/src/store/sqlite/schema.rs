//! Compares the schema of a file with what this program knows.

use sqlx::migrate::Migrator;

use super::{SqliteTransaction, error::SqliteStoreError, queries, query_as};
use crate::store::sql::schema::{Applied, Bounds, Fit, compare};

/// Whether migrations are missing; an error where the schema is not one for this program.
pub(super) async fn look(tx: &mut SqliteTransaction, migrator: &Migrator) -> Result<Fit, SqliteStoreError> {
    let tables: Vec<(String,)> = query_as!(queries::SCHEMA_TABLES).fetch_all(&mut **tx).await?;
    let (mut applied, mut bounds): (Vec<Applied>, Option<Bounds>) = (vec![], None);
    if tables.iter().any(|(name,)| name == "_sqlx_migrations") {
        applied = query_as!(queries::APPLIED).fetch_all(&mut **tx).await?;
    }
    if tables.iter().any(|(name,)| name == "schema_versions") {
        bounds = query_as!(queries::BOUNDS).fetch_optional(&mut **tx).await?;
    }
    let known: Vec<_> = migrator.iter().map(|migration| (migration.version, &*migration.checksum)).collect();
    Ok(compare(&known, &applied, bounds)?)
}
