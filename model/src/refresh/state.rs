//! What there is: the store, the upstream, the replicas' flights, requests whose sender is gone.

use super::{
    DEADLINE, LEASE_TTL,
    upstream::{Answer, Upstream},
};

/// A refresh token: its number in the order of issue, from 1; 0 is none.
pub(super) type RefreshToken = u8;

/// A set of refresh tokens: a bit for each.
pub(super) type Set = u8;

/// How many requests of crashed replicas may be under way at once.
pub(super) const MAX_ORPHANS: usize = 2;

/// The set of one refresh token; the empty set for none.
pub(super) const fn set_of(token: RefreshToken) -> Set {
    if token == 0 { 0 } else { 1 << (token - 1) }
}

/// The latest refresh token of a set; 0 if it is empty.
pub(super) fn latest(set: Set) -> RefreshToken {
    (1..=8).rev().find(|token| set & set_of(*token) != 0).unwrap_or(0)
}

/// Everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct World<const N: usize> {
    /// The database.
    pub store: Store,
    /// The identity provider.
    pub upstream: Upstream,
    /// What each replica is doing.
    pub flights: [Flight; N],
    /// Requests whose sender is gone: the refresh token, and how long ago its intent was sent.
    pub orphans: [Option<(RefreshToken, u8)>; MAX_ORPHANS],
    /// The highest generation that a client has seen.
    pub seen: u8,
    /// Refresh tokens whose receiver has done with them what it does.
    pub settled: Set,
    /// A commit has set the generation back.
    pub went_back: bool,
    /// A loss was reported, and a person was not asked to log in any more although the family is dead.
    pub forgotten: bool,
    /// A loss was reported.
    pub reported: bool,
    /// A call was begun while another with the same refresh token was alive.
    pub called_twice: bool,
    /// What has happened that the rules are there for.
    pub reached: Reached,
}

/// What has happened in the last step that the rules are there for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Reached {
    pub(super) superseded: bool,
    pub(super) too_late: bool,
    pub(super) takeover: bool,
    pub(super) saved: bool,
}

/// The database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Store {
    /// The generation of the row.
    pub generation: u8,
    /// The credential's grant.
    pub grant: Grant,
    /// Refresh tokens that came late.
    pub candidates: Set,
    /// The lease, until it lapses.
    pub lease: Option<Lease>,
}

/// A lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    /// Whose it is; nobody's if that flight has ended.
    pub owner: Option<usize>,
    /// Ticks until it lapses.
    pub left: u8,
}

/// A grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Grant {
    /// Counts its changes.
    pub version: u8,
    /// The present refresh token.
    pub refresh_token: RefreshToken,
    /// The one before.
    pub previous: RefreshToken,
    /// A call that is under way or whose end nobody saw.
    pub intent: Option<Intent>,
    /// A call that may be under way although a successor has journalled its own.
    pub stray: Option<Stray>,
    /// Why a person has to log in again.
    pub needs_reauth: Option<Loss>,
    /// A refresh token has come since the loss.
    pub retry: bool,
}

/// The journal's entry before a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Intent {
    /// Whose it is; nobody's if that flight has ended.
    pub owner: Option<usize>,
    /// The refresh token that is sent.
    pub token: RefreshToken,
    /// Ticks since it was committed, up to the deadline.
    pub age: u8,
}

/// A call that may still arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stray {
    /// The refresh token that it carries.
    pub token: RefreshToken,
    /// Ticks since its intent was committed.
    pub age: u8,
}

/// Why a grant is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Loss {
    /// A call ended unseen, and its replay was refused.
    InDoubt,
    /// The upstream refused it, and we know of no reason.
    Revoked,
}

/// What a replica is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flight {
    /// How far it is.
    pub step: Step,
    /// The generation that it began from.
    pub base: u8,
    /// The grant's version that it began from.
    pub version: u8,
    /// The refresh token that it sends.
    pub token: RefreshToken,
    /// Those that the upstream has refused to this flight.
    pub refused: Set,
    /// An earlier call ended unseen.
    pub in_doubt: bool,
    /// It was begun after the loss that is recorded.
    pub after_loss: bool,
    /// Ticks since it was about to send its intent, up to the deadline.
    pub elapsed: u8,
}

/// How far a flight is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Step {
    /// There is none.
    #[default]
    Idle,
    /// It has claimed the lease.
    Claimed,
    /// It has loaded row and grant.
    Loaded,
    /// Its intent is committed.
    Journalled,
    /// It waits for the upstream.
    Waiting(Call),
    /// It has the answer in hand: the new refresh token, if any.
    Pending(RefreshToken),
    /// It was told `invalid_grant`.
    Refused,
}

/// Where a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// On its way to the upstream.
    Sent,
    /// The answer is on its way back.
    Answered(Answer),
    /// Gone.
    Lost,
}

impl<const N: usize> World<N> {
    /// A grant that a person has just supplied, and no token.
    pub(super) fn new() -> Self {
        let grant = Grant {
            version: 1,
            refresh_token: 1,
            previous: 0,
            intent: None,
            stray: None,
            needs_reauth: None,
            retry: false,
        };
        Self {
            store: Store { generation: 0, grant, candidates: 0, lease: None },
            upstream: Upstream::new(),
            flights: [Flight::default(); N],
            orphans: [None; MAX_ORPHANS],
            seen: 0,
            settled: 0,
            went_back: false,
            forgotten: false,
            reported: false,
            called_twice: false,
            reached: Reached::default(),
        }
    }

    /// The refresh tokens that live replicas have received or are about to.
    pub(super) fn in_hand(&self) -> Set {
        let in_hand = self.flights.iter().map(|flight| match flight.step {
            Step::Pending(token) | Step::Waiting(Call::Answered(Answer::Token(Some(token)))) => set_of(token),
            _ => 0,
        });
        in_hand.fold(0, |all, one| all | one)
    }

    /// Whether a call with this refresh token may be or be under way to the upstream, or its answer under way back.
    pub(super) fn calls_with(&self, token: RefreshToken) -> bool {
        let of_flight = |flight: &Flight| {
            let under_way = matches!(flight.step, Step::Waiting(Call::Sent | Call::Answered(_)));
            under_way && flight.token == token && flight.elapsed < DEADLINE
        };
        self.flights.iter().any(of_flight) || self.orphans.iter().flatten().any(|(other, _)| *other == token)
    }

    /// Ends a replica's flight: what it has left behind in the store is nobody's from now on.
    pub(super) fn end_flight(&mut self, replica: usize) {
        self.flights[replica] = Flight::default();
        if let Some(intent) = &mut self.store.grant.intent
            && intent.owner == Some(replica)
        {
            intent.owner = None;
        }
        if let Some(lease) = &mut self.store.lease
            && lease.owner == Some(replica)
        {
            lease.owner = None;
        }
    }

    /// Time passes: leases lapse, calls come to their deadline.
    pub(super) fn tick(&mut self) {
        self.store.lease =
            self.store.lease.and_then(|lease| (lease.left > 1).then(|| Lease { left: lease.left - 1, ..lease }));
        let grant = &mut self.store.grant;
        if let Some(intent) = &mut grant.intent {
            intent.age = DEADLINE.min(intent.age + 1);
        }
        grant.stray =
            grant.stray.and_then(|stray| (stray.age + 1 < DEADLINE).then(|| Stray { age: stray.age + 1, ..stray }));
        for flight in &mut self.flights {
            if !matches!(flight.step, Step::Loaded | Step::Journalled | Step::Waiting(_)) {
                continue;
            }
            flight.elapsed = DEADLINE.min(flight.elapsed + 1);
            // The connection ends at the deadline: what has not arrived by then never will.
            if flight.elapsed == DEADLINE && flight.step == Step::Waiting(Call::Sent) {
                flight.step = Step::Waiting(Call::Lost);
            }
        }
        for orphan in &mut self.orphans {
            *orphan = orphan.and_then(|(token, elapsed)| (elapsed + 1 < DEADLINE).then_some((token, elapsed + 1)));
        }
    }
}

impl Grant {
    /// It is not lost, or there is something to try that has come since.
    pub(super) fn may_be_tried(&self) -> bool {
        self.needs_reauth.is_none() || self.retry
    }
}

impl Store {
    /// The refresh tokens that are stored anywhere.
    pub(super) fn refresh_tokens(&self) -> Set {
        set_of(self.grant.refresh_token) | set_of(self.grant.previous) | self.candidates
    }

    /// Claims the lease, or prolongs it.
    pub(super) fn claim(&mut self, replica: usize) {
        self.lease = Some(Lease { owner: Some(replica), left: LEASE_TTL });
    }

    /// Gives the lease back, if it is still this replica's.
    pub(super) fn release(&mut self, replica: usize) {
        self.lease = self.lease.filter(|lease| lease.owner != Some(replica));
    }
}
