//! API keys in their table.

use super::{PgTokenStore, error::PgStoreError, query, query_as};
use crate::store::{
    ApiKey,
    sql::{api_keys::ApiKeyColumns, rows::all},
};

const API_KEYS: &str = "\
    SELECT id, name, hash, (extract(epoch FROM created_at) * 1000)::bigint AS created_at, \
        (extract(epoch FROM expires_at) * 1000)::bigint AS expires_at, \
        (extract(epoch FROM revoked_at) * 1000)::bigint AS revoked_at, \
        (extract(epoch FROM last_used_at) * 1000)::bigint AS last_used_at \
    FROM api_keys ORDER BY created_at, id";

const ADD_API_KEY: &str = "\
    INSERT INTO api_keys (id, name, hash, created_at, expires_at) \
    VALUES ($1, $2, $3, 'epoch'::timestamptz + $4 * interval '1 millisecond', 'epoch'::timestamptz + $5 * interval '1 millisecond')";

pub(super) const REVOKE_API_KEY: &str = "UPDATE api_keys SET revoked_at = coalesce(revoked_at, 'epoch'::timestamptz + $2 * interval '1 millisecond') WHERE id = $1";

pub(super) const NOTE_API_KEY_USE: &str = "\
    UPDATE api_keys SET last_used_at = 'epoch'::timestamptz + $2 * interval '1 millisecond' \
    WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < 'epoch'::timestamptz + $2 * interval '1 millisecond')";

impl PgTokenStore {
    pub(super) async fn try_api_keys(&self) -> Result<Vec<ApiKey>, PgStoreError> {
        let mut tx = self.begin().await?;
        let rows: Vec<ApiKeyColumns> = query_as!(self, API_KEYS,).fetch_all(&mut *tx).await?;
        tx.commit().await?;
        Ok(all(rows)?)
    }

    pub(super) async fn try_add_api_key(&self, key: &ApiKey) -> Result<(), PgStoreError> {
        let (created_at, expires_at) = (key.created_at.as_millis(), key.expires_at.map(|end| end.as_millis()));
        let (id, name) = (key.id.as_str(), key.name.as_str());
        self.execute(query!(self, ADD_API_KEY, id, name, &key.hash[..], created_at, expires_at)).await?;
        Ok(())
    }
}
