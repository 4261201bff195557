//! The care of a grant around an upstream call: what is sent, what is journalled before, and what becomes of it after.
//!
//! Invariants:
//! - for a grant that rotates, an intent is committed before each call: it proves that the store can be written, and
//!   tells a successor which refresh token may have been spent;
//! - no call is begun while somebody else's may be under way that it must not meet (`grant/choice.rs`);
//! - `invalid_grant` is believed when all that could be tried was refused, and the grant has not moved meanwhile;
//! - the process does not end, unless it is told twice, while such a call is under way;
//! - a refresh token that a person put into the configuration is adopted once, and again when it is replaced there;
//! - a call whose end nobody saw is followed by one replay, and if that is refused by a loss that says so.

mod choice;

use std::time::Duration;

use tokio::time::sleep;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::{info, warn};

use self::choice::{choose, must_wait, treated};
use super::attempt::Attempt;
use crate::{
    cache::{Parts, entry::MIN_SPACING},
    error::{Error, ErrorKind, Result},
    failpoint::Point,
    provider::{MintFailure, Rotation},
    store::{Grant, GrantCandidate, GrantLoss, GrantSeed, GrantUpdate, RotationIntent, TokenRow},
    time::Timestamp,
    types::{Fingerprint, Secret},
};

/// How often a grant that changes under our hands is read again.
const MAX_ROUNDS: usize = 5;

/// What a call may take beyond its own time limit, from the journalling of its intent to its end.
const CALL_ROOM: Duration = Duration::from_secs(2);

/// How soon after its intent was journalled a refresh token is sent. A replica that was stopped in between, or whose store
/// was slow, journals again: successors count the time of its call from the journal, and would take it for dead.
const SEND_WITHIN: Duration = Duration::from_secs(1);

/// How the reason of a loss begins that somebody else's call may have caused.
const IN_DOUBT: &str = "in doubt: ";

/// A grant that is being sent to the upstream.
#[derive(Debug)]
pub(super) struct Spent {
    /// The refresh token.
    pub(super) secret: Secret,
    version: u64,
    /// The count of the journal, with its own entry.
    as_of: u64,
    /// The journal's entry, where the grant rotates.
    intent: Option<RotationIntent>,
    /// An earlier call ended unseen.
    in_doubt: bool,
    /// Those that the upstream has refused to this flight.
    refused: Vec<Secret>,
    /// It is to be stored even if it comes back unchanged: it is not the grant's own, or the grant is said to be lost.
    renews: bool,
}

impl Spent {
    /// What is to be stored when the upstream has taken it, and answered with a new refresh token or without.
    pub(super) fn update(&self, new: Option<Secret>, at: Timestamp) -> Option<GrantUpdate> {
        let refresh_token = new.unwrap_or_else(|| self.secret.clone());
        let unchanged = refresh_token == self.secret && !self.renews;
        (!unchanged).then(|| GrantUpdate {
            base_version: self.version,
            as_of: self.as_of,
            sent: self.secret.clone().into(),
            refresh_token: refresh_token.into(),
            late: None,
            refused: self.refused.iter().cloned().map(Into::into).collect(),
            intent: self.intent.as_ref().map(|intent| intent.owner.clone()),
            at,
        })
    }
}

/// What follows a call that brought no token.
#[derive(Debug)]
pub(super) enum After {
    /// There is another refresh token to try.
    TryNext,
    /// The flight ends with this.
    Ended(Error),
}

/// One flight's use of a grant: one call as a rule, and one more for each refresh token that the upstream refuses while
/// there is another one.
#[derive(Debug)]
pub(super) struct GrantFlight<'a> {
    attempt: &'a Attempt,
    rotation: Rotation,
    /// How long a call may be under way, from its intent on.
    call: Duration,
    /// Its name in the journal.
    owner: String,
    /// The version of the grant at which the following were refused.
    version: u64,
    refused: Vec<Secret>,
    /// A call of somebody else was open at some time of this flight: a doubt is about the family, not about one version.
    in_doubt: bool,
}

impl<'a> GrantFlight<'a> {
    pub(super) fn new(attempt: &'a Attempt, rotation: Rotation) -> Self {
        let call = attempt.credential.timeout + CALL_ROOM;
        let owner = format!("{}#{:016x}", attempt.parts.replica, attempt.parts.rng.with(rand::Rng::next_u64));
        let rotation = treated(rotation, call);
        Self { attempt, rotation, call, owner, version: 0, refused: vec![], in_doubt: false }
    }

    /// Finds the refresh token to send and journals that it will be sent. `row` is what is known of the key.
    pub(super) async fn prepare(&mut self, row: Option<&TokenRow>) -> Result<Spent> {
        let mut waited_for = None;
        for _ in 0..MAX_ROUNDS {
            let loaded = self.attempt.parts.store.load_grant(self.attempt.credential.name.clone()).await;
            let Some(grant) = adopt_configured(self.attempt, loaded).await? else { continue };
            if let Some(reason) = grant.needs_reauth.as_ref().filter(|_| !grant.retry)
                && !was_lost_otherwise(self.attempt, row)
            {
                return Err(Error::new(ErrorKind::NeedsReauth, reason.clone()));
            }
            self.take_note(&grant);
            let candidates = self.candidates(&grant).await?;
            let Some(secret) = choose(&grant, &candidates, &self.refused, self.rotation) else { continue };
            let token = Fingerprint::of(secret);
            // Once: whatever the clock of the store does meanwhile. What was journalled since is another entry.
            let rest = must_wait(&grant, token, &self.owner, self.rotation, self.call);
            if !rest.is_zero() && waited_for != Some((grant.journal, token)) {
                waited_for = Some((grant.journal, token));
                sleep(rest).await;
                continue;
            }
            if let Some(spent) = self.begin(&grant, secret).await? {
                return Ok(spent);
            }
        }
        Err(Error::new(ErrorKind::StoreDown, "the grant changes faster than it can be used"))
    }

    /// What the grant says of others, and whether what was refused still matters.
    fn take_note(&mut self, grant: &Grant) {
        if self.version != grant.version {
            self.version = grant.version;
            self.refused.clear();
        }
        let doubted = grant.needs_reauth.as_ref().is_some_and(|reason| grant.retry || reason.starts_with(IN_DOUBT));
        self.in_doubt |= doubted || grant.intent.as_ref().is_some_and(|intent| intent.owner != self.owner);
    }

    /// The refresh tokens that came late, if the grant's own was refused.
    async fn candidates(&self, grant: &Grant) -> Result<Vec<GrantCandidate>> {
        if !self.refused.contains(&grant.refresh_token) {
            return Ok(vec![]);
        }
        self.attempt.parts.store.candidates(grant.credential.clone()).await
    }

    /// Journals the intent where the grant rotates. `None`: the grant has moved, or it took too long.
    async fn begin(&self, grant: &Grant, secret: &Secret) -> Result<Option<Spent>> {
        let mut spent = Spent {
            secret: secret.clone(),
            version: grant.version,
            as_of: grant.journal,
            intent: None,
            in_doubt: self.in_doubt,
            refused: self.refused.clone(),
            renews: *secret != grant.refresh_token || grant.needs_reauth.is_some(),
        };
        if self.rotation == Rotation::None {
            return Ok(Some(spent));
        }
        let intent = RotationIntent {
            credential: grant.credential.clone(),
            version: grant.version,
            journal: grant.journal,
            owner: self.owner.clone(),
            token: Fingerprint::of(secret),
        };
        let Parts { store, clock, failpoints, .. } = &*self.attempt.parts;
        let journalled = clock.uptime();
        failpoints.reach(Point::BeforeIntent).await;
        let begun = store.begin_rotation(intent.clone()).await?;
        failpoints.reach(Point::AfterIntent).await;
        (spent.as_of, spent.intent) = (grant.journal + 1, Some(intent));
        Ok((begun && clock.uptime() < journalled + SEND_WITHIN).then_some(spent))
    }

    /// What becomes of the grant after a call that brought no token.
    pub(super) async fn after_failure(&mut self, spent: Spent, failure: MintFailure) -> After {
        let MintFailure { error, grant, in_doubt } = failure;
        if let Some(refresh_token) = grant {
            settle_without_token(self.attempt, Some(spent), Some(refresh_token)).await;
            return After::Ended(error);
        }
        if error.kind() == ErrorKind::NeedsReauth {
            return self.refuse(spent, error).await.unwrap_or_else(After::Ended);
        }
        if !in_doubt && !spent.in_doubt {
            abandon(self.attempt, &spent).await;
        }
        After::Ended(error)
    }

    /// The upstream refuses a refresh token: tries the next one, after the time that lies between any two attempts, and
    /// believes the upstream that the grant is dead if there is none.
    async fn refuse(&mut self, spent: Spent, error: Error) -> Result<After> {
        let name = &self.attempt.credential.name;
        let moved = || Error::new(ErrorKind::UpstreamDown, "the grant was replaced while it was being used");
        self.refused.push(spent.secret);
        let grant = self.attempt.parts.store.load_grant(name.clone()).await?;
        let grant = grant.filter(|grant| grant.version == spent.version).ok_or_else(moved)?;
        self.take_note(&grant);
        let candidates = self.candidates(&grant).await?;
        if let Some(next) = choose(&grant, &candidates, &self.refused, self.rotation) {
            let (refused, next) = (self.refused.len(), Fingerprint::of(next));
            info!(credential = %name, refused, %next, "a refresh token is refused: another one is tried");
            sleep(MIN_SPACING).await;
            return Ok(After::TryNext);
        }
        let reason = if self.in_doubt {
            format!("{IN_DOUBT}an earlier refresh ended unseen, and its replay was refused ({})", error.message())
        } else {
            error.message().to_owned()
        };
        let intent = spent.intent.map(|intent| intent.owner);
        let loss = GrantLoss { credential: name.clone(), version: grant.version, intent, reason: reason.clone() };
        if !self.attempt.parts.store.lose_grant(loss).await? {
            return Err(moved());
        }
        self.attempt.parts.metrics.grant_lost(self.in_doubt);
        warn!(credential = %name, reason, "the grant is lost: a person has to log in again");
        Err(Error::new(ErrorKind::NeedsReauth, reason))
    }
}

/// Whether the grant was lost under another configuration: then it is tried once more, for a wrong client, say, may have
/// been to blame. What comes of it is recorded under this one.
fn was_lost_otherwise(attempt: &Attempt, row: Option<&TokenRow>) -> bool {
    let failures = row.and_then(|row| row.failures.as_ref());
    failures.is_some_and(|f| f.kind == ErrorKind::NeedsReauth && f.config != attempt.credential.config)
}

/// The configured refresh token, where the store's is out of reach.
pub(super) async fn configured(attempt: &Attempt) -> Result<Secret> {
    let none = || Error::new(ErrorKind::NeedsReauth, "there is no refresh token: configure the first one");
    attempt.credential.provider.configured_grant().await?.ok_or_else(none)
}

/// Adopts the configured refresh token where there is none in the store, or where a person has replaced it since.
/// `None`: the grant has changed meanwhile.
async fn adopt_configured(attempt: &Attempt, loaded: Result<Option<Grant>>) -> Result<Option<Grant>> {
    let stored = match loaded {
        Ok(stored) => stored,
        Err(error) if matches!(error.kind(), ErrorKind::ConfigTampered | ErrorKind::KeyMissing) => {
            return replace_unreadable(attempt, error).await;
        }
        Err(error) => return Err(error),
    };
    let configured = match (attempt.credential.provider.configured_grant().await, &stored) {
        (Ok(configured), _) => configured,
        // The first refresh token is spent: its file may well be gone.
        (Err(_), Some(_)) => None,
        (Err(error), None) => return Err(error),
    };
    match (configured, stored) {
        (Some(seed), Some(grant)) if Fingerprint::of(&seed) != grant.seed => {
            plant(attempt, seed, Some(grant.refresh_token), grant.version).await
        }
        (_, Some(grant)) => Ok(Some(grant)),
        (Some(seed), None) => plant(attempt, seed, None, 0).await,
        (None, None) => Err(Error::new(ErrorKind::NeedsReauth, "there is no refresh token: configure the first one")),
    }
}

/// A stored grant does not open: it is left as it is, unless a person has replaced the configured refresh token since.
async fn replace_unreadable(attempt: &Attempt, unreadable: Error) -> Result<Option<Grant>> {
    let name = &attempt.credential.name;
    let Ok(Some(seed)) = attempt.credential.provider.configured_grant().await else { return Err(unreadable) };
    let origin = attempt.parts.store.grant_origin(name.clone()).await?;
    let Some(origin) = origin.filter(|origin| origin.seed != Fingerprint::of(&seed)) else { return Err(unreadable) };
    warn!(credential = %name, error = %unreadable, "the stored refresh token is given up for the configured one");
    plant(attempt, seed, None, origin.version).await
}

/// Plants a refresh token that a person supplied over the grant of this version. `None`: it has changed meanwhile.
async fn plant(attempt: &Attempt, seed: Secret, previous: Option<Secret>, version: u64) -> Result<Option<Grant>> {
    let name = &attempt.credential.name;
    info!(credential = %name, fingerprint = %Fingerprint::of(&seed), "adopting the configured refresh token");
    let seed = GrantSeed {
        credential: name.clone(),
        refresh_token: seed.into(),
        previous: previous.map(Into::into),
        at: attempt.parts.clock.now(),
    };
    attempt.parts.store.plant_grant(seed, version).await?;
    attempt.parts.store.load_grant(name.clone()).await
}

/// Announces a call that spends a refresh token: the process does not end before it has. `None`: it spends nothing.
///
/// # Errors
///
/// `Draining` if the process no longer waits for any more of them.
pub(super) async fn set_out(attempt: &Attempt, spent: Option<&Spent>) -> Result<Option<TaskTrackerToken>> {
    let Some(spent) = spent.filter(|spent| spent.intent.is_some()) else { return Ok(None) };
    // In this order: whoever closes the tracker, and then waits, has seen this call, or this call sees that it is closed.
    let under_way = attempt.parts.rotations.token();
    if !attempt.parts.rotations.is_closed() {
        return Ok(Some(under_way));
    }
    abandon(attempt, spent).await;
    Err(Error::new(ErrorKind::Draining, "this replica is shutting down: ask another one"))
}

/// Ends the intent of a call that certainly spent nothing.
pub(super) async fn abandon(attempt: &Attempt, spent: &Spent) {
    let Some(intent) = spent.intent.clone() else { return };
    if let Err(error) = attempt.parts.store.abandon_rotation(intent).await {
        warn!(credential = %attempt.credential.name, %error, "an intent was not ended: the next call will be in doubt");
    }
}

/// Stores the refresh token of an answer whose access token is worth nothing.
pub(super) async fn settle_without_token(attempt: &Attempt, spent: Option<Spent>, new: Option<Secret>) {
    let Some(spent) = spent else { return };
    match spent.update(new, attempt.parts.clock.now()) {
        Some(update) => keep(attempt, update).await,
        None => abandon(attempt, &spent).await,
    }
}

/// Stores a refresh token that came alone: it exists nowhere else.
async fn keep(attempt: &Attempt, update: GrantUpdate) {
    attempt.parts.pending.keep_grant(&attempt.parts.store, attempt.credential.name.clone(), update).await;
}
