//! Budgets of endpoints in the tables.
//!
//! To be admitted costs one statement in one transaction, as a lease alone does, and so does to depart from an endpoint
//! that works. Whatever else there is to find out or to note costs more.

use std::time::Duration;

use sqlx::FromRow;

use super::{PgTokenStore, error::PgStoreError, query, query_as, transaction::PgTransaction};
use crate::{
    store::{
        Admission, CallOutcome, Departure, EndpointClaim, EndpointState, EndpointView, Holder, Lease, Pass, Turned,
        sql::{
            endpoints::{EndpointColumns, EndpointParameters, FORGET_ENDPOINT, MAKE_SLOTS, ViewColumns},
            rows::lease_millis,
        },
    },
    types::Origin,
};

mod queries;

/// Why a claim was not granted.
#[derive(FromRow)]
struct ReasonColumns {
    holder: Option<String>,
    holder_for: Option<i64>,
    slots: i64,
    #[sqlx(flatten)]
    state: EndpointColumns,
}

struct Reason {
    holder: Option<Holder>,
    slots: i64,
    state: EndpointState,
}

impl Reason {
    fn of(row: ReasonColumns, claimant: &str) -> Self {
        let left = row.holder_for.and_then(|left| u64::try_from(left).ok()).filter(|left| *left > 0);
        let holder = row.holder.filter(|holder| holder != claimant).zip(left);
        let holder = holder.map(|(owner, left)| Holder { owner, remaining: Duration::from_millis(left) });
        Self { holder, slots: row.slots, state: row.state.into() }
    }
}

impl PgTokenStore {
    pub(super) async fn try_admit(&self, claim: &EndpointClaim) -> Result<Admission, PgStoreError> {
        let mut tx = self.begin().await?;
        let admission = self.admit_in(&mut tx, claim).await?;
        tx.commit().await?;
        Ok(admission)
    }

    async fn admit_in(&self, tx: &mut PgTransaction, claim: &EndpointClaim) -> Result<Admission, PgStoreError> {
        if let Some(pass) = self.take(tx, claim, false).await? {
            return Ok(Admission::Granted(pass));
        }
        let reason = self.reason(tx, claim).await?;
        let probe = match reason.state.admits(&claim.owner, claim.early) {
            None => return Ok(Admission::Shut(reason.state)),
            Some(probe) => probe,
        };
        let lacks_slots = reason.slots < i64::from(claim.max_concurrent);
        match reason.holder {
            Some(holder) => return Ok(Admission::Held(holder)),
            None if !probe && !lacks_slots => return Ok(Admission::Full),
            None => {}
        }
        if probe && !self.claim_probe(tx, claim).await? {
            // Somebody else was faster.
            return Ok(Admission::Shut(self.reason(tx, claim).await?.state));
        }
        if lacks_slots {
            let missing = query!(self, MAKE_SLOTS, claim.endpoint.as_str(), i64::from(claim.max_concurrent));
            missing.execute(&mut **tx).await?;
        }
        if let Some(pass) = self.take(tx, claim, probe).await? {
            return Ok(Admission::Granted(pass));
        }
        if probe {
            let abandon = query!(self, queries::ABANDON_PROBE, claim.endpoint.as_str(), claim.owner.to_string());
            abandon.execute(&mut **tx).await?;
        }
        Ok(self.reason(tx, claim).await?.holder.map_or(Admission::Full, Admission::Held))
    }

    /// Takes a place and the lease. `None`: not both are free, and nothing may be kept; [`Self::reason`] sees to that.
    async fn take(
        &self,
        tx: &mut PgTransaction,
        claim: &EndpointClaim,
        probe: bool,
    ) -> Result<Option<Pass>, PgStoreError> {
        let EndpointClaim { scope, owner, ttl, endpoint, max_concurrent, .. } = claim;
        let admit = query_as!(
            self,
            queries::ADMIT,
            scope.as_text(),
            owner.to_string(),
            lease_millis(*ttl),
            endpoint.as_str(),
            i64::from(*max_concurrent),
            probe
        );
        let row: Option<(i64,)> = admit.fetch_optional(&mut **tx).await?;
        let lease = Lease { scope: scope.clone(), owner: owner.clone() };
        let pass = |slot| Pass { lease, endpoint: endpoint.clone(), slot, probe };
        Ok(row.and_then(|(slot,)| u32::try_from(slot).ok()).map(pass))
    }

    /// Why a claim was not granted; a place that was taken in vain is given back.
    async fn reason(&self, tx: &mut PgTransaction, claim: &EndpointClaim) -> Result<Reason, PgStoreError> {
        let EndpointClaim { scope, owner, endpoint, .. } = claim;
        let owner = owner.to_string();
        let reason = query_as!(self, queries::REASON, scope.as_text(), owner.as_str(), endpoint.as_str());
        let row: ReasonColumns = reason.fetch_one(&mut **tx).await?;
        Ok(Reason::of(row, &owner))
    }

    async fn claim_probe(&self, tx: &mut PgTransaction, claim: &EndpointClaim) -> Result<bool, PgStoreError> {
        let EndpointClaim { owner, ttl, endpoint, early, .. } = claim;
        let owner = owner.to_string();
        let probe = query!(self, queries::CLAIM_PROBE, endpoint.as_str(), owner, lease_millis(*ttl), *early);
        Ok(probe.execute(&mut **tx).await?.rows_affected() == 1)
    }

    pub(super) async fn try_renew_pass(&self, pass: &Pass, ttl: Duration) -> Result<bool, PgStoreError> {
        let (scope, owner) = (pass.lease.scope.as_text(), pass.lease.owner.to_string());
        let (endpoint, slot) = (pass.endpoint.as_str(), i64::from(pass.slot));
        let mut tx = self.begin().await?;
        let renew = query!(self, queries::RENEW_PASS, scope, owner, lease_millis(ttl), endpoint, slot);
        let renewed = renew.fetch_optional(&mut *tx).await?.is_some();
        tx.commit().await?;
        Ok(renewed)
    }

    pub(super) async fn try_depart(&self, departure: &Departure) -> Result<Turned, PgStoreError> {
        let mut tx = self.begin().await?;
        let turned = match departure.outcome {
            CallOutcome::Succeeded => self.depart_well(&mut tx, &departure.pass).await?,
            CallOutcome::Unknown if !departure.pass.probe => {
                self.give_back(&mut tx, &departure.pass).await?;
                Turned::default()
            }
            CallOutcome::Unknown | CallOutcome::Throttled(_) | CallOutcome::Failed(_) => {
                self.give_back(&mut tx, &departure.pass).await?;
                self.turn(&mut tx, departure).await?
            }
        };
        tx.commit().await?;
        Ok(turned)
    }

    async fn depart_well(&self, tx: &mut PgTransaction, pass: &Pass) -> Result<Turned, PgStoreError> {
        let (scope, owner) = (pass.lease.scope.as_text(), pass.lease.owner.to_string());
        let depart = query_as!(self, queries::DEPART_WELL, scope, owner, pass.endpoint.as_str(), i64::from(pass.slot));
        let before: Option<EndpointColumns> = depart.fetch_optional(&mut **tx).await?;
        let before = before.map(EndpointState::from).unwrap_or_default();
        Ok(Turned { before, after: EndpointState::default() })
    }

    async fn give_back(&self, tx: &mut PgTransaction, pass: &Pass) -> Result<(), PgStoreError> {
        let (scope, owner) = (pass.lease.scope.as_text(), pass.lease.owner.to_string());
        let give_back = query!(self, queries::GIVE_BACK, scope, owner, pass.endpoint.as_str(), i64::from(pass.slot));
        give_back.execute(&mut **tx).await?;
        Ok(())
    }

    async fn turn(&self, tx: &mut PgTransaction, departure: &Departure) -> Result<Turned, PgStoreError> {
        let Departure { pass, outcome, rule } = departure;
        let endpoint = pass.endpoint.as_str();
        let locked: EndpointColumns = query_as!(self, queries::LOCK_ENDPOINT, endpoint).fetch_one(&mut **tx).await?;
        let before = EndpointState::from(locked);
        let after = before.after(*outcome, &pass.lease.owner, *rule);
        if after == EndpointState::default() {
            query!(self, FORGET_ENDPOINT, endpoint).execute(&mut **tx).await?;
            return Ok(Turned { before, after });
        }
        let new = EndpointParameters::from(&after);
        let save = query!(
            self,
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
        Ok(Turned { before, after })
    }

    pub(super) async fn try_endpoint(&self, endpoint: &Origin) -> Result<EndpointView, PgStoreError> {
        let mut tx = self.begin().await?;
        let row: ViewColumns = query_as!(self, queries::VIEW, endpoint.as_str()).fetch_one(&mut *tx).await?;
        tx.commit().await?;
        Ok(row.into())
    }
}
