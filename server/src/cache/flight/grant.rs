//! The care of a grant around an upstream call: what is sent, what is journalled before, and what becomes of it after.
//!
//! Invariants:
//! - for a grant that rotates, an intent is committed before the call: it proves that the store can be written, and
//!   tells a successor that this refresh token may have been spent;
//! - the process does not end, unless it is told twice, while such a call is under way;
//! - a refresh token that a person put into the configuration is adopted once, and again when it is replaced there;
//! - a call whose end nobody saw is followed by one replay, and if that is refused by a loss that says so.

use std::time::Duration;

use tokio::time::sleep;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::{info, warn};

use super::attempt::Attempt;
use crate::{
    error::{Error, ErrorKind, Result},
    failpoint::Point,
    provider::{MintFailure, Rotation},
    store::{Grant, GrantSeed, GrantUpdate, RotationIntent, TokenRow},
    types::{Fingerprint, Secret},
};

/// How often a grant that changes under our hands is read again.
const MAX_ROUNDS: usize = 5;

/// What a call may take beyond its own time limit, from the journalling of its intent to its end.
const CALL_ROOM: Duration = Duration::from_secs(2);

/// How soon after its intent was journalled a refresh token is sent. A replica that was stopped in between, or whose store
/// was slow, journals again: successors count the time of its call from the journal, and would take it for dead.
const SEND_WITHIN: Duration = Duration::from_secs(1);

/// A grant that is being sent to the upstream.
#[derive(Debug)]
pub(super) struct Spent {
    /// The refresh token.
    pub(super) secret: Secret,
    /// Its version.
    pub(super) version: u64,
    /// The journal's entry, where the grant rotates.
    intent: Option<RotationIntent>,
    /// An earlier call with it ended unseen.
    in_doubt: bool,
}

/// Finds the grant to send and journals that it will be sent. `row` is what is known of the key.
pub(super) async fn prepare(attempt: &Attempt, rotation: Rotation, row: Option<&TokenRow>) -> Result<Spent> {
    let (store, name) = (&attempt.parts.store, &attempt.credential.name);
    let owner = format!("{}#{:016x}", attempt.parts.replica, attempt.parts.rng.with(rand::Rng::next_u64));
    let (mut waited_for, mut in_doubt) = (None, false);
    for _ in 0..MAX_ROUNDS {
        let stored = store.load_grant(name.clone()).await?;
        let Some(grant) = adopt_configured(attempt, stored).await? else { continue };
        if let Some(reason) = grant.needs_reauth {
            if !was_lost_otherwise(attempt, row) {
                return Err(Error::new(ErrorKind::NeedsReauth, reason));
            }
            let at = attempt.parts.clock.now();
            let same = GrantUpdate { base_version: grant.version, refresh_token: grant.refresh_token, at };
            store.advance_grant(name.clone(), same).await?;
            continue;
        }
        let foreign = grant.intent.as_ref().filter(|intent| intent.owner != owner);
        in_doubt |= foreign.is_some();
        if let (Some(intent), Rotation::Strict) = (foreign, rotation) {
            // Its holder may be waiting for the answer, and a second call now would end the family. Once: whatever the
            // clock of the store does meanwhile.
            let rest = (attempt.credential.timeout + CALL_ROOM).saturating_sub(intent.age);
            if !rest.is_zero() && waited_for.as_ref() != Some(&intent.owner) {
                waited_for = Some(intent.owner.clone());
                sleep(rest).await;
                continue;
            }
        }
        let spent = Spent { secret: grant.refresh_token, version: grant.version, intent: None, in_doubt };
        if rotation == Rotation::None {
            return Ok(spent);
        }
        let over = grant.intent.map(|intent| intent.owner);
        let intent = RotationIntent { credential: name.clone(), version: grant.version, owner: owner.clone(), over };
        let journalled = attempt.parts.clock.uptime();
        attempt.parts.failpoints.reach(Point::BeforeIntent).await;
        let begun = store.begin_rotation(intent.clone()).await?;
        attempt.parts.failpoints.reach(Point::AfterIntent).await;
        if begun && attempt.parts.clock.uptime() < journalled + SEND_WITHIN {
            return Ok(Spent { intent: Some(intent), ..spent });
        }
    }
    Err(Error::new(ErrorKind::StoreDown, "the grant changes faster than it can be used"))
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
async fn adopt_configured(attempt: &Attempt, stored: Option<Grant>) -> Result<Option<Grant>> {
    let configured = match (attempt.credential.provider.configured_grant().await, &stored) {
        (Ok(configured), _) => configured,
        // The first refresh token is spent: its file may well be gone.
        (Err(_), Some(_)) => None,
        (Err(error), None) => return Err(error),
    };
    let (seed, version) = match (configured, stored) {
        (Some(seed), Some(grant)) if Fingerprint::of(&seed) != grant.seed => (seed, grant.version),
        (_, Some(grant)) => return Ok(Some(grant)),
        (Some(seed), None) => (seed, 0),
        (None, None) => {
            return Err(Error::new(ErrorKind::NeedsReauth, "there is no refresh token: configure the first one"));
        }
    };
    let name = &attempt.credential.name;
    info!(credential = %name, fingerprint = %Fingerprint::of(&seed), "adopting the configured refresh token");
    let seed = GrantSeed { credential: name.clone(), refresh_token: seed, at: attempt.parts.clock.now() };
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
pub(super) async fn settle_without_token(attempt: &Attempt, spent: Option<Spent>, update: Option<GrantUpdate>) {
    match (spent, update) {
        (_, Some(update)) => keep(attempt, update).await,
        (Some(spent), None) => abandon(attempt, &spent).await,
        (None, None) => {}
    }
}

/// Stores a refresh token that came alone: it exists nowhere else.
async fn keep(attempt: &Attempt, update: GrantUpdate) {
    attempt.parts.pending.keep_grant(&attempt.parts.store, attempt.credential.name.clone(), update).await;
}

/// What becomes of the grant after a call that brought no token, and what the callers are told.
pub(super) async fn after_failure(attempt: &Attempt, spent: Spent, failure: MintFailure) -> Error {
    let MintFailure { error, grant, in_doubt } = failure;
    if let Some(refresh_token) = grant {
        let at = attempt.parts.clock.now();
        keep(attempt, GrantUpdate { base_version: spent.version, refresh_token, at }).await;
        return error;
    }
    if error.kind() == ErrorKind::NeedsReauth {
        return lose(attempt, &spent, error).await;
    }
    if !in_doubt && !spent.in_doubt {
        abandon(attempt, &spent).await;
    }
    error
}

/// Believes the upstream that the grant is dead, if it is still the one that was sent.
async fn lose(attempt: &Attempt, spent: &Spent, error: Error) -> Error {
    let reason = if spent.in_doubt {
        format!("in doubt: an earlier refresh ended unseen, and its replay was refused ({})", error.message())
    } else {
        error.message().to_owned()
    };
    let name = attempt.credential.name.clone();
    match attempt.parts.store.lose_grant(name, spent.version, reason.clone()).await {
        Ok(true) => {
            warn!(credential = %attempt.credential.name, reason, "the grant is lost: a person has to log in again");
            Error::new(ErrorKind::NeedsReauth, reason)
        }
        Ok(false) => Error::new(ErrorKind::UpstreamDown, "the grant was replaced while it was being used"),
        Err(store_error) => store_error,
    }
}
