//! The budget of a token endpoint, which all replicas share: how many calls at once, when it may be asked again, and
//! whether it works at all.
//!
//! What follows from a call is a pure function of the state and the call, [`EndpointState::after`], so that every store
//! and a replica without one reckon alike. Times are durations from now on the store's clock.
//!
//! ```text
//!          failures_to_open in a row              its time is up: one flight claims the probe
//! closed ─────────────────────────────▶ open ─────────────────────────────────▶ half open
//!    ▲                                    ▲                                         │
//!    └──────── any call succeeds ─────────┴────────────── the probe fails ──────────┘
//! ```

use std::time::Duration;

use super::{Holder, Lease, LeaseOwner, LeaseScope};
use crate::types::Origin;

/// How long an endpoint is left alone after it was found to fail; it doubles with each probe that fails.
const FIRST_OPENING: Duration = Duration::from_secs(5);

/// The longest time that it is left alone by the broker's own decision.
const LONGEST_OPENING: Duration = Duration::from_secs(60);

/// The bounds of an endpoint's Retry-After.
const RETRY_AFTER: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));

/// How long a 429 keeps the others from the endpoint: it is often about one client, which honours it in full.
const LONGEST_THROTTLING: Duration = Duration::from_secs(30);

/// What is known of an endpoint, as of now on the store's clock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointState {
    /// Transient failures in a row, seen by the whole fleet.
    pub failures: u32,
    /// How often in a row it was found to fail: at first, and by each probe since. 0: it is closed.
    pub openings: u32,
    /// How long it is still to be left alone for failing. `None`: it is closed. Zero: it is half open, a probe may find
    /// out.
    pub open_for: Option<Duration>,
    /// How long it still asks not to be called. Zero: it does not.
    pub wait: Duration,
    /// Whether it asked by a 429, rather than by a 503.
    pub throttled: bool,
    /// Who finds out whether it works again.
    pub probe: Option<Holder>,
}

/// Whether an endpoint may be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gate {
    /// It may.
    Free,
    /// By one flight of the fleet, which claims that.
    Probe,
    /// Not for this long, at least.
    Shut(Duration),
}

/// What a call says of the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallOutcome {
    /// Nothing: it was not made, or failed for a reason of its own.
    Unknown,
    /// It works.
    Succeeded,
    /// It asks for fewer calls (429), and for how long if it says so.
    Throttled(Option<Duration>),
    /// It fails, and asks not to be called for so long if it says so (503).
    Failed(Option<Duration>),
}

/// When an endpoint is left alone, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerRule {
    /// After so many failures in a row.
    pub failures_to_open: u32,
    /// Jitter that was drawn for this call, in thousandths: 0 is half of the nominal time, 1000 the whole.
    pub jitter: u16,
}

impl EndpointState {
    /// Whether the endpoint may be called.
    #[must_use]
    pub fn gate(&self) -> Gate {
        let open_for = self.open_for.unwrap_or_default();
        match (self.wait.max(open_for), self.open_for, &self.probe) {
            (left, _, _) if !left.is_zero() => Gate::Shut(left),
            (_, None, _) => Gate::Free,
            (_, Some(_), Some(prober)) if !prober.remaining.is_zero() => Gate::Shut(prober.remaining),
            (_, Some(_), _) => Gate::Probe,
        }
    }

    /// Whether somebody is finding out whether it works.
    #[must_use]
    pub fn is_probed(&self) -> bool {
        self.probe.as_ref().is_some_and(|prober| !prober.remaining.is_zero())
    }

    /// Whether a flight of `owner` may call the endpoint, and if so whether that is the probe; `early` as in
    /// [`EndpointClaim::early`]. A store claims the probe before it says so.
    #[must_use]
    pub fn admits(&self, owner: &LeaseOwner, early: bool) -> Option<bool> {
        let repeats = || self.probe.as_ref().is_some_and(|prober| prober.owner == owner.to_string());
        match self.gate() {
            Gate::Free => Some(false),
            Gate::Probe => Some(true),
            Gate::Shut(_) => (repeats() || (early && !self.is_probed())).then_some(true),
        }
    }

    /// The state once `elapsed` has passed and nothing has happened.
    #[must_use]
    pub fn aged(&self, elapsed: Duration) -> Self {
        let probe = self
            .probe
            .as_ref()
            .map(|prober| Holder { owner: prober.owner.clone(), remaining: prober.remaining.saturating_sub(elapsed) });
        Self {
            open_for: self.open_for.map(|left| left.saturating_sub(elapsed)),
            wait: self.wait.saturating_sub(elapsed),
            probe,
            ..self.clone()
        }
    }

    /// The state after a call of `owner`.
    ///
    /// Only the probe decides upon an endpoint that is open: what calls bring that were under way when it opened is not
    /// held against it once more. A success closes it, whoever had it.
    #[must_use]
    pub fn after(&self, outcome: CallOutcome, owner: &LeaseOwner, rule: BreakerRule) -> Self {
        let probes = self.probe.as_ref().is_some_and(|prober| prober.owner == owner.to_string());
        let mut state = self.clone();
        if probes {
            state.probe = None;
        }
        match outcome {
            CallOutcome::Unknown => {}
            CallOutcome::Succeeded => return Self::default(),
            CallOutcome::Throttled(asked) => {
                // It has answered, so it is there; the wait keeps the others from it.
                if probes {
                    state = Self { wait: state.wait, throttled: state.throttled, ..Self::default() };
                }
                state.ask_to_wait(asked.map(|asked| asked.min(LONGEST_THROTTLING)), true);
            }
            CallOutcome::Failed(asked) => {
                state.failures = state.failures.saturating_add(1);
                let opens = match state.open_for {
                    None => state.failures >= rule.failures_to_open,
                    Some(_) => probes,
                };
                if opens {
                    state.openings = state.openings.saturating_add(1);
                    state.open_for = Some(opening(state.openings, rule.jitter));
                }
                state.ask_to_wait(asked, false);
            }
        }
        state
    }

    fn ask_to_wait(&mut self, asked: Option<Duration>, throttled: bool) {
        let Some(asked) = asked.map(|asked| asked.clamp(RETRY_AFTER.0, RETRY_AFTER.1)) else { return };
        if asked > self.wait {
            (self.wait, self.throttled) = (asked, throttled);
        }
    }
}

/// For how long an endpoint is left alone: doubled with each opening, jittered over the upper half.
fn opening(number: u32, jitter: u16) -> Duration {
    let doublings = number.saturating_sub(1).min(8);
    let nominal = (FIRST_OPENING * (1 << doublings)).min(LONGEST_OPENING);
    nominal / 2 + nominal / 2 * u32::from(jitter.min(1000)) / 1000
}

/// A claim of a lease together with a place among the calls of an endpoint.
#[derive(Clone, Debug)]
pub struct EndpointClaim {
    /// What the lease covers.
    pub scope: LeaseScope,
    /// Whose both shall be.
    pub owner: LeaseOwner,
    /// When both lapse unless they are renewed.
    pub ttl: Duration,
    /// The endpoint.
    pub endpoint: Origin,
    /// How many calls of it may be under way at once in the fleet.
    pub max_concurrent: u32,
    /// Whether an endpoint that is shut may be probed before its time: an operator says so.
    pub early: bool,
}

/// A lease and a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pass {
    /// The lease.
    pub lease: Lease,
    /// The endpoint.
    pub endpoint: Origin,
    /// The number of the place.
    pub slot: u32,
    /// Whether it is the call that finds out whether the endpoint works.
    pub probe: bool,
}

/// The answer to a claim of both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Both are the caller's.
    Granted(Pass),
    /// Somebody holds the lease.
    Held(Holder),
    /// Every place is taken.
    Full,
    /// The endpoint is not to be called now.
    Shut(EndpointState),
}

/// What a call leaves behind.
#[derive(Clone, Debug)]
pub struct Departure {
    /// What is given back.
    pub pass: Pass,
    /// What the call says of the endpoint.
    pub outcome: CallOutcome,
    /// How failures are judged.
    pub rule: BreakerRule,
}

/// What became of an endpoint by a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Turned {
    /// Its state before.
    pub before: EndpointState,
    /// Its state after.
    pub after: EndpointState,
}

/// An endpoint, as operators see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointView {
    /// Its state.
    pub state: EndpointState,
    /// How many calls of it are under way in the fleet.
    pub calls: u32,
}

#[cfg(test)]
mod tests;
