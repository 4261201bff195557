//! Audit events in their table.

use super::{PRUNE_BATCH, SqliteTokenStore, error::SqliteStoreError, queries, query, query_as};
use crate::store::{
    AuditFilter, AuditRow,
    sql::{
        self,
        rows::{AuditColumns, all, signed},
    },
};

impl SqliteTokenStore {
    pub(super) async fn try_append_audit(&self, rows: &[AuditRow]) -> Result<(), SqliteStoreError> {
        let mut tx = self.begin().await?;
        for row in rows {
            let insert = query!(
                queries::APPEND_AUDIT,
                row.chain.as_str(),
                signed(row.sequence),
                row.at.as_millis(),
                row.kind.as_str(),
                row.subject.as_str(),
                row.credential.as_str(),
                row.line.as_str(),
            );
            insert.execute(&mut *tx).await?;
        }
        Ok(tx.commit().await?)
    }

    pub(super) async fn try_audit_events(
        &self,
        after: u64,
        filter: &AuditFilter,
        limit: u32,
    ) -> Result<Vec<AuditRow>, SqliteStoreError> {
        let rows = query_as!(
            sql::AUDIT_EVENTS,
            signed(after),
            filter.from.as_millis(),
            filter.until.as_millis(),
            filter.subject.as_str(),
            filter.credential.as_str(),
            filter.kind.as_str(),
            i64::from(limit),
        );
        let rows: Vec<AuditColumns> = rows.fetch_all(&self.readers).await?;
        Ok(all(rows)?)
    }

    pub(super) async fn try_prune_audit(&self, before: i64) -> Result<u64, SqliteStoreError> {
        self.execute(query!(sql::PRUNE_AUDIT, before, PRUNE_BATCH)).await
    }
}
