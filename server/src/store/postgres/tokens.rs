//! Tokens in the tables: read by key, replaced by the next generation, rejected, each with its event.

use super::{PgTokenStore, error::PgStoreError, events::Appended, query, query_as, transaction::PgTransaction};
use crate::{
    store::{
        Commit, Committed, EventKind, Fence, Rejected, TokenRow,
        sql::{
            self,
            rows::{TokenColumns, json, json_of, readable, signed},
        },
    },
    types::{CredentialName, Generation, KeyHash},
};

impl PgTokenStore {
    pub(super) async fn try_scan(&self, after: &[u8], limit: u32) -> Result<Vec<TokenRow>, PgStoreError> {
        let mut after = after.to_vec();
        loop {
            let mut tx = self.begin_inspecting().await?;
            let page = query_as!(self, sql::SCAN, &after[..], i64::from(limit));
            let page: Vec<TokenColumns> = page.fetch_all(&mut *tx).await?;
            tx.commit().await?;
            // An empty page would say that there is no more.
            let next = page.last().filter(|_| page.len() >= limit as usize).map(|last| last.key_hash.clone());
            match (readable(page), next) {
                (rows, Some(next)) if rows.is_empty() => after = next,
                (rows, _) => return Ok(rows),
            }
        }
    }

    pub(super) async fn try_rows_of(
        &self,
        credential: &CredentialName,
        limit: u32,
    ) -> Result<Vec<TokenRow>, PgStoreError> {
        let mut tx = self.begin_inspecting().await?;
        let rows = query_as!(self, sql::ROWS_OF, credential.as_str(), i64::from(limit));
        let rows: Vec<TokenColumns> = rows.fetch_all(&mut *tx).await?;
        tx.commit().await?;
        Ok(readable(rows))
    }

    pub(super) async fn try_load(&self, key: KeyHash) -> Result<Option<TokenRow>, PgStoreError> {
        let mut tx = self.begin_reading().await?;
        let row: Option<TokenColumns> =
            query_as!(self, sql::LOAD, &key.as_bytes()[..]).fetch_optional(&mut *tx).await?;
        tx.commit().await?;
        Ok(row.map(TokenRow::try_from).transpose()?)
    }

    pub(super) async fn commit_token(
        &self,
        tx: &mut PgTransaction,
        commit: &Commit,
    ) -> Result<(Committed, Option<Appended>), PgStoreError> {
        let Commit { key, token, fence, config, last_used_at, .. } = commit;
        let (hash, selector) = (key.hash(), key.selector());
        let insert = query!(
            self,
            sql::COMMIT_TOKEN,
            &hash.as_bytes()[..],
            key.credential().as_str(),
            json(selector.scopes()),
            selector.audience(),
            json(selector.resources()),
            signed(token.generation.get()),
            token.access_token.expose().as_bytes(),
            token.terms.token_type(),
            token.issued_at.as_millis(),
            token.expires_at.as_millis(),
            token.refresh_at.as_millis(),
            json(token.terms.scopes()),
            json_of(token.terms.attributes()),
            token.fingerprint.to_string(),
            config.to_string(),
            last_used_at.as_millis(),
            *fence == Fence::Above,
        );
        if insert.execute(&mut **tx).await?.rows_affected() == 1 {
            let event = self.append_event(tx, EventKind::Committed, hash, token.generation).await?;
            return Ok((Committed::Stored, Some(event)));
        }
        let (generation, fingerprint) = (signed(token.generation.get()), token.fingerprint.to_string());
        let stored = query!(self, sql::IS_STORED, &hash.as_bytes()[..], generation, fingerprint);
        if stored.fetch_optional(&mut **tx).await?.is_none() {
            return Ok((Committed::Superseded, None));
        }
        // The answer to the commit was lost, and nobody knows how long it took.
        let event = if self.commit_is_young(tx, hash, token.generation).await? {
            None
        } else {
            Some(self.append_event(tx, EventKind::Committed, hash, token.generation).await?)
        };
        Ok((Committed::Stored, event))
    }

    /// A report on what was rejected already is told the event of that; one that may have been overlooked is repeated.
    pub(super) async fn try_reject(&self, key: KeyHash, generation: Generation) -> Result<Rejected, PgStoreError> {
        let mut tx = self.begin().await?;
        let hash = &key.as_bytes()[..];
        let (mut invalidated, known) = (false, generation > Generation::NONE);
        if known {
            let reject = query!(self, sql::REJECT, hash, signed(generation.get()), signed(generation.next().get()));
            invalidated = reject.execute(&mut *tx).await?.rows_affected() == 1;
        }
        let floor: Option<(i64, i64, i64)> = query_as!(self, sql::FLOOR, hash).fetch_optional(&mut *tx).await?;
        let (floor, last, mut event) = floor.unwrap_or_default();
        let repeated = !invalidated && known && signed(generation.get()) < floor;
        if invalidated || (repeated && !self.is_young(&mut tx, event).await?) {
            let appended = self.append_event(&mut tx, EventKind::Rejected, key, generation).await?;
            event = self.commit_event(tx, appended).await?;
        } else {
            tx.commit().await?;
        }
        let generation = |number| Generation::new(u64::try_from(number).unwrap_or(0));
        let event = u64::try_from(event).unwrap_or(0);
        Ok(Rejected { invalidated, min_generation: generation(floor), generation: generation(last), event })
    }
}
