//! The cache: from an authorized request to a token.
//!
//! ```text
//! memory hit ─────────────────────────────────────────────▶ reply
//! flight (one task per key) ─ store ─ lease ─ provider ─ store ─▶ memory ▶ reply
//! ```
//!
//! A hit takes no lock shared across keys, touches no store and spawns nothing. Whatever writes a token goes through
//! `flight/attempt.rs`.

mod claim;
pub mod entry;
pub mod fleet;
pub mod flight;
pub mod guard;
pub mod history;
pub mod hub;
pub mod inspect;
pub mod janitor;
pub mod memory;
mod near;
pub mod pending;
pub mod refresher;
mod reject;
pub mod trust;
pub mod turns;
mod watch;

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;

use self::{
    claim::Standing,
    entry::{Freshness, freshness, is_servable},
    flight::{
        Flights, Ticket,
        attempt::{Attempt, Want, Why},
        budget::Budgets,
    },
    guard::StormGuard,
    history::History,
    hub::Hub,
    memory::{Entry, Memory},
    pending::Pending,
    refresher::Schedule,
    trust::Trust,
    turns::Turns,
};
use crate::{
    audit::AuditLog,
    bug::{self, Bug},
    credential::{Catalog, Credential, WhenDegraded},
    error::{Error, ErrorKind, Result, Violation},
    failpoint::Failpoints,
    metrics::{Counted, Metrics},
    policy::Authorized,
    rng::SharedRng,
    store::{Rejected, SharedStore, TokenRow},
    time::{SharedClock, Timestamp},
    trace::Tracer,
    types::{CredentialName, Generation, KeyHash, ReplicaId, Selector, TokenKey, TokenRequest},
};

/// How often a caller tries again because what it waited for will not do: the flight was begun before its rejection,
/// or the token ran out on the way.
const MAX_ROUNDS: usize = 4;

/// How long a caller waits that has set no deadline: the longest upstream call and some room.
const DEFAULT_PATIENCE: Duration = Duration::from_secs(30);

/// What the cache and its flights work with.
#[derive(Debug)]
pub struct Parts {
    /// Where tokens outlive the process.
    pub store: SharedStore,
    /// Where they are found at once.
    pub memory: Memory,
    /// Who is told of changes.
    pub hub: Hub,
    /// When keys are looked at again.
    pub schedule: Schedule,
    /// The last attempts.
    pub history: History,
    /// How much this replica knows of what the others rejected.
    pub trust: Trust,
    /// Which keys are in a storm of rejections.
    pub guard: StormGuard,
    /// Whose turn it is at the grants that rotate.
    pub turns: Turns,
    /// How the token endpoints may be called.
    pub budgets: Budgets,
    /// What is recorded of flights.
    pub tracer: Tracer,
    /// What is counted.
    pub metrics: Metrics,
    /// Where each attempt is recorded.
    pub audit: AuditLog,
    /// What time it is.
    pub clock: SharedClock,
    /// Jitter and nonces.
    pub rng: SharedRng,
    /// Who this replica is.
    pub replica: ReplicaId,
    /// When it started.
    pub started_at: Timestamp,
    /// What the store has not taken yet.
    pub pending: Arc<Pending>,
    /// Where a test makes the process fail.
    pub failpoints: Failpoints,
    /// The calls under way that spend a refresh token. Once it is closed, none begins.
    pub rotations: TaskTracker,
}

impl Parts {
    /// Takes an entry into memory, on the schedule, and to its watchers. Returns what memory holds now.
    fn keep(&self, entry: Entry) -> Arc<Entry> {
        let offered = entry.token.generation;
        let kept = self.memory.insert(entry);
        self.schedule.at(kept.key.clone(), kept.token.refresh_at);
        if kept.token.generation == offered && offered >= self.memory.floor(&kept.key.hash()) {
            self.hub.token(&kept);
        }
        kept
    }
}

impl Parts {
    /// Takes a stored token into memory, if it was minted as its credential is configured now; replaces it, if that is
    /// overdue, at a time spread over `spread`.
    fn take_in(&self, credential: &Credential, row: TokenRow, spread: Duration) -> bool {
        self.memory.raise_floor(row.key.hash(), row.min_generation);
        let Some(mut token) = row.token.filter(|_| row.config == credential.config) else { return false };
        if token.generation < row.min_generation {
            return false;
        }
        let overdue = self.clock.now().after(self.rng.with(|rng| entry::up_to(spread, rng)));
        if token.refresh_at < overdue {
            token.refresh_at = overdue;
        }
        self.keep(Entry::new(row.key, token, row.config, row.last_used_at));
        true
    }
}

/// Serves tokens from memory, and sees to it that they are there.
#[derive(Debug)]
pub struct TokenCache {
    parts: Arc<Parts>,
    catalog: Catalog,
    max_tokens: u64,
    pilot: Pilot,
    rejections: Flights<(KeyHash, Generation), Rejected>,
    /// By the event that the others are to hear of.
    acknowledgements: Flights<u64, ()>,
    /// The looks at the store for claims of clients; each brings the row's generation.
    looks: Flights<KeyHash, Generation>,
    tasks: TaskTracker,
}

/// Starts the flights that bring tokens. Cheap to clone.
#[derive(Clone, Debug)]
struct Pilot {
    parts: Arc<Parts>,
    flights: Arc<Flights<KeyHash, Arc<Entry>>>,
}

impl Pilot {
    /// Joins the flight of the key, or starts one.
    fn fly(&self, credential: &Arc<Credential>, want: Want) -> Ticket<Arc<Entry>> {
        let key = want.key.hash();
        self.flights.join(key, || Attempt::new(Arc::clone(&self.parts), Arc::clone(credential), want).run())
    }
}

/// A token for a caller.
#[derive(Clone, Debug)]
pub struct Served {
    /// The token. `None`: the caller has it already.
    pub entry: Option<Arc<Entry>>,
    /// Whether no acknowledged rejection of it exists. False: the replica has lost touch with the others.
    pub verified: bool,
    /// The current token, also where the caller has it already.
    pub current: Arc<Entry>,
    /// Whether it was in memory.
    pub hit: bool,
    /// When it was found.
    pub at: Timestamp,
}

/// A token that was found.
#[derive(Debug)]
struct Found {
    entry: Arc<Entry>,
    /// In memory.
    hit: bool,
    at: Timestamp,
}

/// What a caller can use.
#[derive(Clone, Copy, Debug, Default)]
struct Need {
    min_validity: Duration,
    avoid: Option<Generation>,
    /// It has seen this one, which exists: an older one will not do.
    at_least: Option<Generation>,
}

impl Need {
    fn takes(self, generation: Generation) -> bool {
        Some(generation) != self.avoid && self.at_least.is_none_or(|lowest| lowest <= generation)
    }
}

impl TokenCache {
    /// A cache of the tokens of `catalog`; its flights run on `tasks`.
    #[must_use]
    pub fn new(parts: Parts, catalog: Catalog, max_tokens: u64, tasks: TaskTracker) -> Self {
        let parts = Arc::new(parts);
        let pilot = Pilot { parts: Arc::clone(&parts), flights: Arc::new(Flights::new(tasks.clone())) };
        let (rejections, acknowledgements) = (Flights::new(tasks.clone()), Flights::new(tasks.clone()));
        let looks = Flights::new(tasks.clone());
        Self { parts, catalog, max_tokens, pilot, rejections, acknowledgements, looks, tasks }
    }

    /// A token that is valid now and for as long as asked; if the request reports one as refused, that one first. None
    /// older than what the request says to have seen, unless no such generation exists or the store does not answer.
    ///
    /// Cancel-safe: a flight that this call began goes on. Without a `deadline` it waits for at most 30 s.
    ///
    /// # Errors
    ///
    /// `NoSuchCredential`; `StoreDown` if the replica is out of touch and the credential is refused then; `BadRequest` if
    /// the upstream's tokens never last that long; `UpstreamSlow` if the deadline
    /// passes; what the flight failed with.
    pub async fn get(&self, request: &Authorized<TokenRequest>, deadline: Option<Instant>) -> Result<Served> {
        let (credential, key) = self.resolve(&request.selector)?;
        if let Some(generation) = request.rejected {
            // Boxed, as below: what few calls do takes no room in the future of all, which is moved about.
            Box::pin(self.take_report(credential, &key, generation, deadline)).await?;
        }
        let need = Need { min_validity: request.min_validity, avoid: request.rejected, at_least: None };
        let claim = request.if_generation_not.max(request.rejected);
        let term = self.parts.trust.term();
        let (Found { entry, hit, at }, up_to_date) =
            self.no_older_than(claim, credential, &key, need, deadline).await?;
        // One and the same term before and after: nothing that was acknowledged before this call began was missed.
        let verified = term.is_some() && self.parts.trust.term() == term && entry.is_stored() && up_to_date;
        if !verified && credential.when_degraded == WhenDegraded::Refuse {
            let message = "this replica is out of touch with the others, and the credential is refused meanwhile";
            return Err(Error::new(ErrorKind::StoreDown, message).with_retry_after(entry::MIN_SPACING));
        }
        if !verified {
            self.parts.metrics.fleet.degraded.inc();
        }
        entry.mark_used(at);
        let is_known = request.if_generation_not == Some(entry.token.generation);
        Ok(Served { entry: (!is_known).then(|| Arc::clone(&entry)), verified, current: entry, hit, at })
    }

    /// The token of a hit that nothing is unusual about: it is fresh, this replica is in touch with the others, and the
    /// caller has neither seen a later one nor reports one. Nothing has happened by that: see [`TokenCache::note_hit`].
    #[must_use]
    pub fn peek(&self, request: &Authorized<TokenRequest>) -> Option<Served> {
        let term = self.parts.trust.term()?;
        if request.rejected.is_some() {
            return None;
        }
        let key = TokenKey::new(request.selector.clone());
        let (entry, at) = (self.held(&key, Need::default())?, self.now());
        let generation = entry.token.generation;
        let usual = freshness(&entry.token, at, request.min_validity) == Freshness::Fresh
            && request.if_generation_not.is_none_or(|known| known <= generation)
            && entry.is_stored()
            && self.parts.trust.term() == Some(term);
        let is_known = request.if_generation_not == Some(generation);
        let told = (!is_known).then(|| Arc::clone(&entry));
        usual.then_some(Served { entry: told, verified: true, current: entry, hit: true, at })
    }

    /// Notes that a token which was peeked at is served.
    pub fn note_hit(&self, served: &Served) {
        self.parts.metrics.hits.inc();
        served.current.mark_used(served.at);
    }

    /// Takes a generation out of service that a caller reports along with its request for the next one.
    async fn take_report(
        &self,
        credential: &Arc<Credential>,
        key: &TokenKey,
        generation: Generation,
        deadline: Option<Instant>,
    ) -> Result<()> {
        let end = patience(deadline);
        match within(end, self.reject_generation(credential, key, generation, end)).await {
            // The others have not heard, but this replica and this caller have done with it. One that is newer than
            // what there is here is not answered with something older still.
            Err(error) if error.kind() == ErrorKind::StoreDown && self.floor(key) > generation => Ok(()),
            reported => reported,
        }
    }

    /// The current token for a client that claims to have seen a generation. False: it may be older than that, for the
    /// store does not answer.
    async fn no_older_than(
        &self,
        claim: Option<Generation>,
        credential: &Arc<Credential>,
        key: &TokenKey,
        need: Need,
        deadline: Option<Instant>,
    ) -> Result<(Found, bool)> {
        let found = self.find(credential, key, need, deadline).await?;
        let Some(claim) = claim.filter(|claim| found.entry.token.generation < *claim) else { return Ok((found, true)) };
        Box::pin(self.catch_up(claim, credential, key, need, deadline)).await
    }

    /// The same, where what was found is older than the claim.
    async fn catch_up(
        &self,
        claim: Generation,
        credential: &Arc<Credential>,
        key: &TokenKey,
        need: Need,
        deadline: Option<Instant>,
    ) -> Result<(Found, bool)> {
        let standing = self.judge_claim(credential, key, claim, patience(deadline)).await;
        let need = Need { at_least: (standing == Standing::True).then_some(claim), ..need };
        Ok((self.find(credential, key, need, deadline).await?, standing != Standing::Unknown))
    }

    /// The lowest generation of a key that may be served.
    fn floor(&self, key: &TokenKey) -> Generation {
        self.parts.memory.floor(&key.hash())
    }

    fn resolve(&self, selector: &Selector) -> Result<(&Arc<Credential>, TokenKey)> {
        Ok((self.credential(selector.credential())?, TokenKey::new(selector.clone())))
    }

    fn credential(&self, name: &CredentialName) -> Result<&Arc<Credential>> {
        let missing = || Error::new(ErrorKind::NoSuchCredential, format!("there is no credential named '{name}'"));
        self.catalog.get(name).ok_or_else(missing)
    }

    async fn current(&self, credential: &Arc<Credential>, key: &TokenKey, need: Need) -> Result<Arc<Entry>> {
        self.find(credential, key, need, None).await.map(|found| found.entry)
    }

    async fn find(
        &self,
        credential: &Arc<Credential>,
        key: &TokenKey,
        need: Need,
        deadline: Option<Instant>,
    ) -> Result<Found> {
        for _ in 0..MAX_ROUNDS {
            let held = self.held(key, need);
            if let Some(entry) = &held {
                let at = self.now();
                match freshness(&entry.token, at, need.min_validity) {
                    Freshness::Fresh => {
                        self.parts.metrics.hits.inc();
                        return Ok(Found { entry: Arc::clone(entry), hit: true, at });
                    }
                    Freshness::RefreshDue => {
                        self.parts.metrics.hits.inc();
                        self.refresh_once(credential, entry);
                        return Ok(Found { entry: Arc::clone(entry), hit: true, at });
                    }
                    Freshness::Urgent => check_lifetime(entry, need)?,
                    // How long it lasted says nothing of the next one.
                    Freshness::Expired => {}
                }
            }
            self.parts.metrics.misses.inc();
            match Box::pin(self.replacement(credential, key, need, deadline)).await {
                Ok(entry) if self.will_do(&entry, need) => {
                    return Ok(Found { entry, hit: false, at: self.now() });
                }
                Ok(entry) => check_lifetime(&entry, need)?,
                Err(error) if bug::has(Bug::FailureDisplacesToken) => return Err(error),
                Err(error) => {
                    let held = held.filter(|entry| self.will_do(entry, need));
                    return held.map(|entry| Found { entry, hit: true, at: self.now() }).ok_or(error);
                }
            }
        }
        let message = "the tokens of the upstream run out faster than they can be replaced";
        Err(Error::new(ErrorKind::UpstreamDown, message).with_retry_after(entry::MIN_SPACING))
    }

    /// What is in memory, unless it will not do at any time.
    fn held(&self, key: &TokenKey, need: Need) -> Option<Arc<Entry>> {
        self.parts.memory.get(&key.hash()).filter(|entry| need.takes(entry.token.generation))
    }

    fn will_do(&self, entry: &Entry, need: Need) -> bool {
        is_servable(&entry.token, self.now(), need.min_validity)
            && need.takes(entry.token.generation)
            && (entry.token.generation >= self.floor(&entry.key) || bug::has(Bug::FlightPastFloor))
    }

    /// Waits for a flight, within the caller's deadline, unless it is too early to ask the upstream again.
    async fn replacement(
        &self,
        credential: &Arc<Credential>,
        key: &TokenKey,
        need: Need,
        deadline: Option<Instant>,
    ) -> Result<Arc<Entry>> {
        let now = self.now();
        if let Some(refusal) = self.parts.memory.refusal(&key.hash(), now) {
            return Err(refusal.to_error(now));
        }
        let want = Want { key: key.clone(), why: Why::Miss, min_validity: need.min_validity, avoid: need.avoid };
        let ticket = self.pilot.fly(credential, want);
        let _waits = Counted::by(&self.parts.metrics.tokens.waiters);
        within(patience(deadline), ticket.wait()).await
    }

    /// Starts the refresh that a hit found due; the first hit alone does.
    fn refresh_once(&self, credential: &Arc<Credential>, entry: &Arc<Entry>) {
        if entry.request_refresh() && self.parts.memory.refusal(&entry.key.hash(), self.now()).is_none() {
            drop(self.pilot.fly(credential, Want::any(entry.key.clone(), Why::Ahead)));
        }
    }

    /// The current time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.parts.clock.now()
    }

    /// How many tokens memory has room for.
    #[must_use]
    pub fn max_tokens(&self) -> u64 {
        self.max_tokens
    }

    /// Refreshes a key ahead of its token's expiry, unless its credential is gone or it is too early.
    fn refresh_ahead(&self, key: TokenKey) {
        let Some(credential) = self.catalog.get(key.credential()) else { return };
        match self.parts.memory.refusal(&key.hash(), self.now()) {
            Some(refusal) => self.parts.schedule.at(key, refusal.next_attempt_at),
            None => drop(self.pilot.fly(credential, Want::any(key, Why::Ahead))),
        }
    }

    /// When a key is to be refreshed whose token in memory is not due yet.
    fn not_before(&self, key: &TokenKey, now: Timestamp) -> Option<Timestamp> {
        let entry = self.parts.memory.get(key.hash_ref())?;
        Some(entry.token.refresh_at).filter(|refresh_at| now < *refresh_at)
    }

    /// Whether somebody watches a key, or has asked for it within its idle window.
    fn is_in_use(&self, key: &TokenKey, now: Timestamp) -> bool {
        let lately = self.parts.memory.get(&key.hash()).is_some_and(|entry| {
            now.since(entry.last_used()) < entry::idle_window(&entry.token, self.idle_window_of(key))
        });
        lately || self.parts.hub.watchers(&key.hash()) > 0
    }

    /// Leaves a key to the next call for it.
    fn let_rest(&self, key: &TokenKey) {
        if let Some(entry) = self.parts.memory.get(&key.hash()) {
            entry.forget_refresh();
        }
    }

    /// Whether the refresh token of a key's credential is replaced with each use.
    fn rotates(&self, key: &TokenKey) -> bool {
        self.catalog.get(key.credential()).is_some_and(|credential| credential.rotates())
    }

    fn idle_window_of(&self, key: &TokenKey) -> Option<Duration> {
        self.catalog.get(key.credential()).and_then(|credential| credential.refresh.idle_window)
    }

    async fn scan(&self, after: Option<KeyHash>, limit: u32) -> Result<Vec<TokenRow>> {
        self.parts.store.scan(after, limit).await
    }

    /// Takes a stored token into memory, if its credential is still there.
    fn take_in(&self, row: TokenRow, spread: Duration) -> bool {
        let row = TokenRow { key: self.catalog.shared(row.key), ..row };
        self.catalog.get(row.key.credential()).is_some_and(|credential| self.parts.take_in(credential, row, spread))
    }
}

/// Until when a caller waits.
fn patience(deadline: Option<Instant>) -> Instant {
    deadline.unwrap_or_else(|| Instant::now() + DEFAULT_PATIENCE)
}

/// Waits for a piece of work until the caller's deadline. What it has begun in tasks of their own goes on.
///
/// # Errors
///
/// `UpstreamSlow`; what the work fails with.
pub async fn within<T>(deadline: Instant, work: impl Future<Output = Result<T>>) -> Result<T> {
    timeout_at(deadline, work).await.unwrap_or_else(|_| {
        let message = "the caller's deadline passed before there was an answer; what the call began goes on";
        Err(Error::new(ErrorKind::UpstreamSlow, message).with_retry_after(entry::MIN_SPACING))
    })
}

/// Says so if the upstream's tokens never last as long as the caller asks: minting more of them would not help.
fn check_lifetime(entry: &Entry, need: Need) -> Result<()> {
    let lifetime = entry.token.lifetime();
    if need.min_validity < lifetime || Some(entry.token.generation) == need.avoid {
        return Ok(());
    }
    let description = format!("the upstream's tokens last for {} s: ask for less", lifetime.as_secs());
    Err(Error::bad_request(vec![Violation { field: "min_validity".into(), description }]))
}

#[cfg(test)]
mod tests;
