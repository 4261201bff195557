//! The secrets in the tables row by row, and how they are kept anew.

use super::{SqliteQuery, SqliteTokenStore, error::SqliteStoreError, query, query_as};
use crate::store::{
    Reseal, SecretCursor, SecretPage, StoredSecrets,
    sql::{
        self,
        rows::signed,
        secrets::{CandidateSecretColumns, GrantSecretColumns, TokenSecretColumns, page},
    },
};

impl SqliteTokenStore {
    pub(super) async fn try_secrets(&self, from: &SecretCursor, limit: u32) -> Result<SecretPage, SqliteStoreError> {
        let most = i64::from(limit);
        let readers = &self.readers;
        Ok(match from {
            SecretCursor::Tokens(after) => {
                let rows = query_as!(sql::TOKEN_SECRETS, &after[..], most).fetch_all(readers).await?;
                page::<TokenSecretColumns>(rows, from, limit)
            }
            SecretCursor::Grants(after) => {
                let rows = query_as!(sql::GRANT_SECRETS, after.as_str(), most).fetch_all(readers).await?;
                page::<GrantSecretColumns>(rows, from, limit)
            }
            SecretCursor::Candidates(after) => {
                let rows = query_as!(sql::CANDIDATE_SECRETS, signed(*after), most).fetch_all(readers).await?;
                page::<CandidateSecretColumns>(rows, from, limit)
            }
        })
    }

    pub(super) async fn try_reseal(&self, changes: &[Reseal]) -> Result<u64, SqliteStoreError> {
        let mut tx = self.begin().await?;
        let mut changed = 0;
        for change in changes {
            if let Some(query) = reseal(change) {
                changed += query.execute(&mut *tx).await?.rows_affected();
            }
        }
        tx.commit().await?;
        Ok(changed)
    }
}

/// The statement of a change. `None`: its two sides are not of one table.
fn reseal(change: &Reseal) -> Option<SqliteQuery<'_>> {
    use StoredSecrets::{Candidate, Grant, Token};
    match (&change.old, &change.new) {
        (Token { key, generation, access_token: old, .. }, Token { access_token, attributes, .. }) => Some(query!(
            sql::RESEAL_TOKEN,
            &key.as_bytes()[..],
            signed(generation.get()),
            old.expose().as_bytes(),
            access_token.expose().as_bytes(),
            attributes.expose().as_bytes(),
        )),
        (
            Grant { credential, version, refresh_token: old, .. },
            Grant { refresh_token, fingerprint, previous, previous_fingerprint, .. },
        ) => Some(query!(
            sql::RESEAL_GRANT,
            credential.as_str(),
            signed(*version),
            old.expose().as_bytes(),
            refresh_token.expose().as_bytes(),
            fingerprint.map(|print| print.to_string()),
            previous.as_ref().map(|previous| previous.expose().as_bytes()),
            previous_fingerprint.map(|print| print.to_string()),
        )),
        (Candidate { id, refresh_token: old, .. }, Candidate { refresh_token, fingerprint, .. }) => Some(query!(
            sql::RESEAL_CANDIDATE,
            signed(*id),
            old.expose().as_bytes(),
            refresh_token.expose().as_bytes(),
            fingerprint.map(|print| print.to_string()),
        )),
        _ => None,
    }
}
