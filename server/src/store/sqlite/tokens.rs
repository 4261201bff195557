//! Tokens in the tables: read by key, replaced by the next generation, rejected, each with its event.

use super::{SqliteTokenStore, SqliteTransaction, error::SqliteStoreError, queries, query, query_as};
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

impl SqliteTokenStore {
    pub(super) async fn try_scan(&self, after: &[u8], limit: u32) -> Result<Vec<TokenRow>, SqliteStoreError> {
        let mut after = after.to_vec();
        loop {
            let page = query_as!(sql::SCAN, &after[..], i64::from(limit));
            let page: Vec<TokenColumns> = page.fetch_all(&self.readers).await?;
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
    ) -> Result<Vec<TokenRow>, SqliteStoreError> {
        let rows = query_as!(sql::ROWS_OF, credential.as_str(), i64::from(limit));
        let rows: Vec<TokenColumns> = rows.fetch_all(&self.readers).await?;
        Ok(readable(rows))
    }

    pub(super) async fn try_load(&self, key: KeyHash) -> Result<Option<TokenRow>, SqliteStoreError> {
        let row: Option<TokenColumns> = query_as!(sql::LOAD, &key.as_bytes()[..]).fetch_optional(&self.readers).await?;
        Ok(row.map(TokenRow::try_from).transpose()?)
    }

    pub(super) async fn commit_token(
        tx: &mut SqliteTransaction,
        commit: &Commit,
    ) -> Result<Committed, SqliteStoreError> {
        let Commit { key, token, fence, config, last_used_at, .. } = commit;
        let (hash, selector) = (key.hash(), key.selector());
        let insert = query!(
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
            Self::append_event(tx, EventKind::Committed, hash, token.generation).await?;
            return Ok(Committed::Stored);
        }
        let (generation, fingerprint) = (signed(token.generation.get()), token.fingerprint.to_string());
        let stored = query!(sql::IS_STORED, &hash.as_bytes()[..], generation, fingerprint);
        let stored = stored.fetch_optional(&mut **tx).await?.is_some();
        Ok(if stored { Committed::Stored } else { Committed::Superseded })
    }

    pub(super) async fn append_event(
        tx: &mut SqliteTransaction,
        kind: EventKind,
        key: KeyHash,
        generation: Generation,
    ) -> Result<i64, SqliteStoreError> {
        let event = query_as!(queries::APPEND_EVENT, kind.as_text(), &key.as_bytes()[..], signed(generation.get()));
        let (id,): (i64,) = event.fetch_one(&mut **tx).await?;
        Ok(id)
    }

    pub(super) async fn try_reject(&self, key: KeyHash, generation: Generation) -> Result<Rejected, SqliteStoreError> {
        let mut tx = self.begin().await?;
        let (hash, floor) = (&key.as_bytes()[..], signed(generation.next().get()));
        let mut invalidated = false;
        if generation > Generation::NONE {
            let reject = query!(sql::REJECT, hash, signed(generation.get()), floor);
            invalidated = reject.execute(&mut *tx).await?.rows_affected() == 1;
        }
        if invalidated {
            let event = Self::append_event(&mut tx, EventKind::Rejected, key, generation).await?;
            query!(sql::SET_REJECT_EVENT, hash, event).execute(&mut *tx).await?;
        }
        let floor: Option<(i64, i64, i64)> = query_as!(sql::FLOOR, hash).fetch_optional(&mut *tx).await?;
        tx.commit().await?;
        let (floor, last, event) = floor.unwrap_or_default();
        let generation = |number| Generation::new(u64::try_from(number).unwrap_or(0));
        let event = u64::try_from(event).unwrap_or(0);
        Ok(Rejected { invalidated, min_generation: generation(floor), generation: generation(last), event })
    }
}
