//! The steps, one function each.

use super::{
    Action, DEADLINE, Refresh,
    state::{Call, Flight, Intent, Loss, MAX_ORPHANS, Reached, RefreshToken, Step, Stray, World, latest, set_of},
    upstream::{Answer, Rotation},
};
use crate::Bug;

impl<const N: usize> Refresh<N> {
    /// Takes a step; `None` if it cannot be taken now.
    pub(super) fn step(&self, world: &mut World<N>, action: Action) -> Option<()> {
        world.reached = Reached::default();
        match action {
            Action::Acquire(replica) => self.acquire(world, replica),
            Action::Renew(replica) => renew(world, replica),
            Action::Load(replica) => self.load(world, replica),
            Action::BeginRotation(replica) => self.begin_rotation(world, replica),
            Action::Post(replica) => self.post(world, replica),
            Action::Handle(replica) => self.handle(world, replica),
            Action::Drop(replica) => drop_call(world, replica),
            Action::Receive(replica) => self.receive(world, replica),
            Action::TimeOut(replica) => time_out(world, replica),
            Action::Commit(replica) => self.commit(world, replica),
            Action::LoseGrant(replica) => self.lose_grant(world, replica),
            Action::Crash(replica) => crash(world, replica),
            Action::HandleOrphan(orphan) => self.handle_orphan(world, orphan),
            Action::Tick => {
                world.tick();
                Some(())
            }
        }?;
        world.forgotten |= world.reported && world.upstream.ended && world.store.grant.needs_reauth.is_none();
        Some(())
    }

    fn acquire(&self, world: &mut World<N>, replica: usize) -> Option<()> {
        let wanted = world.store.generation < self.generations && world.store.grant.may_be_tried();
        if world.flights[replica].step != Step::Idle || !wanted || world.store.lease.is_some() {
            return None;
        }
        world.store.claim(replica);
        world.flights[replica].step = Step::Claimed;
        Some(())
    }

    fn load(&self, world: &mut World<N>, replica: usize) -> Option<()> {
        let (before, grant) = (world.flights[replica], world.store.grant);
        if before.step != Step::Claimed {
            return None;
        }
        if !grant.may_be_tried() || world.store.generation >= self.generations {
            world.store.release(replica);
            world.end_flight(replica);
            return Some(());
        }
        let goes_on = before.version == grant.version;
        let refused = if goes_on { before.refused } else { 0 };
        let token = self.choose(world, refused);
        let foreign = grant.intent.filter(|intent| intent.owner != Some(replica));
        if self.must_wait(world, foreign, token) {
            return None;
        }
        // A doubt is about the family, not about one version of the grant: it stays until the flight ends.
        let doubted = before.in_doubt && (goes_on || !self.has(Bug::DoubtForgotten));
        let after_loss = grant.needs_reauth.is_some();
        let in_doubt = foreign.is_some() || doubted || after_loss;
        let (base, version) = (world.store.generation, grant.version);
        let step = Step::Loaded;
        world.flights[replica] = Flight { step, base, version, token, refused, in_doubt, after_loss, elapsed: 0 };
        Some(())
    }

    /// Which refresh token to send, given which were refused; 0 if there is none left.
    fn choose(&self, world: &World<N>, refused: u8) -> RefreshToken {
        let grant = world.store.grant;
        if set_of(grant.refresh_token) & !refused != 0 || self.has(Bug::CandidatesNotTried) {
            return if set_of(grant.refresh_token) & !refused == 0 { 0 } else { grant.refresh_token };
        }
        let candidate = latest(world.store.candidates & !refused);
        if candidate != 0 || self.rotation != Rotation::Grace {
            return candidate;
        }
        latest(set_of(grant.previous) & !refused)
    }

    /// Whether somebody else's call may be under way that this one must not meet.
    fn must_wait(&self, world: &World<N>, foreign: Option<Intent>, token: RefreshToken) -> bool {
        let young = foreign.filter(|intent| intent.age < DEADLINE);
        match self.rotation {
            Rotation::None => false,
            Rotation::Strict => young.is_some() && !self.has(Bug::TakeoverWithoutWaiting),
            Rotation::Grace if self.has(Bug::StrayCallForgotten) => false,
            Rotation::Grace => {
                let stray = world.store.grant.stray;
                young.is_some_and(|intent| intent.token != token) || stray.is_some_and(|stray| stray.token != token)
            }
        }
    }

    fn begin_rotation(&self, world: &mut World<N>, replica: usize) -> Option<()> {
        let flight = world.flights[replica];
        let late = self.has(Bug::IntentAfterPost);
        let due = if late { matches!(flight.step, Step::Waiting(_)) } else { flight.step == Step::Loaded };
        if self.rotation == Rotation::None || !due {
            return None;
        }
        let foreign = world.store.grant.intent.filter(|intent| intent.owner != Some(replica));
        let overtaken = self.must_wait(world, foreign, flight.token) && !self.has(Bug::IntentFencedOnVersionAlone);
        let lost = world.store.grant.needs_reauth.is_some() && !flight.after_loss;
        if world.store.grant.version != flight.version || overtaken || lost {
            world.flights[replica].step = if late { flight.step } else { Step::Claimed };
            return Some(());
        }
        world.flights[replica].in_doubt |= foreign.is_some();
        let grant = &mut world.store.grant;
        if let Some(before) = foreign.filter(|before| before.age < DEADLINE) {
            grant.stray = Some(Stray { token: before.token, age: before.age });
        }
        // A replica's own clock may be slow: what it has just journalled then looks older than it is.
        let age = u8::from(self.has(Bug::IntentOnReplicaClock));
        grant.intent = Some(Intent { owner: Some(replica), token: flight.token, age });
        if !late {
            world.flights[replica].step = Step::Journalled;
        }
        Some(())
    }

    fn post(&self, world: &mut World<N>, replica: usize) -> Option<()> {
        let flight = world.flights[replica];
        let journals = self.rotation != Rotation::None && !self.has(Bug::IntentAfterPost);
        if flight.step != if journals { Step::Journalled } else { Step::Loaded } {
            return None;
        }
        if flight.elapsed >= DEADLINE && !self.has(Bug::LatePost) {
            world.flights[replica].step = Step::Claimed;
            world.reached.too_late = true;
            return Some(());
        }
        world.called_twice |= self.rotation == Rotation::Strict && world.calls_with(flight.token);
        let flight = &mut world.flights[replica];
        flight.step = Step::Waiting(Call::Sent);
        if self.has(Bug::LatePost) || self.has(Bug::DeadlineFromPost) {
            flight.elapsed = 0;
        }
        Some(())
    }

    fn handle(&self, world: &mut World<N>, replica: usize) -> Option<()> {
        let flight = world.flights[replica];
        if flight.step != Step::Waiting(Call::Sent) || world.upstream.issued == self.refresh_tokens {
            return None;
        }
        let answer = world.upstream.redeem(self.rotation, flight.token);
        world.flights[replica].step = Step::Waiting(Call::Answered(answer));
        Some(())
    }

    fn handle_orphan(&self, world: &mut World<N>, orphan: usize) -> Option<()> {
        if world.upstream.issued == self.refresh_tokens {
            return None;
        }
        let (token, _) = world.orphans[orphan].take()?;
        world.upstream.redeem(self.rotation, token);
        Some(())
    }

    fn receive(&self, world: &mut World<N>, replica: usize) -> Option<()> {
        let Step::Waiting(Call::Answered(answer)) = world.flights[replica].step else { return None };
        let flight = &mut world.flights[replica];
        flight.step = match answer {
            Answer::Token(token) => Step::Pending(token.unwrap_or(0)),
            Answer::InvalidGrant => Step::Refused,
        };
        flight.elapsed = 0;
        if self.has(Bug::ServedBeforeCommit) && matches!(answer, Answer::Token(_)) {
            world.seen = world.seen.max(flight.base + 1);
        }
        Some(())
    }

    fn commit(&self, world: &mut World<N>, replica: usize) -> Option<()> {
        let flight = world.flights[replica];
        let Step::Pending(token) = flight.step else { return None };
        let generation = flight.base + 1;
        if world.store.generation == flight.base || self.has(Bug::NoFence) {
            world.went_back |= generation <= world.store.generation;
            world.store.generation = generation;
            world.seen = world.seen.max(generation);
            world.reached.takeover = flight.in_doubt;
            world.reached.saved = flight.refused != 0;
        } else {
            world.reached.superseded = true;
        }
        if token != 0 {
            self.keep_refresh_token(world, flight, token);
        }
        let grant = &mut world.store.grant;
        let any = self.has(Bug::ForeignIntentEnded);
        grant.intent = grant.intent.filter(|intent| intent.owner != Some(replica) && !any);
        world.store.release(replica);
        world.end_flight(replica);
        Some(())
    }

    fn keep_refresh_token(&self, world: &mut World<N>, flight: Flight, token: RefreshToken) {
        world.settled |= set_of(token);
        let grant = &mut world.store.grant;
        if grant.version != flight.version {
            if !self.has(Bug::CandidateDropped) {
                world.store.candidates |= set_of(token);
                grant.retry = grant.needs_reauth.is_some();
            }
            return;
        }
        grant.version += 1;
        grant.previous = match self.bug {
            Some(Bug::PreviousDropped) => 0,
            Some(Bug::PreviousNotTheOneSent) => grant.refresh_token,
            _ => flight.token,
        };
        grant.refresh_token = token;
        // The family may have been ended since this flight was begun.
        let outdated = grant.needs_reauth.is_some() && !flight.after_loss && !self.has(Bug::LossForgotten);
        grant.needs_reauth = grant.needs_reauth.filter(|_| outdated);
        grant.retry = outdated;
        world.store.candidates &= !(flight.refused | set_of(flight.token));
    }

    fn lose_grant(&self, world: &mut World<N>, replica: usize) -> Option<()> {
        let flight = &mut world.flights[replica];
        if flight.step != Step::Refused {
            return None;
        }
        flight.refused |= set_of(flight.token);
        let (flight, grant) = (*flight, world.store.grant);
        let moved = grant.version != flight.version;
        if !moved && self.choose(world, flight.refused) != 0 {
            world.flights[replica].step = Step::Claimed;
            return Some(());
        }
        if !moved || self.has(Bug::InvalidGrantAlwaysBelieved) {
            self.record_loss(world, replica);
        }
        world.store.release(replica);
        world.end_flight(replica);
        Some(())
    }

    /// Who was begun before knows nothing of it; what may have caused it is said, and the flight's own call has ended.
    fn record_loss(&self, world: &mut World<N>, replica: usize) {
        let foreign = world.store.grant.intent.is_some_and(|intent| intent.owner != Some(replica));
        let in_doubt = world.flights[replica].in_doubt || foreign;
        let grant = &mut world.store.grant;
        (grant.needs_reauth, grant.retry) = (Some(if in_doubt { Loss::InDoubt } else { Loss::Revoked }), false);
        grant.intent = grant.intent.filter(|intent| intent.owner != Some(replica));
        for flight in &mut world.flights {
            flight.after_loss = false;
        }
        world.reported = true;
    }
}

fn renew<const N: usize>(world: &mut World<N>, replica: usize) -> Option<()> {
    world.store.lease.filter(|lease| lease.owner == Some(replica))?;
    world.store.claim(replica);
    Some(())
}

fn drop_call<const N: usize>(world: &mut World<N>, replica: usize) -> Option<()> {
    let Step::Waiting(Call::Sent | Call::Answered(_)) = world.flights[replica].step else { return None };
    world.flights[replica].step = Step::Waiting(Call::Lost);
    Some(())
}

fn time_out<const N: usize>(world: &mut World<N>, replica: usize) -> Option<()> {
    let flight = world.flights[replica];
    if !matches!(flight.step, Step::Waiting(_)) || flight.elapsed < DEADLINE {
        return None;
    }
    world.store.release(replica);
    world.end_flight(replica);
    Some(())
}

/// The process ends; a request that it has sent goes on by itself.
fn crash<const N: usize>(world: &mut World<N>, replica: usize) -> Option<()> {
    let flight = world.flights[replica];
    if flight.step == Step::Idle {
        return None;
    }
    if flight.step == Step::Waiting(Call::Sent) {
        let free = (0..MAX_ORPHANS).find(|place| world.orphans[*place].is_none())?;
        world.orphans[free] = Some((flight.token, flight.elapsed));
        world.orphans.sort_unstable();
    }
    world.end_flight(replica);
    Some(())
}
