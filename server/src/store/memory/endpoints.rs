//! Endpoints in memory: who calls them, and what is known of them.

use std::{collections::BTreeMap, time::Duration};

use super::{HeldLease, State};
use crate::{
    store::{
        Admission, Claim, Departure, EndpointClaim, EndpointState, EndpointView, Holder, LeaseOwner, MAX_LEASE, Pass,
        Turned,
    },
    time::Timestamp,
};

/// One endpoint.
#[derive(Debug)]
pub(super) struct KnownEndpoint {
    /// As of `at`.
    state: EndpointState,
    at: Timestamp,
    /// The places that are or were taken, by their numbers.
    slots: BTreeMap<u32, HeldLease>,
}

impl KnownEndpoint {
    fn new(now: Timestamp) -> Self {
        Self { state: EndpointState::default(), at: now, slots: BTreeMap::new() }
    }

    pub(super) fn view(&self, now: Timestamp) -> EndpointView {
        let calls = self.slots.values().filter(|slot| slot.holds(now)).count();
        EndpointView { state: self.state_at(now), calls: u32::try_from(calls).unwrap_or(u32::MAX) }
    }

    fn state_at(&self, now: Timestamp) -> EndpointState {
        self.state.aged(now.since(self.at))
    }

    fn set(&mut self, state: EndpointState, now: Timestamp) {
        (self.state, self.at) = (state, now);
    }

    /// The place that is the owner's already, or else the first that is free.
    fn free_slot(&self, owner: &str, limit: u32, now: Timestamp) -> Option<u32> {
        let own = self.slots.iter().find(|(_, slot)| slot.owner == owner).map(|(number, _)| *number);
        own.filter(|number| *number < limit).or_else(|| {
            let taken = self.slots.iter().filter(|(_, slot)| slot.holds(now)).map(|(number, _)| *number);
            // Up to the first gap.
            let first = (0..limit).zip(taken).take_while(|(place, taken)| place == taken).count();
            u32::try_from(first).ok().filter(|place| *place < limit)
        })
    }

    fn take(&mut self, slot: u32, owner: &LeaseOwner, expires_at: Timestamp) {
        self.slots.insert(slot, HeldLease { owner: owner.to_string(), expires_at });
    }
}

impl State {
    pub(super) fn admit(&mut self, claim: EndpointClaim, now: Timestamp) -> Admission {
        let EndpointClaim { scope, owner, ttl, endpoint, max_concurrent, early } = claim;
        let ttl = ttl.min(MAX_LEASE);
        let known = self.endpoints.entry(endpoint.clone()).or_insert_with(|| KnownEndpoint::new(now));
        let state = known.state_at(now);
        let Some(probe) = state.admits(&owner, early) else { return Admission::Shut(state) };
        let slot = known.free_slot(&owner.to_string(), max_concurrent, now);
        let pass = match (self.acquire(scope, owner.clone(), ttl, now), slot) {
            (Claim::Held(holder), _) => return Admission::Held(holder),
            (Claim::Granted(lease), None) => {
                self.release(&lease);
                return Admission::Full;
            }
            (Claim::Granted(lease), Some(slot)) => Pass { lease, endpoint, slot, probe },
        };
        let known = self.endpoints.entry(pass.endpoint.clone()).or_insert_with(|| KnownEndpoint::new(now));
        known.take(pass.slot, &owner, now.after(ttl));
        if probe {
            let prober = Holder { owner: owner.to_string(), remaining: ttl };
            known.set(EndpointState { probe: Some(prober), ..state }, now);
        }
        Admission::Granted(pass)
    }

    pub(super) fn renew_pass(&mut self, pass: &Pass, ttl: Duration, now: Timestamp) -> bool {
        let (owner, ttl) = (pass.lease.owner.to_string(), ttl.min(MAX_LEASE));
        let renewed = self.renew(&pass.lease, ttl, now);
        let Some(known) = self.endpoints.get_mut(&pass.endpoint) else { return false };
        let mut state = known.state_at(now);
        if state.probe.as_ref().is_some_and(|prober| prober.owner == owner) {
            state.probe = Some(Holder { owner: owner.clone(), remaining: ttl });
            known.set(state, now);
        }
        let Some(slot) = known.slots.get_mut(&pass.slot).filter(|slot| slot.owner == owner) else { return false };
        slot.expires_at = now.after(ttl);
        renewed
    }

    pub(super) fn depart(&mut self, departure: &Departure, now: Timestamp) -> Turned {
        let Departure { pass, outcome, rule } = departure;
        let owner = &pass.lease.owner;
        self.release(&pass.lease);
        let known = self.endpoints.entry(pass.endpoint.clone()).or_insert_with(|| KnownEndpoint::new(now));
        if known.slots.get(&pass.slot).is_some_and(|slot| slot.owner == owner.to_string()) {
            known.slots.remove(&pass.slot);
        }
        let before = known.state_at(now);
        let after = before.after(*outcome, owner, *rule);
        known.set(after.clone(), now);
        Turned { before, after }
    }
}
