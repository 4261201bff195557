//! Budgets of endpoints in the tables. There is one writer at a time, so that what was read stays so.

use std::time::Duration;

use sqlx::SqliteExecutor;

use super::{SqliteTokenStore, SqliteTransaction, error::SqliteStoreError, query, query_as};
use crate::{
    store::{
        Admission, Departure, EndpointClaim, EndpointState, EndpointView, Lease, Pass, Turned,
        sql::{
            self,
            endpoints::{EndpointColumns, EndpointParameters, FORGET_ENDPOINT, MAKE_SLOTS, ViewColumns},
            rows::lease_millis,
        },
    },
    types::Origin,
};

mod queries;

impl SqliteTokenStore {
    pub(super) async fn try_admit(&self, claim: &EndpointClaim) -> Result<Admission, SqliteStoreError> {
        let mut tx = self.begin().await?;
        let admission = Self::admit_in(&mut tx, claim).await?;
        tx.commit().await?;
        Ok(admission)
    }

    async fn admit_in(tx: &mut SqliteTransaction, claim: &EndpointClaim) -> Result<Admission, SqliteStoreError> {
        let EndpointClaim { scope, owner, ttl, endpoint, early, .. } = claim;
        let (owner_text, ttl) = (owner.to_string(), lease_millis(*ttl));
        let state = Self::state_of(&mut **tx, endpoint).await?.unwrap_or_default();
        let Some(probe) = state.admits(owner, *early) else { return Ok(Admission::Shut(state)) };
        let held = Self::lease(&mut **tx, scope).await?;
        if let Some(holder) = held.filter(|held| held.owner != owner_text && !held.remaining.is_zero()) {
            return Ok(Admission::Held(holder));
        }
        let Some(slot) = Self::take_slot(tx, claim).await? else { return Ok(Admission::Full) };
        query!(super::queries::ACQUIRE, scope.as_text(), owner_text.as_str(), ttl).execute(&mut **tx).await?;
        if probe {
            query!(queries::CLAIM_PROBE, endpoint.as_str(), owner_text.as_str(), ttl).execute(&mut **tx).await?;
        }
        let lease = Lease { scope: scope.clone(), owner: owner.clone() };
        Ok(Admission::Granted(Pass { lease, endpoint: endpoint.clone(), slot, probe }))
    }

    async fn take_slot(tx: &mut SqliteTransaction, claim: &EndpointClaim) -> Result<Option<u32>, SqliteStoreError> {
        let EndpointClaim { owner, ttl, endpoint, max_concurrent, .. } = claim;
        let (owner, limit) = (owner.to_string(), i64::from(*max_concurrent));
        for is_last in [false, true] {
            let take = query_as!(queries::TAKE_SLOT, endpoint.as_str(), owner.as_str(), lease_millis(*ttl), limit);
            let row: Option<(i64,)> = take.fetch_optional(&mut **tx).await?;
            if let Some(slot) = row.and_then(|(slot,)| u32::try_from(slot).ok()) {
                return Ok(Some(slot));
            }
            if !is_last && query!(MAKE_SLOTS, endpoint.as_str(), limit).execute(&mut **tx).await?.rows_affected() == 0 {
                break;
            }
        }
        Ok(None)
    }

    async fn state_of<'c>(
        connection: impl SqliteExecutor<'c>,
        endpoint: &Origin,
    ) -> Result<Option<EndpointState>, SqliteStoreError> {
        let row: Option<EndpointColumns> =
            query_as!(queries::LOAD_ENDPOINT, endpoint.as_str()).fetch_optional(connection).await?;
        Ok(row.map(EndpointState::from))
    }

    pub(super) async fn try_renew_pass(&self, pass: &Pass, ttl: Duration) -> Result<bool, SqliteStoreError> {
        let (scope, owner, ttl) = (pass.lease.scope.as_text(), pass.lease.owner.to_string(), lease_millis(ttl));
        let (endpoint, slot) = (pass.endpoint.as_str(), i64::from(pass.slot));
        let mut tx = self.begin().await?;
        let lease = query!(super::queries::RENEW, scope, owner.as_str(), ttl).execute(&mut *tx).await?;
        let place = query!(queries::RENEW_SLOT, endpoint, owner.as_str(), ttl, slot).execute(&mut *tx).await?;
        if pass.probe {
            query!(queries::RENEW_PROBE, endpoint, owner.as_str(), ttl).execute(&mut *tx).await?;
        }
        tx.commit().await?;
        Ok(lease.rows_affected() == 1 && place.rows_affected() == 1)
    }

    pub(super) async fn try_depart(&self, departure: &Departure) -> Result<Turned, SqliteStoreError> {
        let Departure { pass, outcome, rule } = departure;
        let (owner, endpoint) = (pass.lease.owner.to_string(), pass.endpoint.as_str());
        let mut tx = self.begin().await?;
        query!(sql::RELEASE, pass.lease.scope.as_text(), owner.as_str()).execute(&mut *tx).await?;
        query!(queries::FREE_SLOT, endpoint, owner.as_str(), i64::from(pass.slot)).execute(&mut *tx).await?;
        let before = Self::state_of(&mut *tx, &pass.endpoint).await?;
        let was_known = before.is_some();
        let before = before.unwrap_or_default();
        let after = before.after(*outcome, &pass.lease.owner, *rule);
        if after == EndpointState::default() {
            if was_known {
                query!(FORGET_ENDPOINT, endpoint).execute(&mut *tx).await?;
            }
        } else if after != before {
            Self::save(&mut tx, endpoint, &after).await?;
        }
        tx.commit().await?;
        Ok(Turned { before, after })
    }

    async fn save(tx: &mut SqliteTransaction, endpoint: &str, state: &EndpointState) -> Result<(), SqliteStoreError> {
        let new = EndpointParameters::from(state);
        let save = query!(
            queries::SAVE_ENDPOINT,
            endpoint,
            new.failures,
            new.openings,
            new.open_for,
            new.wait_for,
            new.throttled,
            new.probe_owner,
            new.probe_for
        );
        save.execute(&mut **tx).await?;
        Ok(())
    }

    pub(super) async fn try_endpoint(&self, endpoint: &Origin) -> Result<EndpointView, SqliteStoreError> {
        let row: ViewColumns = query_as!(queries::VIEW, endpoint.as_str()).fetch_one(&self.readers).await?;
        Ok(row.into())
    }
}
