//! A replica whose store does not answer.

use std::time::Duration;

use tokio::time::sleep;

use super::world::{Plan, World};
use crate::{
    cache::pending::Pending,
    error::ErrorKind,
    provider::Rotation,
    store::{Fence, Write},
    types::Generation,
};

const FIRST: Generation = Generation::new(1);
const SECOND: Generation = Generation::new(2);
const SECONDS: fn(u64) -> Duration = Duration::from_secs;

/// One that has served a token of an hour.
async fn with_a_token(plan: &Plan) -> (World, std::sync::Arc<crate::store::faulty::FaultyTokenStore>) {
    let (world, store) = World::with_faulty_store(plan);
    *world.upstream.grant.lock().unwrap() = Some("rt-seed".into());
    assert_eq!(world.get().await.expect("a token").token.generation, FIRST);
    (world, store)
}

async fn stored_generation(world: &World) -> Generation {
    world.store.load(world.key().hash()).await.expect("the store answers").expect("a row").generation
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_merely_due_waits_for_the_store() {
    let (world, store) = with_a_token(&Plan::default()).await;
    store.set_down(true);
    // Past refresh_at, before the last minute.
    for _ in 0..35 {
        sleep(SECONDS(100)).await;
        assert_eq!(world.get().await.expect("it is valid").token.generation, FIRST);
    }
    assert_eq!(world.upstream.calls(), 1);
    store.set_down(false);
    sleep(SECONDS(3)).await;
    assert_eq!((world.get().await.expect("a token").token.generation, world.upstream.calls()), (SECOND, 2));
}

#[tokio::test(start_paused = true)]
async fn in_its_last_stretch_a_token_is_replaced_without_the_store_and_stored_later() {
    let (world, store) = with_a_token(&Plan::default()).await;
    store.set_down(true);
    sleep(SECONDS(3600 - 30)).await;
    let served = world.serve(|_| {}).await.expect("a token");
    assert_eq!(served.entry.expect("modified").token.generation, SECOND);
    assert!(!served.verified, "nobody else can have rejected it, and nobody could say so");
    assert_eq!((world.upstream.calls(), world.cache.parts.pending.len()), (2, 1));
    store.set_down(false);
    sleep(SECONDS(2)).await;
    assert_eq!((stored_generation(&world).await, world.cache.parts.pending.len()), (SECOND, 0));
    assert!(world.serve(|_| {}).await.expect("a token").verified);
    assert_eq!(world.upstream.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_many_lifetimes_costs_one_call_for_each_and_no_caller_a_failure() {
    let (world, store) = with_a_token(&Plan::default()).await;
    store.set_down(true);
    for _ in 0..(10 * 360) {
        sleep(SECONDS(10)).await;
        world.get().await.expect("there is always a valid token");
    }
    let (calls, generation) = (world.upstream.calls(), world.get().await.expect("a token").token.generation);
    assert!((11..=12).contains(&calls), "{calls}");
    store.set_down(false);
    sleep(SECONDS(2)).await;
    assert_eq!(stored_generation(&world).await, generation, "as clients have seen it");
}

#[tokio::test(start_paused = true)]
async fn each_replica_asks_once_and_all_agree_afterwards() {
    let (worlds, store) = World::fleet_with_faulty_store(3, &Plan::default()).await;
    for world in &worlds {
        world.get().await.expect("a token");
    }
    store.set_down(true);
    sleep(SECONDS(3600 - 30)).await;
    for _ in 0..50 {
        for world in &worlds {
            assert_eq!(world.get().await.expect("a token").token.generation, SECOND);
        }
    }
    assert_eq!(worlds[0].upstream.calls(), 1 + 3);
    store.set_down(false);
    sleep(SECONDS(5)).await;
    let mut fingerprints = vec![];
    for world in &worlds {
        let served = world.serve(|_| {}).await.expect("a token");
        assert!(served.verified);
        fingerprints.push(served.entry.expect("modified").token.fingerprint);
    }
    assert!(fingerprints.windows(2).all(|pair| pair[0] == pair[1]), "{fingerprints:?}");
    assert_eq!(worlds[0].upstream.calls(), 1 + 3);
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_rotates_is_never_sent_without_the_store() {
    for rotation in [Rotation::Strict, Rotation::Grace(SECONDS(60))] {
        let (world, store) = with_a_token(&Plan { rotation: Some(rotation), ..Plan::default() }).await;
        store.set_down(true);
        for _ in 0..500 {
            sleep(SECONDS(10)).await;
            if let Err(error) = world.get().await {
                assert_eq!(error.kind(), ErrorKind::StoreDown);
            }
        }
        assert_eq!(world.upstream.calls(), 1, "{rotation:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_token_that_stays_is_sent_as_it_is_configured() {
    let (world, store) = with_a_token(&Plan { rotation: Some(Rotation::None), ..Plan::default() }).await;
    store.set_down(true);
    sleep(SECONDS(3600 - 30)).await;
    assert_eq!(world.get().await.expect("a token").token.generation, SECOND);
    assert_eq!(world.upstream.sent_grants(), ["rt-seed", "rt-seed"]);
    store.set_down(false);
    sleep(SECONDS(2)).await;
    let candidates = world.store.candidates(super::world::name("c")).await.expect("the store answers");
    assert_eq!(candidates.len(), 1, "what came back is kept");
}

#[tokio::test(start_paused = true)]
async fn a_cold_key_is_not_asked_for_without_the_store() {
    let (world, store) = World::with_faulty_store(&Plan::default());
    store.set_down(true);
    assert_eq!(world.get().await.map(|_| ()).map_err(|error| error.kind()), Err(ErrorKind::StoreDown));
    assert_eq!(world.upstream.calls(), 0, "nobody here knows which generation it would be");
}

#[tokio::test(start_paused = true)]
async fn who_reports_a_dead_token_gets_another_without_the_store() {
    let (world, store) = with_a_token(&Plan::default()).await;
    store.set_down(true);
    sleep(SECONDS(5)).await;
    let served = world.serve(|request| request.rejected = Some(FIRST)).await.expect("its replacement");
    assert_eq!((served.verified, served.entry.expect("modified").token.generation), (false, SECOND));
    assert_eq!(world.get().await.expect("the same").token.generation, SECOND);
    assert_eq!(world.upstream.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn who_reports_a_token_that_is_newer_than_what_a_replica_holds_is_not_answered_with_an_older_one() {
    // Torture seed 2: the token was had from another replica, and the store does not answer.
    let (world, store) = with_a_token(&Plan::default()).await;
    store.set_down(true);
    for _ in 0..5 {
        let answer = world.serve(|request| request.rejected = Some(SECOND)).await;
        assert_eq!(answer.map(|_| ()).map_err(|error| error.kind()), Err(ErrorKind::StoreDown));
        sleep(SECONDS(1)).await;
    }
    assert_eq!((world.get().await.expect("it is valid").token.generation, world.upstream.calls()), (FIRST, 1));
}

#[tokio::test(start_paused = true)]
async fn with_both_down_the_upstream_is_asked_ever_more_rarely() {
    let (world, store) = with_a_token(&Plan::default()).await;
    store.set_down(true);
    world.upstream.fail(Some(ErrorKind::UpstreamDown));
    sleep(SECONDS(3600 - 30)).await;
    for _ in 0..3600 {
        let _ = world.get().await;
        sleep(SECONDS(1)).await;
    }
    let calls = world.upstream.calls() - 1;
    assert!((12..=60).contains(&calls), "{calls} calls in an hour");
    world.upstream.fail(None);
    sleep(SECONDS(300)).await;
    assert_eq!(world.get().await.expect("the upstream is back").token.generation, SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_token_whose_commit_fails_is_served_and_stored_later() {
    let (world, store) = World::with_faulty_store(&Plan::default());
    *world.upstream.delay.lock().unwrap() = SECONDS(2);
    let (answer, ()) = tokio::join!(world.get(), async {
        sleep(SECONDS(1)).await;
        store.set_down(true);
    });
    assert_eq!(answer.expect("it is in hand").token.generation, FIRST);
    sleep(SECONDS(30)).await;
    store.set_down(false);
    sleep(SECONDS(2)).await;
    assert_eq!((stored_generation(&world).await, world.upstream.calls()), (FIRST, 1));
}

#[tokio::test(start_paused = true)]
async fn what_a_rotating_grant_brought_is_pending_until_the_store_takes_it() {
    let (world, store) = World::with_faulty_store(&Plan { rotation: Some(Rotation::Strict), ..Plan::default() });
    *world.upstream.grant.lock().unwrap() = Some("rt-seed".into());
    *world.upstream.delay.lock().unwrap() = SECONDS(2);
    let pending: &Pending = &world.cache.parts.pending;
    let (answer, ()) = tokio::join!(world.get(), async {
        sleep(SECONDS(1)).await;
        store.set_down(true);
        sleep(SECONDS(20)).await;
        let [Write::Token(commit)] = &pending.all()[..] else { panic!("{:?}", pending.all()) };
        let update = commit.grant.as_ref().expect("its refresh token");
        assert_eq!((commit.fence, update.refresh_token.value.expose().as_str()), (Fence::Next, "rt-1"));
        assert!(world.cache.parts.memory.latest(&world.key().hash()).is_none(), "nobody sees what came with it");
        store.set_down(false);
    });
    assert_eq!(answer.expect("stored, then served").token.generation, FIRST);
    pending.settled().await;
    assert!(pending.is_empty());
}
