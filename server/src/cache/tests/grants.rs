//! Grants that rotate.

use std::time::Duration;

use tokio::time::sleep;

use super::world::{Plan, World, name, selector};
use crate::{
    error::{Error, ErrorKind},
    provider::{MintFailure, Rotation},
    store::{Grant, RotationIntent},
    types::{Fingerprint, Generation, Secret},
};

async fn stored(world: &World) -> Grant {
    world.store.load_grant(name("c")).await.expect("the store works").expect("there is a grant")
}

/// Another process is about to send a refresh token.
async fn begin(world: &World, owner: &str, token: &str) -> RotationIntent {
    let Grant { credential, version, journal, .. } = stored(world).await;
    let token = Fingerprint::of(&token.into());
    let intent = RotationIntent { credential, version, journal, owner: owner.into(), token };
    assert_eq!(world.store.begin_rotation(intent.clone()).await, Ok(true));
    intent
}

fn failure(kind: ErrorKind, in_doubt: bool) -> MintFailure {
    MintFailure { error: Error::new(kind, "as told"), grant: None, in_doubt }
}

#[tokio::test(start_paused = true)]
async fn each_refresh_token_is_sent_once_and_the_next_is_stored() {
    let world = World::rotating();
    *world.upstream.lifetime.lock().unwrap() = Duration::from_secs(60);
    for _ in 0..(20 * 60) {
        world.get().await.expect("a token");
        sleep(Duration::from_secs(1)).await;
    }
    let sent = world.upstream.sent_grants();
    let expected: Vec<_> =
        std::iter::once("rt-seed".to_owned()).chain((1..sent.len()).map(|i| format!("rt-{i}"))).collect();
    assert!(sent.len() >= 20, "{}", sent.len());
    assert_eq!(sent, expected);
    assert_eq!(stored(&world).await.refresh_token, Secret::from(format!("rt-{}", sent.len())));
    assert_eq!(stored(&world).await.intent, None);
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_a_refresh_token_keeps_the_old_one() {
    let world = World::rotating();
    world.upstream.then(Ok(super::world::minted("at", Duration::from_secs(60))));
    world.get().await.expect("a token");
    let grant = stored(&world).await;
    assert_eq!((grant.refresh_token, grant.intent), (Secret::from("rt-seed"), None));
}

#[tokio::test(start_paused = true)]
async fn a_lost_grant_costs_no_more_upstream_calls_until_a_person_supplies_a_new_one() {
    let world = World::rotating();
    world.upstream.then(Err(failure(ErrorKind::NeedsReauth, false)));
    for _ in 0..100 {
        let error = world.get().await.expect_err("the grant is lost");
        assert_eq!((error.kind(), error.retry_after()), (ErrorKind::NeedsReauth, None));
        sleep(Duration::from_secs(10)).await;
    }
    assert_eq!(world.upstream.calls(), 1);
    *world.upstream.grant.lock().unwrap() = Some("rt-new".into());
    sleep(Duration::from_secs(31)).await;
    world.get().await.expect("the new one works");
    assert_eq!(world.upstream.sent_grants(), ["rt-seed", "rt-new"]);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_token_is_stored_even_if_the_access_token_beside_it_is_worth_nothing() {
    let world = World::rotating();
    world.upstream.then(Err(MintFailure { grant: Some("rt-saved".into()), ..failure(ErrorKind::UpstreamDown, false) }));
    let expired = super::world::minted("at", Duration::ZERO);
    world.upstream.then(Ok(crate::provider::Minted { grant: Some("rt-saved-2".into()), ..expired }));
    assert!(world.get().await.is_err());
    assert_eq!(stored(&world).await.refresh_token, Secret::from("rt-saved"));
    sleep(Duration::from_secs(6)).await;
    assert!(world.get().await.is_err());
    assert_eq!(stored(&world).await.refresh_token, Secret::from("rt-saved-2"));
    sleep(Duration::from_secs(11)).await;
    world.get().await.expect("it recovers");
    assert_eq!(world.upstream.sent_grants(), ["rt-seed", "rt-saved", "rt-saved-2"]);
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_end_nobody_saw_is_replayed_once_and_its_loss_says_so() {
    let world = World::rotating();
    world.upstream.then(Err(failure(ErrorKind::UpstreamSlow, true)));
    world.upstream.then(Err(failure(ErrorKind::NeedsReauth, false)));
    assert_eq!(world.get().await.map(|_| ()).map_err(|e| e.kind()), Err(ErrorKind::UpstreamSlow));
    assert!(stored(&world).await.intent.is_some(), "the doubt is journalled");
    sleep(Duration::from_secs(20)).await;
    let error = loop {
        match world.get().await {
            Err(error) if error.kind() == ErrorKind::NeedsReauth => break error,
            _ => sleep(Duration::from_secs(1)).await,
        }
    };
    assert!(error.message().starts_with("in doubt"), "{error}");
    assert_eq!(world.upstream.sent_grants(), ["rt-seed", "rt-seed"]);
}

#[tokio::test(start_paused = true)]
async fn after_a_crash_in_mid_call_a_strict_grant_is_not_sent_while_that_call_may_live() {
    let world = World::rotating();
    world.get().await.expect("a token");
    let begun = world.cache.now();
    begin(&world, "dead#1", "rt-1").await;
    let entry = world.get_with(|request| request.rejected = Some(Generation::new(1))).await.expect("replayed");
    assert_eq!(entry.token.generation, Generation::new(2));
    let replayed_at = world.upstream.call_times()[1];
    assert!(replayed_at.since(begun) >= Duration::from_secs(10), "{replayed_at:?}");
}

#[tokio::test(start_paused = true)]
async fn a_credential_without_a_first_refresh_token_needs_one() {
    let world = World::rotating();
    *world.upstream.grant.lock().unwrap() = None;
    assert_eq!(world.get().await.map(|_| ()).map_err(|e| e.kind()), Err(ErrorKind::NeedsReauth));
    assert_eq!(world.upstream.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn keys_that_share_a_rotating_grant_never_use_it_at_once() {
    let world = World::rotating();
    *world.upstream.delay.lock().unwrap() = Duration::from_millis(300);
    let keys: Vec<String> = (0..10).map(|i| format!("s{i}")).collect();
    let all = keys.iter().map(|scope| world.get_with(|request| request.selector = selector(&[scope])));
    assert!(futures::future::join_all(all).await.iter().all(Result::is_ok));
    let sent = world.upstream.sent_grants();
    let mut unique = sent.clone();
    unique.sort();
    unique.dedup();
    assert_eq!((sent.len(), unique.len()), (10, 10), "{sent:?}");
}

#[tokio::test(start_paused = true)]
async fn while_a_new_refresh_token_waits_to_be_stored_the_old_one_is_not_sent_for_another_key() {
    let (world, store) = World::with_faulty_store(&Plan { rotation: Some(Rotation::Strict), ..Plan::default() });
    *world.upstream.grant.lock().unwrap() = Some("rt-seed".into());
    *world.upstream.delay.lock().unwrap() = Duration::from_secs(1);
    let scope = |scope: &'static str| world.get_with(move |request| request.selector = selector(&[scope]));
    let (first, second) = tokio::join!(scope("a"), async {
        sleep(Duration::from_millis(500)).await;
        // Down when the answer comes, and for longer than the lease and the call can last.
        store.set_down(true);
        sleep(Duration::from_secs(23)).await;
        store.set_down(false);
        scope("b").await
    });
    assert!(first.is_ok() && second.is_ok(), "{first:?} {second:?}");
    assert_eq!(world.upstream.sent_grants(), ["rt-seed", "rt-1"]);
    assert_eq!(stored(&world).await.refresh_token, Secret::from("rt-2"));
}

#[tokio::test(start_paused = true)]
async fn a_lost_grant_is_tried_once_more_when_the_configuration_has_changed() {
    let world = World::rotating();
    world.upstream.then(Err(failure(ErrorKind::NeedsReauth, false)));
    assert_eq!(world.get().await.map(|_| ()).map_err(|e| e.kind()), Err(ErrorKind::NeedsReauth));
    let plan = Plan { rotation: Some(Rotation::Strict), config: "config-2", ..Plan::default() };
    let mended = world.restarted(&plan);
    // The upstream takes it and does not rotate it.
    mended.upstream.then(Ok(super::world::minted("at", Duration::from_secs(60))));
    mended.get().await.expect("the refresh token was not to blame");
    assert_eq!(world.upstream.sent_grants(), ["rt-seed", "rt-seed"]);
    assert_eq!(stored(&mended).await.needs_reauth, None);
}

#[tokio::test(start_paused = true)]
async fn a_lost_grant_that_a_changed_configuration_does_not_mend_costs_one_more_call() {
    let world = World::rotating();
    for _ in 0..5 {
        world.upstream.then(Err(failure(ErrorKind::NeedsReauth, false)));
    }
    assert!(world.get().await.is_err());
    let plan = Plan { rotation: Some(Rotation::Strict), config: "config-2", ..Plan::default() };
    let changed = world.restarted(&plan);
    for _ in 0..100 {
        assert_eq!(changed.get().await.map(|_| ()).map_err(|e| e.kind()), Err(ErrorKind::NeedsReauth));
        sleep(Duration::from_secs(10)).await;
    }
    assert_eq!(world.upstream.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_asked_for_again_several_times_within_the_grace() {
    for seed in 0..20 {
        let grace = Duration::from_secs(40);
        let world = World::planned(&Plan { rotation: Some(Rotation::Grace(grace)), seed, ..Plan::default() });
        *world.upstream.grant.lock().unwrap() = Some("rt-seed".into());
        // So many that the backoff would have grown to minutes.
        for _ in 0..12 {
            world.upstream.then(Err(MintFailure::in_doubt(Error::new(ErrorKind::UpstreamSlow, "its answer is lost"))));
        }
        for _ in 0..600 {
            let _ = world.get().await;
            sleep(Duration::from_secs(1)).await;
        }
        let calls = world.upstream.call_times();
        let longest = calls.windows(2).map(|pair| pair[1].since(pair[0])).take(12).max().expect("several calls");
        assert!(longest < grace / 2, "{longest:?} between two attempts, seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_grant_in_doubt_is_looked_after_by_the_next_start_although_nobody_asks() {
    let plan = Plan { rotation: Some(Rotation::Grace(Duration::from_secs(60))), ..Plan::default() };
    let world = World::planned(&plan);
    *world.upstream.grant.lock().unwrap() = Some("rt-seed".into());
    *world.upstream.lifetime.lock().unwrap() = Duration::from_secs(3);
    world.get().await.expect("a token");
    begin(&world, "a process that was killed", "rt-1").await;
    let next = world.restarted(&plan);
    sleep(Duration::from_secs(4)).await;
    next.warm_start().await;
    sleep(Duration::from_secs(20)).await;
    assert!(next.upstream.calls() >= 2, "its answer can be had again for a while only");
    assert_eq!(next.upstream.sent_grants()[..2], ["rt-seed", "rt-1"]);
}
