//! What there is: the row, the events, the leases, what the replica holds, one call to it.

use super::{EVENTS, GAP_PATIENCE, LEASE_TTL};

/// A set of events: a bit for each id.
pub(super) type Set = u8;

/// Everything. Generation 0 is none; the ids of events count from 1, and 0 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct World<const N: usize> {
    /// The generation of the row.
    pub generation: u8,
    /// The lowest generation that the row allows to be served.
    pub floor: u8,
    /// The events, by their ids.
    pub events: [Option<Event>; EVENTS],
    /// How far the client's report is.
    pub report: Report,
    /// Ticks since the report's event was given its id, as far as replicas wait for it.
    pub age: u8,
    /// The freshness leases in the database until the acknowledgement: the replica's and its peers'.
    pub leases: [Lease; N],
    /// The replica that is looked at.
    pub replica: Replica,
    /// The one call that is looked at.
    pub probe: Option<Probe>,
    /// The highest generation that the forgetful client has seen.
    pub seen: u8,
    /// That client has seen a lower one since.
    pub went_back: bool,
    /// A call begun after the acknowledgement was given the rejected token as verified.
    pub stale: bool,
}

/// An event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// Its transaction has not ended.
    Open(Kind),
    /// It is visible.
    Committed(Kind),
    /// There will never be one of this id.
    Aborted,
}

/// What an event says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Generation 1 is rejected.
    Rejected,
    /// Generation 2 is committed.
    Committed,
    /// Something of another key.
    Other,
}

/// How far the client's report is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Report {
    /// The client has not reported.
    None,
    /// The transaction with this event has not committed.
    Open(usize),
    /// It has, and the live replicas are awaited.
    Committed(usize),
    /// The client was answered.
    Acknowledged,
}

/// A freshness lease in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    /// Ticks until it lapses.
    pub left: u8,
    /// Whether the replica said to have applied the rejection.
    pub heard: bool,
}

/// The replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Replica {
    /// The generation in its cache.
    pub held: u8,
    /// The lowest generation that it serves.
    pub floor: u8,
    /// The generation that a flight has read and not yet put into the cache.
    pub loaded: u8,
    /// The events that it has applied.
    pub applied: Set,
    /// Ticks until its lease lapses, by its own reckoning.
    pub lease: u8,
    /// Up to which event it must yet come for the lease to count.
    pub target: u8,
    /// Its heartbeat.
    pub heartbeat: Heartbeat,
}

/// Where a heartbeat is, and how many ticks ago it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Heartbeat {
    /// There is none.
    None,
    /// On its way to the database, with whether the rejection was applied when it was sent.
    Sent(u8, bool),
    /// On its way back, with the highest event visible.
    Answered(u8, u8),
}

/// A call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Probe {
    /// Whether it began after the acknowledgement.
    pub after_acknowledgement: bool,
    /// Whether the lease counted when it began, and has not lapsed since.
    pub fresh: bool,
    /// The generation that it found.
    pub generation: u8,
}

pub(super) const fn set_of(event: usize) -> Set {
    1 << event
}

/// The ids up to this one.
pub(super) const fn up_to(top: u8) -> Set {
    (1 << top) - 1
}

/// The highest id of a set, counted from 1.
pub(super) const fn highest(events: Set) -> u8 {
    match events {
        0 => 0,
        1 => 1,
        2 | 3 => 2,
        4..=7 => 3,
        _ => 4,
    }
}

impl Lease {
    /// None, or one that is over.
    pub(super) const LAPSED: Self = Self { left: 0, heard: false };
}

impl Replica {
    /// Holds generation 1, has applied nothing, and has no lease.
    const HOLDING: Self = Self { held: 1, ..Self::started(0) };

    /// One that has just been started and has seen these events.
    pub(super) const fn started(applied: Set) -> Self {
        Self { held: 0, floor: 0, loaded: 0, applied, lease: 0, target: 0, heartbeat: Heartbeat::None }
    }

    /// The highest event that it has applied.
    pub(super) const fn top(&self) -> u8 {
        highest(self.applied)
    }

    /// Whether this generation is in its cache and not below the floor.
    pub(super) const fn serves(&self, generation: u8) -> bool {
        self.held == generation && generation >= self.floor
    }
}

impl<const N: usize> World<N> {
    /// All replicas hold generation 1, and none has a lease yet.
    pub(super) const fn new() -> Self {
        Self {
            generation: 1,
            floor: 0,
            events: [None; EVENTS],
            report: Report::None,
            age: 0,
            leases: [Lease::LAPSED; N],
            replica: Replica::HOLDING,
            probe: None,
            seen: 0,
            went_back: false,
            stale: false,
        }
    }

    /// Takes the next id for an event.
    pub(super) fn append(&mut self, event: Event) -> Option<usize> {
        let id = self.events.iter().position(Option::is_none)?;
        self.events[id] = Some(event);
        Some(id)
    }

    /// The events that can be seen.
    pub(super) fn visible(&self) -> Set {
        let visible = |id: &usize| matches!(self.events[*id], Some(Event::Committed(_)));
        (0..EVENTS).filter(visible).fold(0, |all, id| all | set_of(id))
    }

    /// Whether the replica lacks an event up to `top` that has come or may still come. What was rolled back it forgets
    /// when no transaction can be that old.
    pub(super) fn misses(&self, top: u8) -> bool {
        let missing =
            |id: usize| up_to(top) & set_of(id) & !self.replica.applied != 0 && self.events[id] != Some(Event::Aborted);
        (0..EVENTS).any(missing)
    }

    /// Whether the replica has passed over a rejection that has committed since.
    pub(super) fn passed_over_rejection(&self) -> bool {
        let passed_over = |id: usize| {
            self.replica.applied & set_of(id) != 0 && self.events[id] == Some(Event::Committed(Kind::Rejected))
        };
        self.replica.floor < 2 && (0..EVENTS).any(passed_over)
    }

    /// The rejection's event, while somebody waits for it.
    pub(super) fn awaited(&self) -> Set {
        match self.report {
            Report::Open(event) | Report::Committed(event) => set_of(event),
            Report::None | Report::Acknowledged => 0,
        }
    }

    /// What replicas have said of the report's event does not hold for the one that takes its place.
    pub(super) fn unhear(&mut self) {
        self.leases = self.leases.map(|lease| Lease { heard: false, ..lease });
        if let Heartbeat::Sent(_, heard) = &mut self.replica.heartbeat {
            *heard = false;
        }
    }

    /// Time passes, on the replica's own clock too unless it is suspended.
    pub(super) fn tick(&mut self, suspended: bool) {
        if matches!(self.report, Report::Open(_)) {
            self.age = GAP_PATIENCE.min(self.age + 1);
        }
        for lease in &mut self.leases {
            *lease = if lease.left > 1 { Lease { left: lease.left - 1, ..*lease } } else { Lease::LAPSED };
        }
        if suspended {
            return;
        }
        let replica = &mut self.replica;
        replica.lease = replica.lease.saturating_sub(1);
        if let Heartbeat::Sent(age, _) | Heartbeat::Answered(age, _) = &mut replica.heartbeat {
            *age = LEASE_TTL.min(*age + 1);
        }
    }
}
