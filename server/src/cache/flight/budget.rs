//! The budget of a token endpoint, as the flights of a replica keep to it.
//!
//! The store knows who calls an endpoint and whether it works; here flights wait their turn to ask it, so that however
//! many they are few transactions are under way and one flight at a time looks whether a place has become free. First
//! come, first served, on one replica.
//!
//! ```text
//! flight ─ few at once ─▶ claim ─┬─ granted ────────────────▶ call ─▶ depart
//!                          ▲     ├─ full ─▶ door, one at a time ─┐
//!                          │     │                               │ a place was freed here, or a moment has passed
//!                          └─────┼───────────────────────────────┘
//!                                └─ shut ─▶ refused; the key comes back when it may be open
//! ```

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use prometheus_client::metrics::gauge::Gauge;
use rand::RngExt as _;
use tokio::{
    sync::{Notify, Semaphore},
    time::{Instant, timeout, timeout_at},
};
use tracing::{info, warn};

use super::attempt::{Attempt, Why, lease::LEASE_TTL};
use crate::{
    cache::entry::{self, MIN_SPACING},
    credential::{Endpoint, EndpointRules},
    error::{Error, ErrorKind, Result},
    metrics::EndpointRefusal,
    store::{
        Admission, BreakerRule, CallOutcome, Departure, EndpointClaim, EndpointState, Gate, Holder, LeaseOwner,
        LeaseScope, Pass, Turned,
    },
    time::Timestamp,
    types::Origin,
};

/// How many claims of one endpoint a replica has under way at once.
const CLAIMS_AT_ONCE: usize = 8;

/// How often the flight at the door looks whether another replica has freed a place.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How long it is taken for granted, without asking the store, that an endpoint which was shut still is.
const BELIEVED_FOR: Duration = Duration::from_secs(1);

/// After how long a key looks again at an endpoint that is shut for longer: a success elsewhere may have opened it.
const LONGEST_AWAY: Duration = Duration::from_secs(60);

/// Over how long keys come back that were refused together.
const SPREAD: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// The budgets of all endpoints. There are no more than are configured.
#[derive(Debug, Default)]
pub struct Budgets(Mutex<HashMap<Origin, Arc<Budget>>>);

impl Budgets {
    /// The budget of an endpoint.
    #[must_use]
    pub fn of(&self, endpoint: &Origin) -> Arc<Budget> {
        Arc::clone(lock(&self.0).entry(endpoint.clone()).or_default())
    }
}

/// What a replica knows of an endpoint, and who waits for it here.
#[derive(Debug)]
pub struct Budget {
    claims: Semaphore,
    /// Whose turn it is to look for a place once there was none.
    door: tokio::sync::Mutex<()>,
    /// Told of each place that this replica frees.
    freed: Notify,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    state: EndpointState,
    at: Instant,
    wall: Timestamp,
    /// The calls of this replica.
    calls: u32,
}

impl Known {
    /// The state as of now: of a clock that stood still and one that was set back the other is believed.
    fn state(&self, now: Timestamp) -> EndpointState {
        self.state.aged(self.age(now))
    }

    fn age(&self, now: Timestamp) -> Duration {
        self.at.elapsed().max(now.since(self.wall))
    }

    fn set(&mut self, state: EndpointState, now: Timestamp) {
        (self.state, self.at, self.wall) = (state, Instant::now(), now);
    }
}

impl Default for Budget {
    fn default() -> Self {
        let known = Known { state: EndpointState::default(), at: Instant::now(), wall: Timestamp::MIN, calls: 0 };
        Self {
            claims: Semaphore::new(CLAIMS_AT_ONCE),
            door: tokio::sync::Mutex::default(),
            freed: Notify::new(),
            known: Mutex::new(known),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Budget {
    /// What is known, as of now.
    #[must_use]
    pub fn state(&self, now: Timestamp) -> EndpointState {
        lock(&self.known).state(now)
    }

    /// Whether it was heard just now that the endpoint is shut, and still is.
    fn heard_shut(&self, now: Timestamp) -> Option<EndpointState> {
        let known = lock(&self.known);
        let state = known.state(now);
        (known.age(now) < BELIEVED_FOR && matches!(state.gate(), Gate::Shut(_))).then_some(state)
    }

    fn learn(&self, state: EndpointState, now: Timestamp) {
        lock(&self.known).set(state, now);
    }

    fn sit(self: &Arc<Self>, pass: Pass, gauge: Gauge, now: Timestamp) -> Seat {
        if !pass.probe {
            self.learn(EndpointState { failures: self.state(now).failures, ..EndpointState::default() }, now);
        }
        lock(&self.known).calls += 1;
        gauge.inc();
        Seat { budget: Arc::clone(self), pass, gauge }
    }

    /// Admits a call without the store, by what this replica last knew of the endpoint: of the calls its own alone are
    /// counted, and it alone hears of what comes of it. `None`: not now.
    ///
    /// For credentials that may be refreshed while the store is down.
    #[must_use]
    pub fn admit_alone(
        self: &Arc<Self>,
        rules: EndpointRules,
        owner: &LeaseOwner,
        early: bool,
        now: Timestamp,
    ) -> Option<Alone> {
        let mut known = lock(&self.known);
        let state = known.state(now);
        let probe = state.admits(owner, early)?;
        if known.calls >= rules.max_concurrent {
            return None;
        }
        known.calls += 1;
        if probe {
            let prober = Holder { owner: owner.to_string(), remaining: LONGEST_AWAY };
            known.set(EndpointState { probe: Some(prober), ..state }, now);
        }
        drop(known);
        Some(Alone { budget: Arc::clone(self), owner: owner.clone() })
    }

    /// Reckons with a call of which the store does not hear.
    fn reckon(&self, outcome: CallOutcome, owner: &LeaseOwner, rule: BreakerRule, now: Timestamp) {
        let mut known = lock(&self.known);
        let state = known.state(now).after(outcome, owner, rule);
        known.set(state, now);
    }

    fn rise(&self) {
        let mut known = lock(&self.known);
        known.calls = known.calls.saturating_sub(1);
        drop(known);
        self.freed.notify_one();
    }
}

/// A place among the calls of an endpoint, with the lease.
#[derive(Debug)]
pub struct Seat {
    budget: Arc<Budget>,
    pass: Pass,
    gauge: Gauge,
}

impl Seat {
    /// What the store admitted.
    pub(super) fn pass(&self) -> &Pass {
        &self.pass
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.gauge.dec();
        self.budget.rise();
    }
}

/// A place among the calls of this replica, given without the store.
#[derive(Debug)]
pub struct Alone {
    budget: Arc<Budget>,
    owner: LeaseOwner,
}

impl Alone {
    /// Ends the call, with what it says of the endpoint.
    pub fn depart(self, outcome: CallOutcome, rule: BreakerRule, now: Timestamp) {
        self.budget.reckon(outcome, &self.owner, rule, now);
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        self.budget.rise();
    }
}

/// What became of a claim.
pub(super) enum Entered {
    /// The lease and a place are ours.
    Seat(Seat),
    /// Somebody holds the lease.
    Held(Holder),
}

impl Attempt {
    /// Claims the lease and a place among the calls of the endpoint; waits for a place until `patience` is over.
    ///
    /// No claim is dropped in its middle: what it took would have to lapse.
    pub(super) async fn enter(
        &self,
        endpoint: &Endpoint,
        scope: &LeaseScope,
        owner: &LeaseOwner,
        patience: Instant,
    ) -> Result<Entered> {
        let budget = self.parts.budgets.of(&endpoint.origin);
        let early = self.want.why == Why::Operator;
        let claim = EndpointClaim {
            scope: scope.clone(),
            owner: owner.clone(),
            ttl: LEASE_TTL,
            endpoint: endpoint.origin.clone(),
            max_concurrent: endpoint.rules.max_concurrent,
            early,
        };
        let full = |_| self.refuse_full(endpoint);
        let _turn = timeout_at(patience, budget.claims.acquire()).await.map_err(full)?;
        let mut door = None;
        if budget.door.try_lock().is_err() {
            door = Some(timeout_at(patience, budget.door.lock()).await.map_err(full)?);
        }
        loop {
            if let Some(state) = budget.heard_shut(self.parts.clock.now()).filter(|_| !early) {
                return Err(self.refuse_shut(endpoint, &state));
            }
            match self.parts.store.admit(claim.clone()).await.map_err(|error| self.pause_for_store(error))? {
                Admission::Granted(pass) => {
                    let gauge = self.parts.metrics.endpoint_calls(endpoint.origin.as_str());
                    return Ok(Entered::Seat(budget.sit(pass, gauge, self.parts.clock.now())));
                }
                Admission::Held(holder) => return Ok(Entered::Held(holder)),
                Admission::Shut(state) => {
                    budget.learn(state.clone(), self.parts.clock.now());
                    self.parts.metrics.endpoint_open(endpoint.origin.as_str(), state.open_for.is_some());
                    return Err(self.refuse_shut(endpoint, &state));
                }
                Admission::Full if door.is_none() => {
                    door = Some(timeout_at(patience, budget.door.lock()).await.map_err(full)?);
                }
                Admission::Full if Instant::now() >= patience => return Err(self.refuse_full(endpoint)),
                Admission::Full => drop(timeout(LOOK_EVERY, budget.freed.notified()).await),
            }
        }
    }

    /// Gives back what was claimed, with what the call says of the endpoint.
    pub(super) async fn leave(&self, seat: Seat) -> Result<()> {
        let (outcome, pass) = (self.outcome(), seat.pass.clone());
        let rule = self.breaker_rule();
        let (endpoint, owner) = (pass.endpoint.clone(), pass.lease.owner.clone());
        match self.parts.store.depart(Departure { pass, outcome, rule }).await {
            Ok(turned) => {
                self.say(&endpoint, &turned);
                // Of a call that says nothing the store was not asked for the state.
                if outcome != CallOutcome::Unknown {
                    seat.budget.learn(turned.after, self.parts.clock.now());
                }
                Ok(())
            }
            Err(error) => {
                seat.budget.reckon(outcome, &owner, rule, self.parts.clock.now());
                Err(error)
            }
        }
    }

    /// Admits the call of this flight without the store, by what this replica knows. `None`: there is no endpoint.
    ///
    /// # Errors
    ///
    /// If the endpoint is not to be called now, or this replica alone makes as many calls of it as may be.
    pub fn enter_alone(&self) -> Result<Option<Alone>> {
        let Some(endpoint) = &self.credential.endpoint else { return Ok(None) };
        let (budget, now) = (self.parts.budgets.of(&endpoint.origin), self.parts.clock.now());
        let owner = LeaseOwner { replica: self.parts.replica.clone(), nonce: self.parts.rng.with(rand::Rng::next_u64) };
        let admitted = budget.admit_alone(endpoint.rules, &owner, self.want.why == Why::Operator, now);
        let refused = || match budget.state(now) {
            state if state.admits(&owner, false).is_none() => self.refuse_shut(endpoint, &state),
            _ => self.refuse_full(endpoint),
        };
        admitted.map(Some).ok_or_else(refused)
    }

    /// Ends what [`enter_alone`](Self::enter_alone) admitted, with what the call says of the endpoint.
    pub fn leave_alone(&self, admitted: Option<Alone>) {
        if let Some(admitted) = admitted {
            admitted.depart(self.outcome(), self.breaker_rule(), self.parts.clock.now());
        }
    }

    fn breaker_rule(&self) -> BreakerRule {
        let failures_to_open = self.credential.endpoint.as_ref().map_or(u32::MAX, |e| e.rules.failures_to_open);
        BreakerRule { failures_to_open, jitter: self.parts.rng.with(|rng| rng.random_range(0..=1000)) }
    }

    /// One line where an endpoint opens, and one where it closes.
    fn say(&self, endpoint: &Origin, turned: &Turned) {
        let (before, after) = (&turned.before, &turned.after);
        match (before.openings, after.openings) {
            (before, after) if before == after => return,
            (_, 0) => info!(%endpoint, "the token endpoint works again"),
            (_, openings) => {
                let left_alone_ms = after.open_for.unwrap_or_default().as_millis();
                warn!(%endpoint, failures = after.failures, openings, left_alone_ms, "the token endpoint fails and is left alone");
                self.parts.metrics.endpoint_opened(endpoint.as_str());
            }
        }
        self.parts.metrics.endpoint_open(endpoint.as_str(), after.open_for.is_some());
    }

    /// Refuses while the endpoint is not to be called. That is no failed attempt of the key: nothing was asked.
    fn refuse_shut(&self, endpoint: &Endpoint, state: &EndpointState) -> Error {
        let origin = &endpoint.origin;
        let left = match state.gate() {
            Gate::Shut(left) => left,
            Gate::Free | Gate::Probe => Duration::ZERO,
        };
        let (why, error, left) = if !state.wait.is_zero() && state.throttled {
            let text = format!("{origin} asks for fewer calls and is left alone for a while");
            (EndpointRefusal::Asked, Error::new(ErrorKind::UpstreamThrottled, text), left)
        } else if !state.wait.is_zero() {
            let text = format!("{origin} asks to be left alone for a while");
            (EndpointRefusal::Asked, Error::new(ErrorKind::UpstreamDown, text), left)
        } else if state.is_probed() && state.open_for.is_none_or(|left| left.is_zero()) {
            let text = format!("{origin} was failing, and one call is finding out whether it works again");
            // Long before the claim of the one that finds out would lapse, as a rule.
            (EndpointRefusal::Open, Error::new(ErrorKind::UpstreamDown, text), MIN_SPACING)
        } else {
            let text = format!("{origin} has failed {} times in a row and is left alone for a while", state.failures);
            (EndpointRefusal::Open, Error::new(ErrorKind::UpstreamDown, text), left)
        };
        self.parts.metrics.endpoint_refusal(origin.as_str(), why);
        self.come_back(error, left)
    }

    /// Ends the wait for a place.
    fn refuse_full(&self, endpoint: &Endpoint) -> Error {
        let Endpoint { origin, rules } = endpoint;
        let text = format!("{} calls of {origin} are under way, which is as many as may be", rules.max_concurrent);
        self.parts.metrics.endpoint_refusal(origin.as_str(), EndpointRefusal::Full);
        self.come_back(Error::new(ErrorKind::Overloaded, text), MIN_SPACING)
    }

    fn come_back(&self, error: Error, left: Duration) -> Error {
        let away = left.clamp(MIN_SPACING, LONGEST_AWAY);
        let spread = (away / 2).clamp(SPREAD.0, SPREAD.1);
        let away = away + self.parts.rng.with(|rng| entry::up_to(spread, rng));
        self.refuse(error, self.parts.clock.now().after(away))
    }
}

#[cfg(test)]
mod tests;
