//! Grants in the tables: what a credential must not lose.

use super::{PgTokenStore, error::PgStoreError, queries, query, query_as, transaction::PgTransaction};
use crate::{
    store::{
        EventKind, Grant, GrantCandidate, GrantLoss, GrantUpdate, RotationIntent,
        sql::{
            self,
            rows::{CandidateColumns, GrantColumns, readable, signed},
        },
    },
    types::{CredentialName, KeyHash},
};

impl PgTokenStore {
    pub(super) async fn try_load_grant(&self, credential: &CredentialName) -> Result<Option<Grant>, PgStoreError> {
        let mut tx = self.begin().await?;
        let row = query_as!(self, queries::LOAD_GRANT, credential.as_str());
        let row: Option<GrantColumns> = row.fetch_optional(&mut *tx).await?;
        tx.commit().await?;
        Ok(row.map(Grant::try_from).transpose()?)
    }

    pub(super) async fn try_candidates(
        &self,
        credential: &CredentialName,
    ) -> Result<Vec<GrantCandidate>, PgStoreError> {
        let mut tx = self.begin().await?;
        let rows = query_as!(self, sql::CANDIDATES, credential.as_str());
        let rows: Vec<CandidateColumns> = rows.fetch_all(&mut *tx).await?;
        tx.commit().await?;
        Ok(readable(rows))
    }

    pub(super) async fn try_advance_grant(
        &self,
        credential: &CredentialName,
        update: &GrantUpdate,
    ) -> Result<bool, PgStoreError> {
        let mut tx = self.begin().await?;
        let replaced = self.keep_grant(&mut tx, credential, update).await?;
        tx.commit().await?;
        Ok(replaced)
    }

    pub(super) async fn try_begin_rotation(&self, intent: &RotationIntent) -> Result<bool, PgStoreError> {
        let RotationIntent { credential, version, journal, owner, token } = intent;
        let (name, version, journal) = (credential.as_str(), signed(*version), signed(*journal));
        let token = token.to_string();
        let begin = query!(self, queries::BEGIN_ROTATION, name, version, journal, owner.as_str(), token);
        Ok(self.execute(begin).await? == 1)
    }

    pub(super) async fn try_lose_grant(&self, loss: &GrantLoss) -> Result<bool, PgStoreError> {
        let (name, version) = (loss.credential.as_str(), signed(loss.version));
        let mut tx = self.begin().await?;
        let lose = query!(self, sql::LOSE_GRANT, name, version, loss.reason.as_str());
        let lost = lose.execute(&mut *tx).await?.rows_affected() == 1;
        if lost {
            self.end_intent(&mut tx, &loss.credential, loss.intent.as_deref()).await?;
            let (kind, none) = (EventKind::GrantLost.as_text(), &KeyHash::NONE.as_bytes()[..]);
            query!(self, queries::APPEND_GRANT_EVENT, kind, none, name, version).execute(&mut *tx).await?;
        }
        tx.commit().await?;
        Ok(lost)
    }

    /// Stores a refresh token, come what may: as the grant's (true), or as a candidate.
    pub(super) async fn keep_grant(
        &self,
        tx: &mut PgTransaction,
        credential: &CredentialName,
        update: &GrantUpdate,
    ) -> Result<bool, PgStoreError> {
        let (name, base, at) = (credential.as_str(), signed(update.base_version), update.at.as_millis());
        let (new, sent) = (&update.refresh_token, &update.sent);
        let (value, print) = (new.value.expose().as_bytes(), new.fingerprint.to_string());
        let kept = if update.base_version == 0 {
            query!(self, sql::INSERT_GRANT, name, value, print.as_str(), at)
        } else {
            let (before, sent) = (sent.value.expose().as_bytes(), sent.fingerprint.to_string());
            query!(self, sql::ROTATE_GRANT, name, base, value, before, signed(update.as_of), at, print.as_str(), sent)
        };
        let replaced = kept.execute(&mut **tx).await?.rows_affected() == 1;
        if replaced {
            for known in update.refused.iter().chain([&update.sent]) {
                let (value, print) = (known.value.expose().as_bytes(), known.fingerprint.to_string());
                query!(self, sql::DROP_CANDIDATE, name, value, print).execute(&mut **tx).await?;
            }
        } else {
            let late = update.late.as_ref().map_or(value, |late| late.expose().as_bytes());
            let insert = query!(self, sql::INSERT_CANDIDATE, name, base, late, at, print.as_str());
            if insert.execute(&mut **tx).await?.rows_affected() == 1 {
                query!(self, sql::REVIVE, name, base.max(1)).execute(&mut **tx).await?;
            }
        }
        self.end_intent(tx, credential, update.intent.as_deref()).await?;
        Ok(replaced)
    }

    async fn end_intent(
        &self,
        tx: &mut PgTransaction,
        credential: &CredentialName,
        owner: Option<&str>,
    ) -> Result<(), PgStoreError> {
        if let Some(owner) = owner {
            query!(self, sql::END_INTENT, credential.as_str(), owner).execute(&mut **tx).await?;
        }
        Ok(())
    }
}
