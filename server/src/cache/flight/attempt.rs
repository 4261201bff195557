//! What one flight does: load, claim the lease, load again, mint, commit.
//!
//! This is the one path on which tokens are written, whoever asks: a miss, the refresh-ahead worker, a rejection or an
//! operator. At most 2 loads, 1 lease, 1 upstream call and 1 commit where nobody else is at it
//! and no refresh token is refused.

mod alone;
pub(super) mod lease;
mod refusal;

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::FutureExt as _;
use tokio::{task::yield_now, time::Instant};
use tracing::{debug, info, warn};

use self::lease::Claimed;
use super::grant::{self, After, GrantFlight, Spent};
use crate::{
    audit::{AuditEvent, Kind, Reason},
    bug::{self, Bug},
    cache::{
        Parts,
        entry::{self, Freshness, Mint, freshness},
        history::AttemptRecord,
        memory::Entry,
    },
    credential::Credential,
    error::{Error, ErrorKind, Result},
    failpoint::Point,
    provider::{GrantUse, MintFailure, MintRequest, MintResult, Minted},
    store::{CallOutcome, Commit, Committed, Fence, TokenRow},
    time::Timestamp,
    types::{Fingerprint, Generation, Secret, Terms, Token, TokenKey},
};

/// Why a token is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// A caller waits, and there is none that will do.
    Miss,
    /// The one at hand is due to be replaced.
    Ahead,
    /// The one at hand was rejected.
    Rejection,
    /// An operator says so.
    Operator,
}

impl Why {
    /// Its name in a trace.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Miss => "miss",
            Self::Ahead => "ahead",
            Self::Rejection => "rejection",
            Self::Operator => "operator",
        }
    }
}

/// What a flight is to bring.
#[derive(Clone, Debug)]
pub struct Want {
    /// The token's key.
    pub key: TokenKey,
    /// Why.
    pub why: Why,
    /// How long it must be valid.
    pub min_validity: Duration,
    /// A generation that will not do.
    pub avoid: Option<Generation>,
}

impl Want {
    /// Any valid token will do.
    #[must_use]
    pub fn any(key: TokenKey, why: Why) -> Self {
        Self { key, why, min_validity: Duration::ZERO, avoid: None }
    }
}

/// Lets whatever is ready go first, what has come from the network as well. A flight takes some hundred microseconds of its
/// core, and a hit that comes meanwhile a few: it is to wait for a piece of the flight, not for all of it.
async fn give_way() {
    yield_now().await;
}

/// One flight.
#[derive(Debug)]
pub struct Attempt {
    pub(super) parts: Arc<Parts>,
    pub(super) credential: Arc<Credential>,
    pub(super) want: Want,
    /// What the call says of the endpoint, once it was made.
    outcome: Mutex<CallOutcome>,
}

/// What the upstream was asked from.
#[derive(Debug)]
struct Base {
    row: Option<TokenRow>,
    generation: Generation,
}

impl Base {
    fn of(row: Option<TokenRow>) -> Self {
        let generation = row.as_ref().map_or(Generation::NONE, |row| row.generation);
        Self { row, generation }
    }
}

impl Attempt {
    /// A flight of `want`.
    #[must_use]
    pub fn new(parts: Arc<Parts>, credential: Arc<Credential>, want: Want) -> Self {
        Self { parts, credential, want, outcome: Mutex::new(CallOutcome::Unknown) }
    }

    /// Flies: brings a token that will do into memory.
    ///
    /// # Errors
    ///
    /// What the upstream or the store failed with; it is remembered, so that nobody repeats it too early.
    pub async fn run(self) -> Result<Arc<Entry>> {
        let Some(mut span) = self.parts.tracer.of_work("flight") else { return self.fly_and_tell().await };
        span.note("tokencache.credential", self.want.key.credential().to_string());
        span.note("tokencache.provider", self.credential.provider.kind());
        span.note("tokencache.why", self.want.why.as_str());
        let result = span.around(self.fly_and_tell()).await;
        match &result {
            Ok(entry) => {
                span.note("tokencache.generation", i64::try_from(entry.token.generation.get()).unwrap_or(i64::MAX));
            }
            Err(error) => span.fail(error.kind().reason()),
        }
        result
    }

    async fn fly_and_tell(&self) -> Result<Arc<Entry>> {
        let result = self.fly().await;
        if let Err(error) = &result {
            debug!(credential = %self.want.key.credential(), %error, "no token");
            self.parts.hub.unavailable(&self.want.key, error, &self.parts.memory, self.parts.clock.now());
        }
        result
    }

    async fn fly(&self) -> Result<Arc<Entry>> {
        match self.fly_by_the_store().await {
            Err(down) if down.kind() == ErrorKind::StoreDown && self.may_go_alone() => self.go_alone(down).await,
            flown => flown,
        }
    }

    async fn fly_by_the_store(&self) -> Result<Arc<Entry>> {
        let row = self.load().await?;
        if let Some(entry) = self.accept(row.as_ref()) {
            return Ok(entry);
        }
        self.check_gate(row.as_ref())?;
        self.parts.failpoints.reach(Point::BeforeClaim).await;
        let (right, _turn) = match self.claim().await? {
            Claimed::Right(right, turn) => (right, turn),
            Claimed::Overtaken(entry) => return Ok(entry),
        };
        self.parts.failpoints.reach(Point::AfterClaim).await;
        // Never aborted because a renewal failed: the commit is fenced on the generation, not on the lease.
        let result = tokio::select! {
            result = self.replace() => result,
            () = self.keep_renewing(&right) => Err(Error::bug("the renewal of a lease ended")),
        };
        self.parts.failpoints.reach(Point::BeforeRelease).await;
        self.give_back(right).await;
        result
    }

    /// Mints a token and commits it. The lease is held.
    async fn replace(&self) -> Result<Arc<Entry>> {
        let row = self.load().await?;
        if let Some(entry) = self.accept(row.as_ref()) {
            return Ok(entry);
        }
        self.check_gate(row.as_ref())?;
        self.keep_spacing(row.as_ref()).await;

        let base = Base::of(row);
        let started = Instant::now();
        let result = self.mint_and_commit(&base).await;
        give_way().await;
        self.record(started, &result);
        match result {
            Ok(entry) => Ok(entry),
            Err(error) => Err(self.fail(&base, error).await),
        }
    }

    async fn mint_and_commit(&self, base: &Base) -> Result<Arc<Entry>> {
        let mut grant = match self.credential.provider.capabilities().grant {
            GrantUse::None => None,
            GrantUse::Refresh(rotation) => Some(GrantFlight::new(self, rotation)),
        };
        loop {
            let spent = match &mut grant {
                None => None,
                Some(grant) => Some(grant.prepare(base.row.as_ref()).await?),
            };
            let _under_way = grant::set_out(self, spent.as_ref()).await?;
            let sent_at = self.parts.clock.now();
            let failure = match self.ask(spent.as_ref().map(|spent| spent.secret.clone())).await {
                Ok(minted) => return self.settle(base, minted, spent, sent_at).await,
                Err(failure) => failure,
            };
            let (Some(grant), Some(spent)) = (&mut grant, spent) else { return Err(failure.error) };
            if let After::Ended(error) = grant.after_failure(spent, failure).await {
                return Err(error);
            }
        }
    }

    /// Asks the upstream. A panic of a plug-in is one more failed attempt: with backoff, and with the grant in doubt.
    async fn ask(&self, grant: Option<Secret>) -> MintResult {
        let spends = grant.is_some();
        let request = MintRequest { key: self.want.key.clone(), grant };
        self.parts.failpoints.reach(Point::BeforePost).await;
        let begun = Instant::now();
        let call = AssertUnwindSafe(self.credential.provider.mint(request)).catch_unwind();
        let panicked = |_| Err(MintFailure::in_doubt(Error::bug("the provider panicked")));
        let answer = call.await.unwrap_or_else(panicked);
        let failed_with = answer.as_ref().err().map(|failure| failure.error.kind());
        self.parts.metrics.tokens.upstream(self.credential.provider.kind(), failed_with, begun.elapsed());
        // A refresh token that came back is nowhere else yet: nothing goes before that.
        if !spends {
            give_way().await;
        }
        self.note(&answer);
        self.parts.failpoints.reach(Point::AfterPost).await;
        answer
    }

    /// Notes what an answer says of the endpoint. Of a permanent error it cannot be told whether the endpoint was asked at
    /// all: a secret that cannot be read is one, too.
    fn note(&self, answer: &MintResult) {
        let outcome = match answer.as_ref().map_err(|failure| (failure.error.kind(), failure.error.retry_after())) {
            Ok(_) => CallOutcome::Succeeded,
            Err((ErrorKind::UpstreamThrottled, asked)) => CallOutcome::Throttled(asked),
            Err((ErrorKind::UpstreamDown | ErrorKind::UpstreamSlow, asked)) => CallOutcome::Failed(asked),
            Err(_) => CallOutcome::Unknown,
        };
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = outcome;
    }

    /// What the call of this flight says of the endpoint.
    pub(super) fn outcome(&self) -> CallOutcome {
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores what the upstream gave: the refresh token first, whatever the access token is worth.
    async fn settle(
        &self,
        base: &Base,
        mut minted: Minted,
        spent: Option<Spent>,
        sent_at: Timestamp,
    ) -> Result<Arc<Entry>> {
        let new = minted.grant.take();
        let token = match self.judge(base, minted, sent_at) {
            Ok(token) => token,
            Err(error) => {
                grant::settle_without_token(self, spent, new).await;
                return Err(error);
            }
        };
        let update = spent.as_ref().and_then(|spent| spent.update(new, self.parts.clock.now()));
        let spent_without_update = if update.is_none() { spent } else { None };
        let commit = Commit {
            key: self.want.key.clone(),
            token: token.clone(),
            fence: Fence::Next,
            config: self.credential.config,
            last_used_at: self.last_used(),
            grant: update,
        };
        if bug::has(Bug::ServedBeforeCommit) {
            self.keep(token.clone());
        }
        self.parts.failpoints.reach(Point::BeforeCommit).await;
        let Some(committed) = self.commit(&commit).await else { return Ok(self.serve_unstored(commit)) };
        self.parts.failpoints.reach(Point::AfterCommit).await;
        give_way().await;
        if let Some(spent) = spent_without_update {
            grant::abandon(self, &spent).await;
        }
        match committed {
            Committed::Stored => {
                info!(
                    credential = %self.want.key.credential(), generation = %token.generation,
                    fingerprint = %token.fingerprint, lifetime_s = token.lifetime().as_secs(), "token minted"
                );
                self.note_lead(base, token.issued_at);
                Ok(self.keep(token))
            }
            Committed::Superseded => {
                let row = self.load().await?;
                self.accept(row.as_ref()).ok_or_else(|| {
                    Error::new(ErrorKind::UpstreamDown, "another replica's token came first and has already expired")
                })
            }
        }
    }

    /// Notes how early a token in use was replaced. One that was rejected, or that nobody had asked for before it expired,
    /// says nothing of the refresher.
    fn note_lead(&self, base: &Base, now: Timestamp) {
        let Some(row) = base.row.as_ref().filter(|row| row.config == self.credential.config) else { return };
        let Some(previous) = row.token.as_ref().filter(|token| token.generation >= row.min_generation) else { return };
        let lead = previous.expires_at.since(now);
        if self.want.why == Why::Ahead || (self.want.why == Why::Miss && !lead.is_zero()) {
            self.parts.metrics.tokens.replaced(lead);
        }
    }

    /// Makes a token of what the upstream gave, unless it is worth nothing.
    fn judge(&self, base: &Base, minted: Minted, sent_at: Timestamp) -> Result<Token> {
        let now = self.parts.clock.now();
        // Counted from before the request was sent: the upstream's clock for it started no earlier.
        let expires_at = sent_at.after(minted.lifetime);
        if expires_at <= now {
            return Err(Error::new(ErrorKind::UpstreamDown, "the upstream returned a token that has already expired"));
        }
        let fingerprint = Fingerprint::of(&minted.access_token);
        self.check_repeat(base, fingerprint, now)?;
        let window = self.credential.refresh.window;
        let mint = if self.want.why == Why::Ahead { Mint::Ahead } else { Mint::Needed };
        let refresh_at = self.parts.rng.with(|rng| entry::refresh_at(now, expires_at, window, mint, rng));
        let mut scopes = minted.scopes.unwrap_or_else(|| self.want.key.selector().scopes().to_vec());
        scopes.sort_unstable();
        Ok(Token {
            access_token: minted.access_token,
            terms: Terms::new(minted.token_type, scopes, minted.attributes),
            issued_at: now,
            expires_at,
            refresh_at,
            generation: base.generation.next(),
            fingerprint,
        })
    }

    /// Refuses the token that there is already, as long as it is valid or if it was rejected.
    fn check_repeat(&self, base: &Base, fingerprint: Fingerprint, now: Timestamp) -> Result<()> {
        let Some(row) = base.row.as_ref().filter(|row| row.config == self.credential.config) else { return Ok(()) };
        let Some(previous) = row.token.as_ref().filter(|token| token.fingerprint == fingerprint) else { return Ok(()) };
        let error = Error::new(ErrorKind::UpstreamDown, "the upstream returned the same token again");
        if previous.generation < row.min_generation {
            return Err(error);
        }
        // One that has run out by our reckoning alone may be taken again, or an upstream that extends its tokens would
        // be lost for good.
        let left = previous.expires_at.since(now);
        if left.is_zero() { Ok(()) } else { Err(error.with_retry_after(entry::repeat_delay(left))) }
    }

    /// Commits. `None`: the store does not take it now, and need not, for no refresh token hangs on it.
    ///
    /// A refresh token that rotates is stored before anybody sees the access token that came with it, however long it
    /// takes.
    async fn commit(&self, commit: &Commit) -> Option<Committed> {
        if !self.may_go_alone() {
            return Some(self.parts.pending.commit(&self.parts.store, commit.clone()).await);
        }
        let committed = self.parts.store.commit(commit.clone()).await;
        committed
            .inspect_err(|error| warn!(credential = %commit.key.credential(), %error, "served, and stored later"))
            .ok()
    }

    async fn load(&self) -> Result<Option<TokenRow>> {
        let row = self.read_row().await.map_err(|error| self.pause_for_store(error))?;
        if let Some(row) = &row {
            self.parts.memory.raise_floor(self.want.key.hash(), row.min_generation);
        }
        Ok(row)
    }

    /// Takes the stored token into memory, if it will do.
    fn accept(&self, row: Option<&TokenRow>) -> Option<Arc<Entry>> {
        let row = row?;
        let token = row.token.as_ref()?;
        let floor = self.parts.memory.floor(&self.want.key.hash());
        let usable = (token.generation >= floor || bug::has(Bug::FlightPastFloor))
            && Some(token.generation) != self.want.avoid
            && row.config == self.credential.config;
        let fresh = match freshness(token, self.parts.clock.now(), self.want.min_validity) {
            Freshness::Fresh => true,
            Freshness::RefreshDue => self.want.why != Why::Ahead,
            Freshness::Urgent | Freshness::Expired => false,
        };
        (usable && fresh).then(|| self.keep(token.clone()))
    }

    fn keep(&self, token: Token) -> Arc<Entry> {
        self.parts.keep(self.entry_of(token))
    }

    /// A caller who waits is using the key now; a refresh ahead is not a use.
    fn last_used(&self) -> Timestamp {
        match self.want.why {
            Why::Miss | Why::Rejection => self.parts.clock.now(),
            Why::Ahead | Why::Operator => {
                let held = self.parts.memory.get(&self.want.key.hash());
                held.map_or(Timestamp::from_millis(0), |entry| entry.last_used())
            }
        }
    }

    fn record(&self, started: Instant, result: &Result<Arc<Entry>>) {
        let error = result.as_ref().err();
        let record = AttemptRecord {
            at: self.parts.clock.now(),
            duration: started.elapsed(),
            replica: self.parts.replica.clone(),
            error: error.cloned(),
        };
        self.parts.metrics.attempt(self.credential.provider.kind(), error.map(Error::kind), record.duration);
        self.parts.history.add(self.want.key.hash(), record);
        let token = result.as_ref().ok().map(|entry| &entry.token);
        self.parts.audit.note(AuditEvent {
            key: Some(self.want.key.clone()),
            generation: token.map(|token| token.generation),
            fingerprint: token.map(|token| token.fingerprint),
            error: error.map(Error::kind),
            reason: Some(match self.want.why {
                Why::Miss => Reason::Miss,
                Why::Ahead => Reason::RefreshAhead,
                Why::Rejection => Reason::Report,
                Why::Operator => Reason::Operator,
            }),
            ..AuditEvent::new(Kind::Refresh)
        });
    }
}
