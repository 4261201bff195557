//! API keys in their table.

use super::{SqliteTokenStore, error::SqliteStoreError, queries, query, query_as};
use crate::store::{
    ApiKey,
    sql::{api_keys::ApiKeyColumns, rows::all},
};

impl SqliteTokenStore {
    pub(super) async fn try_api_keys(&self) -> Result<Vec<ApiKey>, SqliteStoreError> {
        let rows: Vec<ApiKeyColumns> = query_as!(queries::API_KEYS,).fetch_all(&self.readers).await?;
        Ok(all(rows)?)
    }

    pub(super) async fn try_add_api_key(&self, key: &ApiKey) -> Result<(), SqliteStoreError> {
        let (created_at, expires_at) = (key.created_at.as_millis(), key.expires_at.map(|end| end.as_millis()));
        let (id, name) = (key.id.as_str(), key.name.as_str());
        self.execute(query!(queries::ADD_API_KEY, id, name, &key.hash[..], created_at, expires_at)).await?;
        Ok(())
    }
}
