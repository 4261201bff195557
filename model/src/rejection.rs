//! The model of a rejection: one token key whose generation 1 all replicas hold and a client rejects, while generation 2 may
//! be minted at any time.
//!
//! The rules, by their steps:
//! 1. `reject` raises the row's floor and appends the event in one transaction. Ids are given out when a transaction begins
//!    to write, so they commit out of order (with those of other keys, for a row's own writers wait for each other).
//! 2. `acknowledge` answers the report when every replica whose freshness lease has not lapsed, by the database's clock, has
//!    told the database that it applied the event. A report on a generation that was replaced meanwhile takes the same way.
//! 3. A `heartbeat` stores in one transaction a new lease and which events were applied when it was sent, and brings back
//!    the highest id visible. The replica counts the lease from before it was sent, on a clock that does not stand still while
//!    the machine sleeps.
//! 4. After a lapse the lease counts again once every event up to the id that the renewing heartbeat brought is applied,
//!    those that were missing below it too, unless they have been missing for so long that their transactions must have
//!    been rolled back. No bound on a transaction is certain (a commit may wait for a standby, a database may be stopped):
//!    so `reject` appends its event again if, by the database's clock, its commit was not back in less than that time.
//! 5. `apply` raises the floor in memory, which stands outside the evictable cache and is checked on every read, what a flight
//!    has loaded included.
//! 6. A call is answered as verified if the lease counted before the entry was read and counts without a lapse still. (The
//!    look before is what I2 needs; a test shows that the look after adds nothing to it.)
//!
//! NOTIFY does not occur in it: an event is applied at any time or never.
//!
//! One replica is modelled whole, and calls go to it: replicas have nothing to do with each other but that the acknowledgement
//! waits for all of them. Of its peers there are their leases alone.
//!
//! What the adversary may do, any number of times: stop replicas for any time and restart them, delay and lose heartbeats and
//! their answers, evict entries, let a load come late.

use stateright::{Model, Property};

use crate::Bug;

mod state;
mod steps;
#[cfg(test)]
mod tests;

pub use state::{Event, Heartbeat, Kind, Lease, Probe, Replica, Report, World};

/// How many ticks a freshness lease lasts.
pub const LEASE_TTL: u8 = 2;

/// How many events there can be.
pub const EVENTS: usize = 4;

/// After how many ticks a replica takes a missing id for one that was rolled back.
pub const GAP_PATIENCE: u8 = 2;

/// A model with `N` replicas: one and its `N - 1` peers.
#[derive(Clone, Debug)]
pub struct Rejection<const N: usize> {
    /// How many events of other keys there are.
    pub others: usize,
    /// Whether generation 2 is minted.
    pub mints: bool,
    /// Whether the replica is restarted.
    pub restarts: bool,
    /// Whether one client asks all replicas and remembers nothing; then its generations can go back.
    pub forgetful_client: bool,
    /// Which rule is broken.
    pub bug: Option<Bug>,
}

/// What can happen next. "It" is the replica; numbers are those of events and peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A client's report takes the row's lock and an event's id.
    Reject,
    /// The report's transaction commits.
    CommitRejection,
    /// The report is answered.
    Acknowledge,
    /// Generation 2 is committed.
    Mint,
    /// A transaction of another key takes an event's id.
    BeginOther,
    /// The transaction with this event commits.
    CommitOther(usize),
    /// The transaction with this event is rolled back.
    AbortOther(usize),
    /// It sends a heartbeat.
    Heartbeat,
    /// Its heartbeat's transaction is carried out.
    Renew,
    /// Its heartbeat or the answer is lost.
    Drop,
    /// It takes in the answer to its heartbeat.
    Renewed,
    /// It applies an event.
    Apply(usize),
    /// It waits no more for a missing event.
    Forget(usize),
    /// It reads the row.
    Load,
    /// What it has read goes into the cache.
    Insert,
    /// Its cache drops the entry.
    Evict,
    /// It ends, and another process takes its place.
    Restart,
    /// A call begins.
    Begin,
    /// The call finds the cache's entry.
    ReadCache,
    /// The call finds what a flight has loaded.
    ReadFlight,
    /// The call is answered.
    Answer,
    /// Time passes.
    Tick,
    /// Time passes, but not on its clock.
    Suspend,
    /// A peer's heartbeat is carried out.
    RenewPeer(usize),
    /// A peer answers the forgetful client.
    AnswerOfPeer,
}

impl<const N: usize> Rejection<N> {
    /// Whether this rule is broken.
    #[must_use]
    pub fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }
}

impl<const N: usize> Model for Rejection<N> {
    type State = World<N>;
    type Action = Action;

    fn init_states(&self) -> Vec<World<N>> {
        vec![World::new()]
    }

    fn actions(&self, _: &World<N>, actions: &mut Vec<Action>) {
        actions.extend([
            Action::Reject,
            Action::CommitRejection,
            Action::Acknowledge,
            Action::Mint,
            Action::BeginOther,
        ]);
        actions.extend([Action::Heartbeat, Action::Renew, Action::Drop, Action::Renewed, Action::Restart]);
        actions.extend([Action::Load, Action::Insert, Action::Evict, Action::Begin, Action::ReadCache]);
        actions.extend([Action::ReadFlight, Action::Answer, Action::Tick, Action::Suspend, Action::AnswerOfPeer]);
        for event in 0..EVENTS {
            actions.extend([Action::CommitOther(event), Action::AbortOther(event), Action::Apply(event)]);
            actions.push(Action::Forget(event));
        }
        actions.extend((1..N).map(Action::RenewPeer));
    }

    fn next_state(&self, world: &World<N>, action: Action) -> Option<World<N>> {
        let mut next = *world;
        self.step(&mut next, action)?;
        (next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always("I1: a generation never goes back", |_, world: &World<N>| !world.went_back),
            Property::always("I2: what is acknowledged as rejected is never verified", |_, world: &World<N>| {
                !world.stale
            }),
        ];
        properties.extend(self.reachable());
        properties
    }
}

impl<const N: usize> Rejection<N> {
    /// What the rules are there for must happen, or the model would show nothing.
    fn reachable(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::sometimes(
                "acknowledged while the replica has lapsed and holds the token",
                |_, world: &World<N>| {
                    world.report == Report::Acknowledged && world.replica.lease == 0 && world.replica.serves(1)
                },
            ),
            Property::sometimes("all replicas are live and have applied the rejection", |_, world: &World<N>| {
                world.leases.iter().all(|lease| lease.left > 0 && lease.heard)
            }),
            Property::sometimes("a degraded answer carries the rejected token", |_, world: &World<N>| {
                world.probe.is_some_and(|probe| probe.after_acknowledgement && probe.generation == 1)
            }),
            Property::sometimes("a late load brings the rejected token back into the cache", |_, world: &World<N>| {
                world.replica.held == 1 && world.replica.floor == 2
            }),
        ];
        if self.mints {
            properties.push(Property::sometimes("a verified answer follows an acknowledged rejection", Self::verifies));
        }
        if self.others > 0 {
            properties.push(Property::sometimes(
                "an event is taken for rolled back and then commits",
                |_, world: &World<N>| world.passed_over_rejection(),
            ));
            properties.push(Property::sometimes("an event is missing below another", |_, world: &World<N>| {
                world.misses(world.replica.top())
            }));
        }
        properties
    }

    fn verifies(&self, world: &World<N>) -> bool {
        let verified = |probe: Probe| probe.fresh && probe.generation == 2 && self.lease_counts(world);
        world.probe.is_some_and(|probe| probe.after_acknowledgement && verified(probe))
    }
}
