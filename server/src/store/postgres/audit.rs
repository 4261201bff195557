//! Audit events in their table.

use super::{PgTokenStore, error::PgStoreError, queries, query, query_as};
use crate::store::{
    AuditFilter, AuditRow,
    sql::{
        self,
        rows::{AuditColumns, all, signed},
        schema::Access,
    },
};

impl PgTokenStore {
    /// On the connections of operators: a burst of events does not hold up refreshes.
    pub(super) async fn try_append_audit(&self, rows: &[AuditRow]) -> Result<(), PgStoreError> {
        let texts = |column: fn(&AuditRow) -> &String| rows.iter().map(column).cloned().collect::<Vec<_>>();
        let mut tx = self.begin_on(&self.admin, Access::Write).await?;
        let insert = query!(
            self,
            queries::APPEND_AUDIT,
            texts(|row| &row.chain),
            rows.iter().map(|row| signed(row.sequence)).collect::<Vec<_>>(),
            rows.iter().map(|row| row.at.as_millis()).collect::<Vec<_>>(),
            texts(|row| &row.kind),
            texts(|row| &row.subject),
            texts(|row| &row.credential),
            texts(|row| &row.line),
        );
        insert.execute(&mut *tx).await?;
        tx.commit().await
    }

    pub(super) async fn try_audit_events(
        &self,
        after: u64,
        filter: &AuditFilter,
        limit: u32,
    ) -> Result<Vec<AuditRow>, PgStoreError> {
        let mut tx = self.begin_inspecting().await?;
        let rows = query_as!(
            self,
            sql::AUDIT_EVENTS,
            signed(after),
            filter.from.as_millis(),
            filter.until.as_millis(),
            filter.subject.as_str(),
            filter.credential.as_str(),
            filter.kind.as_str(),
            i64::from(limit),
        );
        let rows: Vec<AuditColumns> = rows.fetch_all(&mut *tx).await?;
        tx.commit().await?;
        Ok(all(rows)?)
    }

    pub(super) async fn try_prune_audit(&self, before: i64) -> Result<u64, PgStoreError> {
        self.try_prune(sql::PRUNE_AUDIT, before).await
    }
}
