//! The truth about tokens, as the upstream knows it: families of refresh tokens, who redeemed what and when, which calls
//! were alive together, which access tokens are live.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rand::{Rng as _, RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::{
    clock::{Clock, micros, millis},
    scene::{Credential, GRACE, LIFETIME, Mode, UPSTREAM_TIMEOUT},
};

/// How many access tokens of a credential are remembered, the latest: clients present no older ones.
const REMEMBERED: usize = 64;

/// How often the provider revokes a token of one credential at most: more would trip the broker's storm guard for good.
const REVOKE_EVERY: Duration = Duration::from_secs(13);

/// The upstream's tokens and their past.
#[derive(Debug)]
pub(crate) struct Truth {
    clock: Clock,
    credentials: Vec<Credential>,
    state: Mutex<State>,
}

/// How long the access tokens are valid that are given from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lifetime {
    /// For this long.
    For(Duration),
    /// All until the same time, in milliseconds since the Unix epoch.
    Until(i64),
}

#[derive(Debug)]
struct State {
    rng: StdRng,
    lifetime: Lifetime,
    /// For how long a call counts as alive: as long as its caller may wait for it. An older one is that of a process that
    /// was stopped or killed, and whose answer nobody can be waiting for.
    alive: Duration,
    /// The family of each credential now, and those before.
    families: Vec<Vec<Family>>,
    refresh: HashMap<String, Place>,
    access: Vec<VecDeque<Access>>,
    calls: Vec<Call>,
    /// The calls that have not ended, by credential.
    open: HashMap<usize, Vec<usize>>,
    overlaps: Vec<String>,
    zombies: u64,
    revoked: HashMap<usize, u64>,
}

/// Where a refresh token stands: its credential, its family, its place in that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    credential: usize,
    family: usize,
    index: usize,
}

/// The refresh tokens that descend from one log-in.
#[derive(Clone, Debug)]
pub(crate) struct Family {
    /// When the person logged in.
    pub(crate) planted: u64,
    /// All of them; the last is the current one.
    pub(crate) chain: Vec<String>,
    /// For each of the chain but the last, the call that redeemed it first.
    redeemed: Vec<usize>,
    /// Why and when it ended.
    pub(crate) death: Option<Death>,
    /// The loss was reported by the broker, in these words.
    pub(crate) reported: Option<String>,
}

/// The end of a family.
#[derive(Clone, Debug)]
pub(crate) struct Death {
    pub(crate) at: u64,
    /// The call that first redeemed the token that was replayed.
    pub(crate) first: Call,
    /// The call that replayed it.
    pub(crate) replay: Call,
    /// How many rotations behind the current one it was.
    pub(crate) behind: usize,
}

#[derive(Debug)]
struct Access {
    token: String,
    family: Option<usize>,
    /// Milliseconds since the Unix epoch.
    expiry: i64,
    revoked: bool,
}

/// One call of the token endpoint.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) id: usize,
    pub(crate) replica: usize,
    pub(crate) credential: usize,
    refresh: Option<String>,
    pub(crate) received: u64,
    pub(crate) ended: Option<u64>,
    /// The caller took the whole answer.
    pub(crate) delivered: bool,
}

/// What a call brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Redeemed {
    /// Tokens; the refresh token only where there is one to give. The lifetime is in milliseconds.
    Tokens { access: String, refresh: Option<String>, lifetime: i64 },
    /// `invalid_grant`.
    InvalidGrant,
}

/// What the protected API answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ApiAnswer {
    pub(crate) status: u16,
    /// When the token expires in truth, in milliseconds since the Unix epoch.
    pub(crate) expiry: i64,
}

impl Truth {
    /// No family yet.
    pub(crate) fn new(clock: Clock, credentials: Vec<Credential>, seed: u64) -> Self {
        let state = State {
            rng: StdRng::seed_from_u64(seed),
            lifetime: Lifetime::For(LIFETIME),
            alive: UPSTREAM_TIMEOUT,
            families: credentials.iter().map(|_| Vec::new()).collect(),
            refresh: HashMap::new(),
            access: credentials.iter().map(|_| VecDeque::new()).collect(),
            calls: Vec::new(),
            open: HashMap::new(),
            overlaps: Vec::new(),
            zombies: 0,
            revoked: HashMap::new(),
        };
        Self { clock, credentials, state: Mutex::new(state) }
    }

    /// How long tokens are valid that are given from now on.
    pub(crate) fn set_lifetime(&self, lifetime: Lifetime) {
        self.state().lifetime = lifetime;
    }

    /// How long callers wait for the upstream.
    pub(crate) fn set_patience(&self, alive: Duration) {
        self.state().alive = alive;
    }

    /// All credentials.
    pub(crate) fn credentials(&self) -> &[Credential] {
        &self.credentials
    }

    /// The number of a credential.
    pub(crate) fn number(&self, name: &str) -> Option<usize> {
        self.credentials.iter().position(|credential| credential.name == name)
    }

    /// Begins a new family, as a log-in does; its first refresh token.
    pub(crate) fn log_in(&self, credential: usize) -> String {
        let mut state = self.state();
        let token = state.token("rt");
        let family = state.families[credential].len();
        state.refresh.insert(token.clone(), Place { credential, family, index: 0 });
        let chain = vec![token.clone()];
        let planted = self.clock.now();
        state.families[credential].push(Family { planted, chain, redeemed: vec![], death: None, reported: None });
        token
    }

    /// A call arrived. Its number.
    pub(crate) fn receive(&self, replica: usize, credential: usize, refresh: Option<String>) -> usize {
        let now = self.clock.now();
        let mut state = self.state();
        let id = state.calls.len();
        if let Some(sent) = refresh.as_ref().filter(|_| self.credentials[credential].mode.rotates()) {
            let open = state.open.get(&credential).into_iter().flatten().map(|id| state.calls[*id].clone());
            let same: Vec<Call> = open.filter(|call| call.refresh.as_ref() == Some(sent)).collect();
            for other in same {
                if now - other.received > micros(state.alive) {
                    state.zombies += 1;
                } else if self.credentials[credential].mode == Mode::Strict {
                    let name = &self.credentials[credential].name;
                    let (a, b) = (other.replica, replica);
                    let text = format!("{name}: call {} of r{a} was alive when call {id} of r{b} came", other.id);
                    state.overlaps.push(format!("{text} at {now} us with the same refresh token"));
                }
            }
        }
        state.calls.push(Call { id, replica, credential, refresh, received: now, ended: None, delivered: false });
        state.open.entry(credential).or_default().push(id);
        id
    }

    /// Does what a call asks for.
    pub(crate) fn redeem(&self, call: usize) -> Redeemed {
        let now = self.clock.now();
        let mut state = self.state();
        let Call { credential, refresh, .. } = state.calls[call].clone();
        let mode = self.credentials[credential].mode;
        let wall = self.clock.wall_millis();
        if mode == Mode::Plain {
            let (access, lifetime) = state.access(credential, None, wall);
            return Redeemed::Tokens { access, refresh: None, lifetime };
        }
        let Some(place) = refresh.and_then(|token| state.refresh.get(&token).copied()) else {
            return Redeemed::InvalidGrant;
        };
        if place.credential != credential {
            return Redeemed::InvalidGrant;
        }
        match state.advance(place, mode, call, now) {
            Some(refresh) => {
                let (access, lifetime) = state.access(credential, Some(place.family), wall);
                Redeemed::Tokens { access, refresh: Some(refresh).filter(|_| mode != Mode::Kept), lifetime }
            }
            None => Redeemed::InvalidGrant,
        }
    }

    /// A call is over; `delivered`: the caller took the whole answer.
    pub(crate) fn end(&self, call: usize, delivered: bool) {
        let now = self.clock.now();
        let mut state = self.state();
        let ended = &mut state.calls[call];
        (ended.ended, ended.delivered) = (Some(now), delivered);
        let credential = ended.credential;
        state.open.entry(credential).or_default().retain(|open| *open != call);
    }

    /// Presents a token of a credential to the protected API.
    pub(crate) fn api(&self, credential: usize, token: &str) -> ApiAnswer {
        let now = self.clock.wall_millis();
        let state = self.state();
        let known = state.access[credential].iter().find(|access| access.token == token);
        let Some(access) = known else { return ApiAnswer { status: 401, expiry: 0 } };
        let family = access.family.and_then(|family| state.families[credential].get(family));
        let dead = family.is_some_and(|family| family.death.is_some());
        let live = now < access.expiry && !access.revoked && !dead;
        ApiAnswer { status: if live { 200 } else { 401 }, expiry: access.expiry }
    }

    /// Takes the access tokens of some credential back; its name.
    pub(crate) fn revoke_one(&self) -> Option<String> {
        let now = self.clock.now();
        let mut state = self.state();
        let credential = state.rng.random_range(0..self.credentials.len());
        if state.revoked.get(&credential).is_some_and(|last| now - last < micros(REVOKE_EVERY)) {
            return None;
        }
        state.revoked.insert(credential, now);
        state.access[credential].iter_mut().for_each(|access| access.revoked = true);
        Some(self.credentials[credential].name.clone())
    }

    /// The broker says that the grant is lost. Whether the family had ended and this is the first report of it.
    pub(crate) fn report(&self, credential: usize, words: &str) -> bool {
        let mut state = self.state();
        let Some(family) = state.families[credential].last_mut() else { return false };
        if family.death.is_none() || family.reported.is_some() {
            return false;
        }
        family.reported = Some(words.to_owned());
        true
    }

    /// All families of a credential, the current one last.
    pub(crate) fn families(&self, credential: usize) -> Vec<Family> {
        self.state().families[credential].clone()
    }

    /// How often the refresh tokens of a credential were replaced.
    pub(crate) fn rotations(&self, credential: usize) -> usize {
        self.state().families[credential].iter().map(Family::rotations).sum()
    }

    /// All calls.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    /// Pairs of calls of a strict family that were alive together with one refresh token.
    pub(crate) fn overlaps(&self) -> Vec<String> {
        self.state().overlaps.clone()
    }

    /// How many calls came while one that nobody could wait for any more was still open.
    pub(crate) fn zombies(&self) -> u64 {
        self.state().zombies
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Family {
    /// How often a refresh token was replaced.
    pub(crate) fn rotations(&self) -> usize {
        self.chain.len() - 1
    }

    /// The refresh token that the upstream takes.
    pub(crate) fn current(&self) -> Option<&str> {
        self.chain.last().filter(|_| self.death.is_none()).map(String::as_str)
    }
}

impl State {
    fn token(&mut self, kind: &str) -> String {
        format!("{kind}-{:016x}{:016x}", self.rng.next_u64(), self.rng.next_u64())
    }

    /// A new access token, given at `now` of the wall clock, and for how many milliseconds it is valid.
    fn access(&mut self, credential: usize, family: Option<usize>, now: i64) -> (String, i64) {
        let token = self.token("at");
        let lifetime = match self.lifetime {
            Lifetime::For(lifetime) => millis(lifetime),
            Lifetime::Until(end) => (end - now).max(0),
        };
        let given = &mut self.access[credential];
        if given.len() == REMEMBERED {
            given.pop_front();
        }
        given.push_back(Access { token: token.clone(), family, expiry: now + lifetime, revoked: false });
        (token, lifetime)
    }

    /// The refresh token that follows the one at `place`. `None`: it is not taken.
    fn advance(&mut self, place: Place, mode: Mode, call: usize, now: u64) -> Option<String> {
        let Place { credential, family, index } = place;
        let last = {
            let family = &self.families[credential][family];
            if family.death.is_some() {
                return None;
            }
            family.chain.len() - 1
        };
        if mode == Mode::Kept {
            return self.families[credential][family].chain.last().cloned();
        }
        if index == last {
            let token = self.token("rt");
            self.refresh.insert(token.clone(), Place { index: index + 1, ..place });
            let family = &mut self.families[credential][family];
            family.chain.push(token.clone());
            family.redeemed.push(call);
            return Some(token);
        }
        let first = self.calls[self.families[credential][family].redeemed[index]].clone();
        let in_time = mode == Mode::Overlap || (mode == Mode::Grace && now - first.received <= micros(GRACE));
        let lenient = in_time && index + 1 == last;
        let replay = self.calls[call].clone();
        let family = &mut self.families[credential][family];
        if lenient {
            return family.chain.last().cloned();
        }
        family.death = Some(Death { at: now, first, replay, behind: last - index });
        None
    }
}

#[cfg(test)]
mod tests;
