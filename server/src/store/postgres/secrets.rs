//! The secrets in the tables row by row, and how they are kept anew.

use super::{PgQuery, PgTokenStore, error::PgStoreError, query, query_as};
use crate::store::{
    Reseal, SecretCursor, SecretPage, StoredSecrets,
    sql::{
        self,
        rows::signed,
        secrets::{CandidateSecretColumns, GrantSecretColumns, TokenSecretColumns, page},
    },
};

impl PgTokenStore {
    pub(super) async fn try_secrets(&self, from: &SecretCursor, limit: u32) -> Result<SecretPage, PgStoreError> {
        let most = i64::from(limit);
        let mut tx = self.begin_inspecting().await?;
        let page = match from {
            SecretCursor::Tokens(after) => {
                let rows = query_as!(self, sql::TOKEN_SECRETS, &after[..], most).fetch_all(&mut *tx).await?;
                page::<TokenSecretColumns>(rows, from, limit)
            }
            SecretCursor::Grants(after) => {
                let rows = query_as!(self, sql::GRANT_SECRETS, after.as_str(), most).fetch_all(&mut *tx).await?;
                page::<GrantSecretColumns>(rows, from, limit)
            }
            SecretCursor::Candidates(after) => {
                let rows = query_as!(self, sql::CANDIDATE_SECRETS, signed(*after), most).fetch_all(&mut *tx).await?;
                page::<CandidateSecretColumns>(rows, from, limit)
            }
        };
        tx.commit().await?;
        Ok(page)
    }

    pub(super) async fn try_reseal(&self, changes: &[Reseal]) -> Result<u64, PgStoreError> {
        let mut tx = self.begin().await?;
        let mut changed = 0;
        for change in changes {
            if let Some(query) = reseal(self, change) {
                changed += query.execute(&mut *tx).await?.rows_affected();
            }
        }
        tx.commit().await?;
        Ok(changed)
    }
}

/// The statement of a change. `None`: its two sides are not of one table.
fn reseal<'a>(store: &PgTokenStore, change: &'a Reseal) -> Option<PgQuery<'a>> {
    use StoredSecrets::{Candidate, Grant, Token};
    match (&change.old, &change.new) {
        (Token { key, generation, access_token: old, .. }, Token { access_token, attributes, .. }) => Some(query!(
            store,
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
            store,
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
            store,
            sql::RESEAL_CANDIDATE,
            signed(*id),
            old.expose().as_bytes(),
            refresh_token.expose().as_bytes(),
            fingerprint.map(|print| print.to_string()),
        )),
        _ => None,
    }
}
