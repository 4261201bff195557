//! The statements about API keys that both dialects understand, and their rows. Times are milliseconds on the way.

use sqlx::FromRow;

use super::rows::BadRow;
use crate::{store::ApiKey, time::Timestamp};

/// A row of `api_keys`, with its times in milliseconds.
#[derive(FromRow)]
pub(in crate::store) struct ApiKeyColumns {
    id: String,
    name: String,
    hash: Vec<u8>,
    created_at: i64,
    expires_at: Option<i64>,
    revoked_at: Option<i64>,
    last_used_at: Option<i64>,
}

impl TryFrom<ApiKeyColumns> for ApiKey {
    type Error = BadRow;

    fn try_from(row: ApiKeyColumns) -> Result<Self, BadRow> {
        Ok(Self {
            id: row.id,
            name: row.name,
            hash: row.hash.try_into().map_err(|_| BadRow::of("hash"))?,
            created_at: Timestamp::from_millis(row.created_at),
            expires_at: row.expires_at.map(Timestamp::from_millis),
            revoked_at: row.revoked_at.map(Timestamp::from_millis),
            last_used_at: row.last_used_at.map(Timestamp::from_millis),
        })
    }
}
