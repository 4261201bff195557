//! Calls of other flights that may be under way, refresh tokens that come late, and losses that are in doubt.

use std::time::Duration;

use tokio::time::sleep;

use super::world::{Plan, World, minted, name};
use crate::{
    error::{Error, ErrorKind, Result},
    provider::{MintFailure, Rotation},
    store::{Grant, GrantUpdate, RotationIntent},
    types::{Fingerprint, Generation},
};

const GRACE: Rotation = Rotation::Grace(Duration::from_secs(30));

/// From the intent of a call on, as long as it may be alive: the credential's time limit and some room.
const CALL: Duration = Duration::from_secs(12);

/// A world whose grant has rotated once: `rt-seed` was spent for `rt-1`.
async fn rotated(rotation: Rotation) -> World {
    let world = World::planned(&Plan { rotation: Some(rotation), ..Plan::default() });
    *world.upstream.grant.lock().unwrap() = Some("rt-seed".into());
    world.get().await.expect("a token");
    sleep(Duration::from_secs(5)).await;
    world
}

/// Asks for the token after generation 1.
async fn refresh(world: &World) -> Result<Generation> {
    let entry = world.get_with(|request| request.rejected = Some(Generation::new(1))).await?;
    Ok(entry.token.generation)
}

async fn stored(world: &World) -> Grant {
    world.store.load_grant(name("c")).await.expect("the store works").expect("there is a grant")
}

async fn late(world: &World) -> Vec<String> {
    let candidates = world.store.candidates(name("c")).await.expect("the store works");
    candidates.into_iter().map(|late| late.refresh_token.expose().clone()).collect()
}

/// Another process journals that it sends a refresh token.
async fn begin(world: &World, owner: &str, token: &str) -> RotationIntent {
    let Grant { credential, version, journal, .. } = stored(world).await;
    let token = Fingerprint::of(&token.into());
    let intent = RotationIntent { credential, version, journal, owner: owner.into(), token };
    assert_eq!(world.store.begin_rotation(intent.clone()).await, Ok(true));
    intent
}

/// Another process stores what its call brought. Whether it became the grant's.
async fn arrive(world: &World, intent: &RotationIntent, sent: &str, new: &str) -> bool {
    let update = GrantUpdate {
        base_version: intent.version,
        as_of: intent.journal + 1,
        sent: sent.into(),
        refresh_token: new.into(),
        late: None,
        refused: vec![],
        intent: Some(intent.owner.clone()),
        at: world.cache.now(),
    };
    world.store.advance_grant(name("c"), update).await.expect("the store works")
}

fn refuse(world: &World) {
    let error = Error::new(ErrorKind::NeedsReauth, "the upstream refuses it");
    world.upstream.then(Err(MintFailure::harmless(error)));
}

/// How long the last call came after the one before it.
fn last_gap(world: &World) -> Duration {
    let times = world.upstream.call_times();
    times[times.len() - 1].since(times[times.len() - 2])
}

#[tokio::test(start_paused = true)]
async fn a_lenient_upstream_is_sent_a_replay_at_once() {
    let world = rotated(GRACE).await;
    begin(&world, "dead#1", "rt-1").await;
    assert_eq!(refresh(&world).await, Ok(Generation::new(2)));
    assert!(last_gap(&world) < CALL, "{:?}", last_gap(&world));
    assert_eq!(world.upstream.sent_grants(), ["rt-seed", "rt-1"]);
}

#[tokio::test(start_paused = true)]
async fn a_call_with_another_refresh_token_does_not_meet_one_that_may_be_alive() {
    let world = rotated(GRACE).await;
    begin(&world, "slow#1", "rt-seed").await;
    assert_eq!(refresh(&world).await, Ok(Generation::new(2)));
    assert!(last_gap(&world) >= CALL, "{:?}", last_gap(&world));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_overtaken_is_waited_for_like_an_open_one() {
    let world = rotated(GRACE).await;
    begin(&world, "slow#1", "rt-seed").await;
    let replay = begin(&world, "other#2", "rt-seed").await;
    world.store.abandon_rotation(replay).await.expect("the store works");
    assert_eq!(refresh(&world).await, Ok(Generation::new(2)));
    assert!(last_gap(&world) >= CALL, "{:?}", last_gap(&world));
}

#[tokio::test(start_paused = true)]
async fn a_grace_shorter_than_a_call_is_treated_as_strict() {
    let world = rotated(Rotation::Grace(Duration::from_secs(11))).await;
    begin(&world, "dead#1", "rt-1").await;
    assert_eq!(refresh(&world).await, Ok(Generation::new(2)));
    assert!(last_gap(&world) >= CALL, "{:?}", last_gap(&world));
}

#[tokio::test(start_paused = true)]
async fn a_refresh_token_that_came_late_saves_the_grant() {
    let world = rotated(Rotation::Strict).await;
    let first = RotationIntent { version: 1, ..begin(&world, "late#1", "rt-seed").await };
    for new in ["rt-older", "rt-late"] {
        assert!(!arrive(&world, &first, "rt-seed", new).await);
    }
    refuse(&world);
    assert_eq!(refresh(&world).await, Ok(Generation::new(2)));
    assert_eq!(world.upstream.sent_grants(), ["rt-seed", "rt-1", "rt-late"], "the latest first");
    assert!(last_gap(&world) >= Duration::from_secs(1), "{:?}", last_gap(&world));
    let grant = stored(&world).await;
    assert_eq!((grant.refresh_token, grant.previous), ("rt-3".into(), Some("rt-late".into())));
    assert_eq!((grant.intent, grant.needs_reauth), (None, None));
    assert_eq!(late(&world).await, ["rt-older"], "it was not refused");
}

#[tokio::test(start_paused = true)]
async fn a_late_refresh_token_that_the_upstream_does_not_replace_becomes_the_grants() {
    let world = rotated(Rotation::Strict).await;
    let first = RotationIntent { version: 1, ..begin(&world, "late#1", "rt-seed").await };
    assert!(!arrive(&world, &first, "rt-seed", "rt-late").await);
    refuse(&world);
    world.upstream.then(Ok(minted("at", Duration::from_secs(600))));
    assert_eq!(refresh(&world).await, Ok(Generation::new(2)));
    assert_eq!((stored(&world).await.refresh_token, late(&world).await), ("rt-late".into(), vec![]));
}

#[tokio::test(start_paused = true)]
async fn the_refresh_token_before_is_tried_where_a_replay_is_forgiven_and_there_alone() {
    let lenient = rotated(GRACE).await;
    refuse(&lenient);
    assert_eq!(refresh(&lenient).await, Ok(Generation::new(2)));
    assert_eq!(lenient.upstream.sent_grants(), ["rt-seed", "rt-1", "rt-seed"]);
    assert_eq!(stored(&lenient).await.previous, Some("rt-seed".into()), "the one that was sent");
    let strict = rotated(Rotation::Strict).await;
    refuse(&strict);
    assert_eq!(refresh(&strict).await.map_err(|error| error.kind()), Err(ErrorKind::NeedsReauth));
    assert_eq!(strict.upstream.sent_grants(), ["rt-seed", "rt-1"]);
}

#[tokio::test(start_paused = true)]
async fn a_grant_is_lost_when_there_is_nothing_left_to_try() {
    let world = rotated(GRACE).await;
    refuse(&world);
    refuse(&world);
    let error = refresh(&world).await.expect_err("all were refused");
    assert_eq!((error.kind(), error.message()), (ErrorKind::NeedsReauth, "the upstream refuses it"));
    let grant = stored(&world).await;
    assert_eq!((grant.needs_reauth.as_deref(), grant.intent), (Some("the upstream refuses it"), None));
    sleep(Duration::from_secs(300)).await;
    assert!(world.get().await.is_err());
    assert_eq!(world.upstream.calls(), 3, "it costs no more calls");
}

#[tokio::test(start_paused = true)]
async fn what_was_planted_before_is_not_tried_for_another_log_in() {
    let world = rotated(GRACE).await;
    let first = begin(&world, "late#1", "rt-1").await;
    *world.upstream.grant.lock().unwrap() = Some("rt-of-another".into());
    refuse(&world);
    assert_eq!(refresh(&world).await.map_err(|error| error.kind()), Err(ErrorKind::NeedsReauth));
    assert!(!arrive(&world, &first, "rt-1", "rt-late").await);
    sleep(Duration::from_secs(300)).await;
    assert!(world.get().await.is_err());
    assert_eq!(world.upstream.sent_grants(), ["rt-seed", "rt-of-another"]);
}

#[tokio::test(start_paused = true)]
async fn a_commit_leaves_the_intent_of_a_successor_open() {
    let world = rotated(Rotation::Strict).await;
    *world.upstream.delay.lock().unwrap() = Duration::from_secs(2);
    let (refreshed, _) = tokio::join!(refresh(&world), async {
        sleep(Duration::from_secs(1)).await;
        begin(&world, "successor#1", "rt-1").await
    });
    assert_eq!(refreshed, Ok(Generation::new(2)));
    let grant = stored(&world).await;
    assert_eq!(grant.refresh_token, "rt-2".into());
    assert_eq!(grant.intent.map(|intent| intent.owner).as_deref(), Some("successor#1"));
}

/// A grant that was lost in doubt, and the call that may have been to blame.
async fn lost_in_doubt() -> (World, RotationIntent) {
    let world = rotated(Rotation::Strict).await;
    let slow = begin(&world, "slow#1", "rt-1").await;
    refuse(&world);
    let error = refresh(&world).await.expect_err("the replay is refused");
    assert!(error.message().starts_with("in doubt: "), "{error}");
    (world, slow)
}

#[tokio::test(start_paused = true)]
async fn a_loss_in_doubt_stays_when_a_late_answer_comes_and_its_refresh_token_is_tried_once() {
    let (world, slow) = lost_in_doubt().await;
    assert!(arrive(&world, &slow, "rt-1", "rt-late").await, "it is kept");
    assert!(stored(&world).await.needs_reauth.is_some());
    refuse(&world);
    sleep(Duration::from_secs(31)).await;
    for _ in 0..10 {
        let error = world.get().await.expect_err("it is refused as well");
        assert!(error.message().starts_with("in doubt: "), "{error}");
        sleep(Duration::from_secs(60)).await;
    }
    assert_eq!(world.upstream.sent_grants(), ["rt-seed", "rt-1", "rt-late"]);
    assert!(stored(&world).await.needs_reauth.is_some_and(|reason| reason.starts_with("in doubt: ")));
}

#[tokio::test(start_paused = true)]
async fn a_late_refresh_token_that_works_ends_the_loss() {
    for rotates in [true, false] {
        let (world, slow) = lost_in_doubt().await;
        assert!(arrive(&world, &slow, "rt-1", "rt-late").await);
        if !rotates {
            world.upstream.then(Ok(minted("at", Duration::from_secs(600))));
        }
        sleep(Duration::from_secs(31)).await;
        world.get().await.expect("it works");
        let grant = stored(&world).await;
        assert_eq!((grant.needs_reauth, grant.retry), (None, false));
        assert_eq!(grant.refresh_token, if rotates { "rt-3".into() } else { "rt-late".into() });
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_after_somebody_else_has_journalled_is_in_doubt() {
    let world = rotated(Rotation::Strict).await;
    *world.upstream.delay.lock().unwrap() = Duration::from_secs(2);
    refuse(&world);
    let (refreshed, _) = tokio::join!(refresh(&world), async {
        sleep(Duration::from_secs(1)).await;
        begin(&world, "successor#1", "rt-1").await
    });
    assert!(refreshed.expect_err("it is refused").message().starts_with("in doubt: "));
}
