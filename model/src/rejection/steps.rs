//! The steps, one function each.

use super::{
    Action, GAP_PATIENCE, LEASE_TTL, Rejection,
    state::{Event, Heartbeat, Kind, Lease, Probe, Replica, Report, World, highest, set_of, up_to},
};
use crate::Bug;

impl<const N: usize> Rejection<N> {
    /// Takes a step; `None` if it cannot be taken now.
    pub(super) fn step(&self, world: &mut World<N>, action: Action) -> Option<()> {
        self.take(world, action)?;
        self.forget(world);
        Some(())
    }

    fn take(&self, world: &mut World<N>, action: Action) -> Option<()> {
        match action {
            Action::Reject => reject(world),
            Action::CommitRejection => self.commit_rejection(world),
            Action::Acknowledge => self.acknowledge(world),
            Action::Mint => self.mint(world),
            Action::BeginOther => self.begin_other(world),
            Action::CommitOther(event) => end_other(world, event, Event::Committed(Kind::Other)),
            Action::AbortOther(event) => end_other(world, event, Event::Aborted),
            Action::Heartbeat => self.heartbeat(world),
            Action::Renew => self.renew(world),
            Action::Drop => drop_heartbeat(world),
            Action::Renewed => self.renewed(world),
            Action::Apply(event) => self.apply(world, event),
            Action::Forget(event) => forget_event(world, event),
            Action::Load => load(world),
            Action::Insert => insert(world),
            Action::Evict => self.evict(world),
            Action::Restart => self.restart(world),
            Action::Begin => self.begin(world),
            Action::ReadCache => self.read(world, false),
            Action::ReadFlight => self.read(world, true),
            Action::Answer => self.answer(world),
            Action::Tick => self.tick(world, false),
            Action::Suspend => self.tick(world, true),
            Action::RenewPeer(peer) => renew_peer(world, peer),
            Action::AnswerOfPeer => self.answer_of_peer(world),
        }
    }

    /// Forgets what makes no difference any more, so that fewer states remain.
    fn forget(&self, world: &mut World<N>) {
        if world.replica.lease == 0 || self.caught_up(world) {
            world.replica.target = 0;
        }
        if world.report == Report::Acknowledged {
            world.leases = [Lease::LAPSED; N];
        }
        let judged_once = self.has(Bug::FreshnessReadEarly) || self.has(Bug::FreshnessReadLate);
        if world.replica.lease == 0 && !judged_once {
            world.probe = world.probe.map(|probe| Probe { fresh: false, ..probe });
        }
    }

    /// Whether the replica's lease has neither lapsed nor been renewed without catching up.
    pub(super) fn lease_counts(&self, world: &World<N>) -> bool {
        world.replica.lease > 0 && (self.caught_up(world) || self.has(Bug::NoCatchUp))
    }

    fn caught_up(&self, world: &World<N>) -> bool {
        if self.has(Bug::GapsIgnored) {
            world.replica.top() >= world.replica.target
        } else {
            !world.misses(world.replica.target)
        }
    }

    fn commit_rejection(&self, world: &mut World<N>) -> Option<()> {
        let Report::Open(event) = world.report else { return None };
        world.events[event] = Some(Event::Committed(Kind::Rejected));
        world.floor = 2;
        let too_late = world.age == GAP_PATIENCE && !self.has(Bug::LateEventNotRepeated);
        world.report = if too_late { Report::None } else { Report::Committed(event) };
        world.age = 0;
        if too_late {
            world.unhear();
        }
        Some(())
    }

    fn acknowledge(&self, world: &mut World<N>) -> Option<()> {
        match world.report {
            Report::Committed(_) => {}
            Report::Open(_) if self.has(Bug::AckBeforeCommit) => {}
            // A peer that has generation 2 takes the report.
            Report::None if self.has(Bug::OldReportAnsweredAtOnce) && world.generation == 2 => {
                world.report = Report::Acknowledged;
                return Some(());
            }
            _ => return None,
        }
        let awaited = |lease: &Lease| lease.left > 0 && !lease.heard;
        if world.leases.iter().any(awaited) && !self.has(Bug::AckWithoutWaiting) {
            return None;
        }
        world.report = Report::Acknowledged;
        Some(())
    }

    /// Mints and commits generation 2; the row's other writer must have ended.
    fn mint(&self, world: &mut World<N>) -> Option<()> {
        if !self.mints || world.generation == 2 || matches!(world.report, Report::Open(_)) {
            return None;
        }
        world.append(Event::Committed(Kind::Committed))?;
        world.generation = 2;
        Some(())
    }

    fn begin_other(&self, world: &mut World<N>) -> Option<()> {
        let is_other =
            |event: &&Event| matches!(event, Event::Open(Kind::Other) | Event::Committed(Kind::Other) | Event::Aborted);
        if world.events.iter().flatten().filter(is_other).count() >= self.others {
            return None;
        }
        world.append(Event::Open(Kind::Other)).map(drop)
    }

    fn heartbeat(&self, world: &mut World<N>) -> Option<()> {
        if world.replica.heartbeat != Heartbeat::None {
            return None;
        }
        let replica = &world.replica;
        let applied = if self.has(Bug::GapsIgnored) { up_to(replica.top()) } else { replica.applied };
        world.replica.heartbeat = Heartbeat::Sent(0, applied & world.awaited() != 0);
        Some(())
    }

    fn renew(&self, world: &mut World<N>) -> Option<()> {
        let Heartbeat::Sent(age, heard) = world.replica.heartbeat else { return None };
        // A slow clock says that the lease ends sooner than it does by the replica's own reckoning.
        let left = LEASE_TTL - u8::from(self.has(Bug::LeaseOnReplicaClock));
        world.leases[0] = Lease { left, heard };
        world.replica.heartbeat = Heartbeat::Answered(age, highest(world.visible()));
        Some(())
    }

    fn renewed(&self, world: &mut World<N>) -> Option<()> {
        let replica = &mut world.replica;
        let Heartbeat::Answered(age, top) = replica.heartbeat else { return None };
        replica.heartbeat = Heartbeat::None;
        let left = if self.has(Bug::LeaseFromAnswer) { LEASE_TTL } else { LEASE_TTL - age };
        if left > 0 && replica.lease == 0 {
            replica.target = top;
        }
        replica.lease = replica.lease.max(left);
        Some(())
    }

    fn apply(&self, world: &mut World<N>, event: usize) -> Option<()> {
        let Some(Event::Committed(kind)) = world.events[event] else { return None };
        let (replica, id) = (&mut world.replica, set_of(event));
        let passed_over = self.has(Bug::GapsIgnored) && up_to(replica.top()) & id != 0;
        if replica.applied & id != 0 || passed_over {
            return None;
        }
        replica.applied |= id;
        if kind == Kind::Rejected {
            replica.floor = 2;
            if replica.held < 2 {
                replica.held = 0;
            }
        }
        Some(())
    }

    fn evict(&self, world: &mut World<N>) -> Option<()> {
        let replica = &mut world.replica;
        replica.held = 0;
        if self.has(Bug::FloorEvicted) {
            replica.floor = 0;
        }
        Some(())
    }

    /// A new process knows the events that it can see, and that all other ids below may yet come.
    fn restart(&self, world: &mut World<N>) -> Option<()> {
        if !self.restarts {
            return None;
        }
        let visible = world.visible();
        let applied = if self.has(Bug::GapsUnknownAtStart) { up_to(highest(visible)) } else { visible };
        world.replica = Replica::started(applied);
        world.probe = None;
        Some(())
    }

    /// Without the forgetful client only calls begun after the acknowledgement matter.
    fn begin(&self, world: &mut World<N>) -> Option<()> {
        let after_acknowledgement = world.report == Report::Acknowledged;
        if world.probe.is_some() || !(after_acknowledgement || self.forgetful_client) {
            return None;
        }
        let fresh = self.lease_counts(world) || self.has(Bug::FreshnessReadLate);
        world.probe = Some(Probe { after_acknowledgement, fresh, generation: 0 });
        Some(())
    }

    fn read(&self, world: &mut World<N>, flight: bool) -> Option<()> {
        let probe = world.probe.filter(|probe| probe.generation == 0)?;
        let replica = &world.replica;
        let found = if flight { replica.loaded } else { replica.held };
        let unchecked = flight && self.has(Bug::FlightPastFloor);
        if found == 0 || (found < replica.floor && !unchecked) {
            return None;
        }
        world.probe = Some(Probe { generation: found, ..probe });
        Some(())
    }

    fn answer(&self, world: &mut World<N>) -> Option<()> {
        let probe = world.probe.take().filter(|probe| probe.generation > 0)?;
        let verified = probe.fresh && (self.has(Bug::FreshnessReadEarly) || self.lease_counts(world));
        world.stale |= verified && probe.after_acknowledgement && probe.generation == 1;
        if self.forgetful_client {
            world.went_back |= probe.generation < world.seen;
            world.seen = world.seen.max(probe.generation);
        }
        Some(())
    }

    /// A peer gives the forgetful client the present generation.
    fn answer_of_peer(&self, world: &mut World<N>) -> Option<()> {
        if !self.forgetful_client {
            return None;
        }
        world.seen = world.seen.max(world.generation);
        Some(())
    }

    fn tick(&self, world: &mut World<N>, suspended: bool) -> Option<()> {
        if suspended && !self.has(Bug::ClockStandsStill) {
            return None;
        }
        world.tick(suspended);
        Some(())
    }
}

/// A peer's heartbeat: it has applied all that it could see, or it would only be waited for the longer.
fn renew_peer<const N: usize>(world: &mut World<N>, peer: usize) -> Option<()> {
    let heard = world.visible() & world.awaited() != 0;
    world.leases[peer] = Lease { left: LEASE_TTL, heard };
    Some(())
}

fn reject<const N: usize>(world: &mut World<N>) -> Option<()> {
    if world.report != Report::None {
        return None;
    }
    world.report = Report::Open(world.append(Event::Open(Kind::Rejected))?);
    Some(())
}

/// An id that has been missing for long; one that can be seen would have been applied instead.
fn forget_event<const N: usize>(world: &mut World<N>, event: usize) -> Option<()> {
    let old = world.age == GAP_PATIENCE && world.report == Report::Open(event);
    if !old || world.replica.top() <= highest(set_of(event)) {
        return None;
    }
    world.replica.applied |= set_of(event);
    Some(())
}

fn end_other<const N: usize>(world: &mut World<N>, event: usize, end: Event) -> Option<()> {
    if world.events[event] != Some(Event::Open(Kind::Other)) {
        return None;
    }
    world.events[event] = Some(end);
    Some(())
}

fn drop_heartbeat<const N: usize>(world: &mut World<N>) -> Option<()> {
    world.replica.heartbeat = Heartbeat::None;
    Some(())
}

/// A flight reads the row, and learns the floor from it.
fn load<const N: usize>(world: &mut World<N>) -> Option<()> {
    let (generation, floor) = (world.generation, world.floor);
    let replica = &mut world.replica;
    replica.floor = replica.floor.max(floor);
    if replica.loaded != 0 || replica.held >= generation || generation < floor {
        return None;
    }
    replica.loaded = generation;
    Some(())
}

fn insert<const N: usize>(world: &mut World<N>) -> Option<()> {
    let replica = &mut world.replica;
    replica.held = replica.held.max(replica.loaded);
    replica.loaded = 0;
    Some(())
}
