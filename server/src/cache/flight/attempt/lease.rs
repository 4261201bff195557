//! The right to ask the upstream: claimed, renewed while the call runs, and waited for where somebody else has it.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, warn};

use super::Attempt;
use crate::{
    cache::{
        entry::MIN_SPACING,
        flight::budget::{Entered, Seat},
        memory::Entry,
        turns::Turn,
    },
    error::{Error, ErrorKind, Result},
    provider::{GrantUse, Rotation},
    store::{Claim, Holder, Lease, LeaseOwner, LeaseScope},
};

/// How long a lease lasts unless it is renewed: how long a dead holder keeps others waiting.
pub(in crate::cache::flight) const LEASE_TTL: Duration = Duration::from_secs(5);

/// How often a lease is renewed: two renewals may fail before it lapses.
const RENEW_EVERY: Duration = Duration::from_millis(1600);

/// How often a flight that waits for another holder looks for the result.
const LEASE_POLL: Duration = Duration::from_millis(200);

/// How long a flight waits for another holder: the longest call, a lease's lapse, and some room.
const LEASE_PATIENCE: Duration = Duration::from_secs(20);

/// The outcome of a claim.
pub(super) enum Claimed {
    /// The right is ours, and where the grant rotates the turn on this replica.
    Right(Right, Option<Turn>),
    /// Whoever held it has brought a token that will do.
    Overtaken(Arc<Entry>),
}

/// The right to ask the upstream.
pub(super) enum Right {
    /// The lease, where there is no endpoint whose budget is shared.
    Lease(Lease),
    /// The lease, and a place among the calls of the endpoint.
    Seat(Seat),
}

impl Attempt {
    pub(super) async fn claim(&self) -> Result<Claimed> {
        let begun = Instant::now();
        let (scope, turn) = match self.credential.provider.capabilities().grant {
            GrantUse::None | GrantUse::Refresh(Rotation::None) => (LeaseScope::Token(self.want.key.hash()), None),
            GrantUse::Refresh(Rotation::Grace(_) | Rotation::Strict) => {
                let name = self.want.key.credential();
                let turn = timeout(LEASE_PATIENCE, self.parts.turns.take(name)).await.map_err(|_| self.give_up())?;
                (LeaseScope::Grant(name.clone()), Some(turn))
            }
        };
        let nonce = self.parts.rng.with(rand::Rng::next_u64);
        let owner = LeaseOwner { replica: self.parts.replica.clone(), nonce };
        loop {
            let holder = match self.try_claim(&scope, &owner, begun + LEASE_PATIENCE).await? {
                Ok(right) => return Ok(Claimed::Right(right, turn)),
                Err(holder) => holder,
            };
            if begun.elapsed() > LEASE_PATIENCE {
                return Err(self.give_up());
            }
            sleep(holder.remaining.clamp(Duration::from_millis(10), LEASE_POLL)).await;
            let row = self.load().await?;
            if let Some(entry) = self.accept(row.as_ref()) {
                return Ok(Claimed::Overtaken(entry));
            }
        }
    }

    /// Claims once; waits for no other holder, but until `patience` is over for a place among the endpoint's calls.
    async fn try_claim(
        &self,
        scope: &LeaseScope,
        owner: &LeaseOwner,
        patience: Instant,
    ) -> Result<std::result::Result<Right, Holder>> {
        if let Some(endpoint) = &self.credential.endpoint {
            return Ok(match self.enter(endpoint, scope, owner, patience).await? {
                Entered::Seat(seat) => Ok(Right::Seat(seat)),
                Entered::Held(holder) => Err(holder),
            });
        }
        let claim = self.parts.store.acquire(scope.clone(), owner.clone(), LEASE_TTL).await;
        Ok(match claim.map_err(|error| self.pause_for_store(error))? {
            Claim::Granted(lease) => Ok(Right::Lease(lease)),
            Claim::Held(holder) => Err(holder),
        })
    }

    /// Ends the wait for another flight.
    fn give_up(&self) -> Error {
        let message = "another flight of the broker holds the right to ask the upstream for too long";
        self.refuse(Error::new(ErrorKind::UpstreamSlow, message), self.parts.clock.now().after(MIN_SPACING))
    }

    pub(super) async fn keep_renewing(&self, right: &Right) {
        loop {
            sleep(RENEW_EVERY).await;
            let renewed = match right {
                Right::Lease(lease) => self.parts.store.renew(lease.clone(), LEASE_TTL).await,
                Right::Seat(seat) => self.parts.store.renew_pass(seat.pass().clone(), LEASE_TTL).await,
            };
            match renewed {
                Ok(true) => {}
                Ok(false) => {
                    warn!(credential = %self.want.key.credential(), "a lease lapsed while the upstream was asked");
                }
                Err(error) => debug!(%error, "a lease was not renewed"),
            }
        }
    }

    /// Gives the right back, with what the call says of the endpoint.
    pub(super) async fn give_back(&self, right: Right) {
        let given_back = match right {
            Right::Lease(lease) => self.parts.store.release(lease).await,
            Right::Seat(seat) => self.leave(seat).await,
        };
        if let Err(error) = given_back {
            debug!(%error, "a lease was not released and will lapse");
        }
    }
}
