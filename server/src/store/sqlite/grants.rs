//! Grants in the tables: what a credential must not lose.

use super::{SqliteTokenStore, SqliteTransaction, error::SqliteStoreError, queries, query, query_as};
use crate::{
    store::{
        Grant, GrantCandidate, GrantUpdate,
        sql::{
            self,
            rows::{CandidateColumns, GrantColumns, all, signed},
        },
    },
    types::{CredentialName, Fingerprint},
};

impl SqliteTokenStore {
    pub(super) async fn try_load_grant(&self, credential: &CredentialName) -> Result<Option<Grant>, SqliteStoreError> {
        let row = query_as!(queries::LOAD_GRANT, credential.as_str());
        let row: Option<GrantColumns> = row.fetch_optional(&self.readers).await?;
        Ok(row.map(Grant::try_from).transpose()?)
    }

    pub(super) async fn try_candidates(
        &self,
        credential: &CredentialName,
    ) -> Result<Vec<GrantCandidate>, SqliteStoreError> {
        let rows = query_as!(sql::CANDIDATES, credential.as_str());
        let rows: Vec<CandidateColumns> = rows.fetch_all(&self.readers).await?;
        Ok(all(rows)?)
    }

    pub(super) async fn try_advance_grant(
        &self,
        credential: &CredentialName,
        update: &GrantUpdate,
    ) -> Result<bool, SqliteStoreError> {
        let mut tx = self.begin().await?;
        let replaced = Self::keep_grant(&mut tx, credential, update).await?;
        tx.commit().await?;
        Ok(replaced)
    }

    /// Stores a refresh token, come what may: as the grant's (true), or as a candidate.
    pub(super) async fn keep_grant(
        tx: &mut SqliteTransaction,
        credential: &CredentialName,
        update: &GrantUpdate,
    ) -> Result<bool, SqliteStoreError> {
        let (name, base, at) = (credential.as_str(), signed(update.base_version), update.at.as_millis());
        let secret = update.refresh_token.expose().as_bytes();
        let kept = if update.base_version == 0 {
            let seed = Fingerprint::of(&update.refresh_token).to_string();
            query!(sql::INSERT_GRANT, name, secret, seed, at)
        } else {
            query!(sql::ROTATE_GRANT, name, base, secret, at)
        };
        let replaced = kept.execute(&mut **tx).await?.rows_affected() == 1;
        if !replaced {
            query!(sql::INSERT_CANDIDATE, name, base, secret, at).execute(&mut **tx).await?;
        }
        Ok(replaced)
    }
}
