//! Misses, hits, refresh ahead, failures.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::future::join_all;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::time::{advance, sleep, timeout};

use super::world::{Plan, World, minted, selector};
use crate::{
    cache::Served,
    error::ErrorKind,
    time::{Clock as _, Timestamp},
    types::{Generation, Selector, TokenKey},
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn ten_thousand_callers_of_a_cold_key_cost_one_upstream_call() {
    let world = World::new();
    let entries = join_all((0..10_000).map(|_| world.get())).await;
    assert!(entries.iter().all(|entry| entry.as_ref().is_ok_and(|e| e.token.generation == Generation::new(1))));
    assert_eq!(world.upstream.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_failure_of_a_cold_key_is_shared_and_remembered() {
    let world = World::new();
    world.upstream.fail(Some(ErrorKind::UpstreamDown));
    let results = join_all((0..10_000).map(|_| world.get())).await;
    for result in results {
        let error = result.expect_err("the upstream is down");
        assert_eq!(error.kind(), ErrorKind::UpstreamDown);
        assert!(error.retry_after().is_some_and(|delay| delay <= 5 * SECOND));
    }
    assert!(world.get().await.is_err());
    assert_eq!(world.upstream.calls(), 1);
    sleep(5 * SECOND).await;
    world.upstream.fail(None);
    assert!(world.get().await.is_ok(), "it recovers by itself");
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_does_not_cancel_the_flight() {
    let world = Arc::new(World::new());
    let mut rng = StdRng::seed_from_u64(7);
    let callers = (0..10_000).map(|_| {
        let (world, patience) = (Arc::clone(&world), Duration::from_micros(rng.random_range(0..60_000)));
        async move { timeout(patience, world.get()).await.is_ok() }
    });
    let served = join_all(callers).await.into_iter().filter(|served| *served).count();
    assert!(0 < served && served < 10_000, "some waited long enough: {served}");
    assert!(world.get().await.is_ok());
    assert_eq!(world.upstream.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_token_in_use_is_replaced_ahead_of_its_expiry_without_a_caller_waiting() {
    let world = World::new();
    *world.upstream.lifetime.lock().unwrap() = MINUTE;
    world.get().await.expect("the first token");
    let mut last = Generation::NONE;
    for _ in 0..(5 * 60) {
        sleep(SECOND).await;
        let before = world.clock.now();
        let entry = world.get().await.expect("there is always a valid token");
        assert_eq!(world.clock.now(), before, "a hit does not wait");
        assert!(entry.token.generation >= last);
        last = entry.token.generation;
    }
    assert!(last >= Generation::new(6), "{last}");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_nobody_asks_for_is_not_replaced() {
    let world = World::new();
    world.get().await.expect("a token");
    sleep(24 * 60 * MINUTE).await;
    // The idle window of a 1 h token is 2 h: the refreshes within it, and none after.
    let calls = world.upstream.calls();
    assert!((2..=5).contains(&calls), "{calls}");
    sleep(24 * 60 * MINUTE).await;
    assert_eq!(world.upstream.calls(), calls);
    world.get().await.expect("asked for again");
    assert_eq!(world.upstream.calls(), calls + 1);
}

#[tokio::test(start_paused = true)]
async fn with_the_upstream_down_a_valid_token_is_served_until_it_expires_and_then_an_error() {
    let world = World::new();
    let expires_at = world.get().await.expect("a token").token.expires_at;
    world.upstream.fail(Some(ErrorKind::UpstreamDown));
    loop {
        sleep(7 * SECOND).await;
        let result = world.get().await;
        if world.clock.now() >= expires_at {
            let error = result.expect_err("an expired token is never served");
            assert_eq!(error.kind(), ErrorKind::UpstreamDown);
            assert!(error.retry_after().is_some());
            break;
        }
        assert_eq!(result.expect("it is still valid").token.generation, Generation::new(1));
    }
    world.upstream.fail(None);
    sleep(5 * MINUTE).await;
    assert_eq!(world.get().await.expect("it has recovered").token.generation, Generation::new(2));
}

#[tokio::test(start_paused = true)]
async fn the_upstream_is_never_asked_twice_within_a_second_nor_before_the_next_attempt_is_due() {
    for seed in 0..30 {
        let world = World::planned(&Plan { seed, ..Plan::default() });
        let mut rng = StdRng::seed_from_u64(seed);
        for _ in 0..300 {
            let failing = rng.random_bool(0.5).then_some(ErrorKind::UpstreamDown);
            world.upstream.fail(failing);
            *world.upstream.lifetime.lock().unwrap() = Duration::from_millis(rng.random_range(1_000..600_000));
            let due = world.cache.parts.memory.refusal(&world.key().hash(), world.clock.now());
            let (before, calls) = (world.clock.now(), world.upstream.calls());
            let _ = timeout(5 * SECOND, world.get()).await;
            if let Some(due) = due
                && world.clock.now() < due.next_attempt_at
            {
                assert_eq!(world.upstream.calls(), calls, "seed {seed}: asked too early after {before:?}");
            }
            sleep(Duration::from_millis(rng.random_range(0..20_000))).await;
        }
        let times = world.upstream.call_times();
        assert!(times.len() > 20, "seed {seed}: {}", times.len());
        let closest = times.windows(2).map(|pair| pair[1].since(pair[0])).min().unwrap_or_default();
        assert!(closest >= SECOND, "seed {seed}: {closest:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_has_already_expired_or_is_the_same_again_counts_as_a_failed_attempt() {
    for lifetime in [Duration::ZERO, Duration::from_secs(3600)] {
        let world = World::new();
        world.upstream.then(Ok(minted("at-same", 10 * MINUTE)));
        let first = world.get().await.expect("a token");
        for _ in 0..100 {
            world.upstream.then(Ok(minted("at-same", lifetime)));
        }
        while world.clock.now() < first.token.expires_at.before(2 * SECOND) {
            sleep(SECOND).await;
            assert_eq!(world.get().await.expect("it is valid").token.generation, Generation::new(1));
        }
        let calls = world.upstream.calls();
        assert!((2..=12).contains(&calls), "backoff, not a loop: {calls}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_longer_validity_than_is_left_waits_for_the_replacement() {
    let world = World::new();
    *world.upstream.lifetime.lock().unwrap() = 10 * MINUTE;
    world.get().await.expect("a token");
    advance(2 * MINUTE).await;
    let entry = world.get_with(|request| request.min_validity = 9 * MINUTE).await.expect("a newer one");
    assert_eq!(entry.token.generation, Generation::new(2));
}

#[tokio::test(start_paused = true)]
async fn a_validity_that_the_upstream_never_gives_is_a_bad_request_and_no_loop() {
    let world = World::new();
    *world.upstream.lifetime.lock().unwrap() = MINUTE;
    for _ in 0..10 {
        let error = world.get_with(|request| request.min_validity = 2 * MINUTE).await.expect_err("too long");
        assert_eq!(error.kind(), ErrorKind::BadRequest);
        assert_eq!(error.violations()[0].field, "min_validity");
    }
    assert_eq!(world.upstream.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failed_replacement_in_the_last_stretch_yields_the_token_that_is_still_valid() {
    let world = World::new();
    let expires_at = world.get().await.expect("a token").token.expires_at;
    world.upstream.fail(Some(ErrorKind::UpstreamDown));
    advance(expires_at.before(10 * SECOND).since(world.clock.now())).await;
    let entry = world.get().await.expect("it is still valid");
    assert_eq!(entry.token.generation, Generation::new(1));
    let error = world.get_with(|request| request.min_validity = MINUTE).await.expect_err("not that long");
    assert_eq!(error.kind(), ErrorKind::UpstreamDown);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_has_the_current_generation_is_not_sent_it_again() {
    let world = World::new();
    let first = world.get().await.expect("a token").token.generation;
    let same = world.serve(|request| request.if_generation_not = Some(first)).await;
    assert!(matches!(same, Ok(Served { entry: None, .. })), "{same:?}");
    let other = world.serve(|request| request.if_generation_not = Some(first.next())).await;
    assert!(matches!(other, Ok(Served { entry: Some(_), .. })), "{other:?}");
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_tokens_are_found_again_after_a_restart_without_an_upstream_call() {
    let world = World::new();
    let scopes: Vec<String> = (0..10_000).map(|i| format!("s{i}")).collect();
    let ask = |world: &World, scope: &str| {
        let selector = selector(&[scope]);
        let cache = Arc::clone(&world.cache);
        async move {
            let request = crate::types::TokenRequest {
                selector,
                min_validity: Duration::ZERO,
                if_generation_not: None,
                rejected: None,
            };
            cache.get(&super::world::allowed(request), None).await.is_ok()
        }
    };
    assert!(join_all(scopes.iter().map(|scope| ask(&world, scope))).await.into_iter().all(|ok| ok));
    assert_eq!(world.upstream.calls(), 10_000);

    let lazy = world.restarted(&Plan::default());
    assert!(join_all(scopes.iter().take(100).map(|scope| ask(&lazy, scope))).await.into_iter().all(|ok| ok));
    let warm = lazy.restarted(&Plan::default());
    warm.warm_start().await;
    let held = |scope: &String| warm.cache.parts.memory.get(&TokenKey::new(selector(&[scope])).hash()).is_some();
    assert!(scopes.iter().all(held));
    assert!(join_all(scopes.iter().map(|scope| ask(&warm, scope))).await.into_iter().all(|ok| ok));
    assert_eq!(world.upstream.calls(), 10_000);
    // However they came, they hold one name for all of them.
    for world in [&world, &lazy, &warm] {
        let hash = |scope: &String| TokenKey::new(selector(&[scope])).hash();
        let entry = |scope| world.cache.parts.memory.get(&hash(scope)).expect("it is held");
        let [one, other] = [entry(&scopes[0]), entry(&scopes[1])];
        assert_eq!(one.key.credential().as_str().as_ptr(), other.key.credential().as_str().as_ptr());
    }
}

#[tokio::test(start_paused = true)]
async fn overdue_tokens_found_at_the_start_are_replaced_one_after_another() {
    let world = World::new();
    *world.upstream.lifetime.lock().unwrap() = 60 * MINUTE;
    for i in 0..100 {
        let request = crate::types::TokenRequest {
            selector: selector(&[&format!("s{i}")]),
            min_validity: Duration::ZERO,
            if_generation_not: None,
            rejected: None,
        };
        world.cache.get(&super::world::allowed(request), None).await.expect("a token");
    }
    world.stop.cancel();
    advance(55 * MINUTE).await;
    let begun = world.clock.now();
    let restarted = world.restarted(&Plan::default());
    restarted.warm_start().await;
    sleep(MINUTE).await;
    let times: Vec<Timestamp> = world.upstream.call_times().into_iter().filter(|time| *time >= begun).collect();
    assert_eq!(times.len(), 100);
    let busiest = times.iter().map(|a| times.iter().filter(|b| b.since(*a) < SECOND && *b >= a).count()).max();
    assert!(busiest.is_some_and(|most| most <= 20), "{busiest:?} within one second");
}

#[tokio::test(start_paused = true)]
async fn a_token_minted_under_another_configuration_is_not_served() {
    let world = World::new();
    world.get().await.expect("a token");
    let changed = world.restarted(&Plan { config: "config-2", ..Plan::default() });
    changed.warm_start().await;
    assert_eq!(changed.get().await.expect("a new one").token.generation, Generation::new(2));
    assert_eq!(world.upstream.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_token_of_another_configuration_is_not_served_after_a_failed_attempt_either() {
    let world = World::new();
    world.get().await.expect("a token");
    world.upstream.fail(Some(ErrorKind::UpstreamDown));
    let changed = world.restarted(&Plan { config: "config-2", ..Plan::default() });
    assert!(changed.get().await.is_err());
    sleep(5 * MINUTE).await;
    assert!(changed.get().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn with_the_store_down_valid_tokens_are_served_and_cold_keys_are_told_why() {
    let world = World::new();
    world.get().await.expect("a token");
    world.store.close().await;
    assert!(world.get().await.is_ok());
    let error = world.get_with(|request| request.selector = selector(&["cold"])).await.expect_err("no store");
    assert_eq!(error.kind(), ErrorKind::StoreDown);
    assert!(error.retry_after().is_some());
}

#[tokio::test(start_paused = true)]
async fn an_unknown_credential_is_not_found() {
    let world = World::new();
    let unknown = super::world::name("unknown");
    let result = world.get_with(|request| request.selector = Selector::new(unknown, vec![], None, vec![])).await;
    assert_eq!(result.map(|_| ()).map_err(|e| e.kind()), Err(ErrorKind::NoSuchCredential));
}

#[tokio::test(start_paused = true)]
async fn what_is_misconfigured_is_asked_again_slowly_and_at_once_after_a_restart() {
    let world = World::new();
    world.upstream.fail(Some(ErrorKind::Misconfigured));
    for _ in 0..60 {
        let error = world.get().await.expect_err("it is misconfigured");
        assert_eq!((error.kind(), error.retry_after()), (ErrorKind::Misconfigured, None));
        sleep(10 * SECOND).await;
    }
    let calls = world.upstream.calls();
    assert!((2..=3).contains(&calls), "{calls} in ten minutes");
    world.upstream.fail(None);
    let restarted = world.restarted(&Plan::default());
    assert!(restarted.get().await.is_ok(), "a person has mended it and restarted");
}

#[tokio::test(start_paused = true)]
async fn a_failure_of_a_clock_that_was_set_back_keeps_nobody_waiting() {
    let world = World::new();
    world.upstream.fail(Some(ErrorKind::UpstreamDown));
    assert!(world.get().await.is_err());
    world.upstream.fail(None);
    let restarted = world.restarted_earlier(24 * 60 * MINUTE, &Plan::default());
    assert!(restarted.get().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_token_that_has_expired_says_nothing_of_how_long_the_next_one_lasts() {
    let world = World::new();
    *world.upstream.lifetime.lock().unwrap() = MINUTE;
    world.get().await.expect("a short-lived token");
    sleep(180 * MINUTE).await;
    *world.upstream.lifetime.lock().unwrap() = 10 * MINUTE;
    let entry = world.get_with(|request| request.min_validity = 2 * MINUTE).await.expect("a long-lived one");
    assert_eq!(entry.token.lifetime(), 10 * MINUTE - Duration::from_millis(50));
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_repeats_its_token_until_it_expires_leaves_no_gap() {
    let world = World::new();
    for _ in 0..1000 {
        world.upstream.then(Ok(minted("at-same", 60 * MINUTE)));
    }
    for second in 0..(5 * 60 * 60) {
        if let Err(error) = world.get().await {
            panic!("after {second} s: {error}");
        }
        sleep(SECOND).await;
    }
    assert!(world.upstream.calls() < 100, "{}", world.upstream.calls());
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_panics_ends_neither_the_refreshing_of_its_tokens_nor_the_backoff() {
    let world = World::new();
    *world.upstream.lifetime.lock().unwrap() = MINUTE;
    world.get().await.expect("a token");
    world.upstream.panics.store(true, Ordering::SeqCst);
    sleep(40 * SECOND).await;
    let calls = world.upstream.calls();
    assert!((2..=8).contains(&calls), "{calls}");
    world.upstream.panics.store(false, Ordering::SeqCst);
    sleep(MINUTE).await;
    assert!(world.cache.parts.memory.get(&world.key().hash()).is_some_and(|e| e.token.generation > Generation::new(1)));
}

#[tokio::test(start_paused = true)]
async fn a_call_puts_a_key_back_that_fell_off_the_schedule_after_a_failure() {
    let world = World::planned(&Plan { idle_window: Some(MINUTE), ..Plan::default() });
    let first = world.get().await.expect("a token");
    advance(first.token.refresh_at.since(world.clock.now())).await;
    world.upstream.fail(Some(ErrorKind::UpstreamDown));
    world.get().await.expect("it is still valid");
    sleep(6 * MINUTE).await;
    world.upstream.fail(None);
    world.get().await.expect("it is still valid");
    sleep(SECOND).await;
    assert_eq!(world.get().await.expect("a token").token.generation, Generation::new(2));
}
