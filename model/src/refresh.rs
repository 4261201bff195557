//! The model of a refresh: one credential with one token key, several replicas, and an upstream that rotates refresh
//! tokens.
//!
//! The rules, by the steps of a flight:
//! 1. `acquire` claims the lease, which lapses unless it is renewed. It saves upstream calls; nothing is safe because of it.
//! 2. `load` chooses the refresh token to send: the grant's; if that was refused, those that came late, the latest
//!    first; with a lenient upstream at last the one before. It waits while somebody else's call may be under way: with a
//!    strict upstream any call, with a lenient one a call with *another* refresh token.
//! 3. `begin_rotation` commits the intent, timed by the database's clock; fenced on the grant's version, and in the same
//!    statement on what `load` has waited for: another flight may have journalled an intent since.
//! 4. `post` sends the request, unless the deadline has passed, which counts from before `begin_rotation` was sent. A flight
//!    that is too late begins anew. Between the look at the clock and the request's leaving nothing may come: that is the
//!    one step that a model has and a machine approximates.
//! 5. `receive` takes in the answer; an answer that comes too late may be taken in or not.
//! 6. `commit` is fenced on the row's generation for the access token and on the grant's version for the refresh token, which
//!    becomes a candidate if the version has moved. The one before is from now on the one that was *sent*. A commit ends the
//!    flight's own intent, never a successor's.
//! 7. `lose_grant` believes `invalid_grant` only if the version has not moved and there is nothing left to try. If an intent
//!    of somebody else's was open at any time of the flight, the loss is reported as in doubt. It ends the flight's own
//!    intent, whose call was answered.
//! 8. A refresh token that comes after the loss, from a flight begun before it, is stored, and is tried once; but the loss
//!    stays until a refresh that was begun after it has succeeded: the family may have been ended in between. Candidates are
//!    dropped when the upstream has refused them and then taken another one, and the one that was taken, which is kept as
//!    the one before.
//!
//! What the adversary may do, any number of times: crash a replica at any step (its request goes on), let time pass, let a
//! lease lapse, lose requests and answers, deliver them late within the deadline.

use stateright::{Model, Property};

use crate::Bug;

mod state;
mod steps;
#[cfg(test)]
mod tests;
mod upstream;

pub use state::{Call, Flight, Grant, Intent, Lease, Loss, Step, Store, Stray, World};
pub use upstream::{Answer, Rotation, Upstream};

/// How many ticks a lease lasts.
pub const LEASE_TTL: u8 = 1;

/// How many ticks a call may take; so many after its intent it is surely over.
pub const DEADLINE: u8 = 2;

/// A model with `N` replicas.
#[derive(Clone, Debug)]
pub struct Refresh<const N: usize> {
    /// How the upstream treats refresh tokens.
    pub rotation: Rotation,
    /// No refresh is begun once this many generations are stored.
    pub generations: u8,
    /// The upstream answers no more once it has issued this many refresh tokens.
    pub refresh_tokens: u8,
    /// Which rule is broken.
    pub bug: Option<Bug>,
}

/// What can happen next. A number is that of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It claims the lease.
    Acquire(usize),
    /// It prolongs its lease.
    Renew(usize),
    /// It reads the row and the grant, and chooses what to send.
    Load(usize),
    /// It journals its intent.
    BeginRotation(usize),
    /// It sends the request.
    Post(usize),
    /// The upstream handles its request.
    Handle(usize),
    /// Its request or the answer to it is lost.
    Drop(usize),
    /// It takes in the answer.
    Receive(usize),
    /// It gives the call up.
    TimeOut(usize),
    /// It stores what it got.
    Commit(usize),
    /// It decides whether to believe `invalid_grant`.
    LoseGrant(usize),
    /// It ends; another process takes its place.
    Crash(usize),
    /// The upstream handles a request whose sender is gone.
    HandleOrphan(usize),
    /// Time passes.
    Tick,
}

impl<const N: usize> Refresh<N> {
    /// Whether this rule is broken.
    #[must_use]
    pub fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }
}

impl<const N: usize> Model for Refresh<N> {
    type State = World<N>;
    type Action = Action;

    fn init_states(&self) -> Vec<World<N>> {
        vec![World::new()]
    }

    fn actions(&self, _: &World<N>, actions: &mut Vec<Action>) {
        const OF_REPLICA: [fn(usize) -> Action; 12] = [
            Action::Acquire,
            Action::Renew,
            Action::Load,
            Action::BeginRotation,
            Action::Post,
            Action::Handle,
            Action::Drop,
            Action::Receive,
            Action::TimeOut,
            Action::Commit,
            Action::LoseGrant,
            Action::Crash,
        ];
        actions.extend((0..N).flat_map(|replica| OF_REPLICA.map(|action| action(replica))));
        actions.extend((0..state::MAX_ORPHANS).map(Action::HandleOrphan));
        actions.push(Action::Tick);
    }

    fn next_state(&self, world: &World<N>, action: Action) -> Option<World<N>> {
        let mut next = *world;
        self.step(&mut next, action)?;
        (next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = Self::invariants();
        properties.extend(self.reachable());
        properties
    }
}

impl<const N: usize> Refresh<N> {
    fn invariants() -> Vec<Property<Self>> {
        vec![
            Property::always("I1: a generation never goes back", |_, world: &World<N>| {
                !world.went_back && world.seen <= world.store.generation
            }),
            Property::always(
                "I4: at a strict provider at most one live call per refresh token",
                |model: &Self, world: &World<N>| model.rotation != Rotation::Strict || !world.called_twice,
            ),
            Property::always("I5: a live refresh token is stored, in hand, or in doubt", Self::keeps_refresh_tokens),
            Property::always("a grant is lost only in doubt, and only at a strict provider", Self::loses_rightly),
            Property::always("a loss that was reported is not forgotten", |_, world: &World<N>| !world.forgotten),
        ]
    }

    /// What the rules are there for must happen, or the model would show nothing.
    fn reachable(&self) -> Vec<Property<Self>> {
        let mut properties =
            vec![Property::sometimes("all generations are reached", |model: &Self, world: &World<N>| {
                world.store.generation == model.generations
            })];
        if self.rotation != Rotation::Strict {
            properties.push(Property::sometimes("a token that comes late is superseded", |_, world: &World<N>| {
                world.reached.superseded
            }));
        }
        if self.rotation != Rotation::None {
            properties.extend([
                Property::sometimes("a flight is too late to send", |_, world: &World<N>| world.reached.too_late),
                Property::sometimes("a dead holder is succeeded", |_, world: &World<N>| world.reached.takeover),
            ]);
        }
        if self.rotation == Rotation::Grace {
            properties.push(Property::sometimes("a late refresh token is a candidate", |_, world: &World<N>| {
                world.store.candidates != 0
            }));
        }
        if self.rotation == Rotation::Grace && self.generations > 1 {
            properties
                .push(Property::sometimes("a candidate saves the grant", |_, world: &World<N>| world.reached.saved));
        }
        if self.rotation == Rotation::Strict {
            properties.push(Property::sometimes("a grant is lost in doubt", |_, world: &World<N>| {
                world.store.grant.needs_reauth == Some(Loss::InDoubt)
            }));
            properties.push(Property::sometimes("a refresh token comes after the loss", |_, world: &World<N>| {
                world.store.grant.retry
            }));
        }
        properties
    }

    fn keeps_refresh_tokens(&self, world: &World<N>) -> bool {
        let (upstream, kept) = (&world.upstream, world.store.refresh_tokens());
        if upstream.ended {
            return self.rotation == Rotation::Strict;
        }
        let newest = state::set_of(upstream.issued);
        if world.settled & newest != 0 && kept & newest == 0 {
            return false;
        }
        let usable = upstream.accepted(self.rotation) & (kept | world.in_hand());
        usable != 0 || (self.rotation == Rotation::Strict && world.store.grant.intent.is_some())
    }

    fn loses_rightly(&self, world: &World<N>) -> bool {
        match world.store.grant.needs_reauth {
            None => true,
            Some(Loss::InDoubt) => self.rotation == Rotation::Strict && world.upstream.ended,
            Some(Loss::Revoked) => false,
        }
    }
}
