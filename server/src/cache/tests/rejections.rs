//! Rejection.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use tokio::time::{advance, sleep};

use super::world::{Plan, World, allowed, minted, selector};
use crate::{
    error::ErrorKind,
    types::{Generation, RejectedToken, Rejection},
};

const FIRST: Generation = Generation::new(1);
const SECOND: Generation = Generation::new(2);

#[tokio::test(start_paused = true)]
async fn ten_thousand_reports_of_one_dead_token_cost_one_upstream_call() {
    let world = World::new();
    world.get().await.expect("a token");
    let answers = join_all((0..10_000).map(|_| world.get_with(|request| request.rejected = Some(FIRST)))).await;
    for answer in answers {
        assert_eq!(answer.expect("its replacement").token.generation, SECOND);
    }
    let reports = join_all((0..10_000).map(|_| world.reject(FIRST))).await;
    assert!(reports.into_iter().all(|report| report.is_ok_and(|r| !r.invalidated && r.min_generation == SECOND)));
    assert_eq!(world.upstream.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn of_many_reports_at_once_exactly_one_took_the_token_out() {
    let world = World::new();
    world.get().await.expect("a token");
    let reports = join_all((0..1_000).map(|_| world.reject(FIRST))).await;
    let took_it_out = reports.iter().filter(|report| report.as_ref().is_ok_and(|r| r.invalidated)).count();
    assert_eq!(took_it_out, 1);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(world.upstream.calls(), 2, "its replacement was begun without anybody asking");
}

#[tokio::test(start_paused = true)]
async fn a_rejected_token_is_never_served_again_not_even_after_a_restart() {
    let world = World::new();
    world.get().await.expect("a token");
    world.upstream.fail(Some(ErrorKind::UpstreamDown));
    assert!(world.reject(FIRST).await.expect("a report").invalidated);
    assert_eq!(world.get().await.map(|_| ()).map_err(|e| e.kind()), Err(ErrorKind::UpstreamDown));
    let restarted = world.restarted(&Plan::default());
    restarted.warm_start().await;
    assert!(restarted.get().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_report_on_an_unknown_generation_or_fingerprint_changes_nothing() {
    let world = World::new();
    world.get().await.expect("a token");
    for generation in [2, 1_000, u64::MAX] {
        assert!(!world.reject(Generation::new(generation)).await.expect("a report").invalidated);
        let entry = world.get_with(|request| request.rejected = Some(Generation::new(generation))).await;
        assert_eq!(entry.expect("the current one").token.generation, FIRST);
    }
    let by_fingerprint = |fingerprint| Rejection {
        selector: selector(&[]),
        rejected: RejectedToken::Fingerprint(fingerprint),
        http_status: None,
        error: None,
    };
    let unknown = crate::types::Fingerprint::of_bytes(b"unknown");
    assert!(!world.cache.reject(&allowed(by_fingerprint(unknown))).await.expect("a report").invalidated);
    let current = world.get().await.expect("a token").token.fingerprint;
    assert!(world.cache.reject(&allowed(by_fingerprint(current))).await.expect("a report").invalidated);
}

#[tokio::test(start_paused = true)]
async fn a_403_is_no_rejection_unless_the_credential_says_so() {
    let world = World::new();
    world.get().await.expect("a token");
    let forbidden = Rejection {
        selector: selector(&[]),
        rejected: RejectedToken::Generation(FIRST),
        http_status: Some(403),
        error: None,
    };
    assert!(!world.cache.reject(&allowed(forbidden)).await.expect("a report").invalidated);
    assert_eq!(world.get().await.expect("a token").token.generation, FIRST);
    assert_eq!(world.upstream.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_storm_of_a_mere_permission_error_is_stopped() {
    let world = World::new();
    let mut current = world.get().await.expect("a token").token.generation;
    let mut refused = None;
    for _ in 0..10 {
        match world.get_with(|request| request.rejected = Some(current)).await {
            Ok(entry) => current = entry.token.generation,
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
    }
    let refused = refused.expect("the guard has stopped it");
    assert_eq!(refused.kind(), ErrorKind::TooManyInvalidations);
    assert!(refused.retry_after().is_some_and(|delay| delay <= Duration::from_secs(30)));
    assert_eq!(world.upstream.calls(), 4, "the first token and three replacements");
    assert!(world.get().await.is_ok(), "the token at hand stays");
    sleep(Duration::from_secs(30)).await;
    assert!(world.get_with(|request| request.rejected = Some(current)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_rejection_spends_one_attempt_in_spite_of_backoff_and_only_one() {
    let world = World::new();
    let first = world.get().await.expect("a token");
    world.upstream.fail(Some(ErrorKind::UpstreamDown));
    advance(first.token.refresh_at.since(first.token.issued_at)).await;
    // A few failures in a row: the next attempt is far away.
    while world
        .cache
        .parts
        .memory
        .refusal(&world.key().hash(), world.cache.now())
        .is_none_or(|r| r.next_attempt_at.since(world.cache.now()) < Duration::from_secs(60))
    {
        world.get().await.expect("it is still valid");
        sleep(Duration::from_secs(1)).await;
    }
    let calls = world.upstream.calls();
    let answers = join_all((0..100).map(|_| world.get_with(|request| request.rejected = Some(FIRST)))).await;
    assert!(answers.iter().all(Result::is_err));
    assert_eq!(world.upstream.calls(), calls + 1);
    for _ in 0..10 {
        sleep(Duration::from_millis(100)).await;
        assert!(world.get_with(|request| request.rejected = Some(FIRST)).await.is_err());
    }
    assert_eq!(world.upstream.calls(), calls + 1);
}

#[tokio::test(start_paused = true)]
async fn the_token_that_was_rejected_is_not_taken_again_from_the_upstream() {
    let world = World::new();
    world.upstream.then(Ok(minted("at-dead", Duration::from_secs(600))));
    world.get().await.expect("a token");
    world.upstream.then(Ok(minted("at-dead", Duration::from_secs(600))));
    let error = world.get_with(|request| request.rejected = Some(FIRST)).await.expect_err("the same again");
    assert_eq!(error.kind(), ErrorKind::UpstreamDown);
    sleep(Duration::from_secs(6)).await;
    assert_eq!(world.get().await.expect("another one").token.generation, SECOND);
}

#[tokio::test(start_paused = true)]
async fn an_old_generation_is_answered_from_memory() {
    let world = World::new();
    world.get().await.expect("a token");
    world.reject(FIRST).await.expect("a report");
    world.get().await.expect("its replacement");
    world.store.close().await;
    let answer = world.reject(FIRST).await.expect("no store is needed");
    assert_eq!((answer.invalidated, answer.min_generation), (false, SECOND));
}

#[tokio::test(start_paused = true)]
async fn a_rejection_that_the_store_cannot_take_still_holds_on_this_replica() {
    let world = Arc::new(World::new());
    world.get().await.expect("a token");
    world.store.close().await;
    assert_eq!(world.reject(FIRST).await.map_err(|e| e.kind()), Err(ErrorKind::StoreDown));
    sleep(Duration::from_secs(2)).await;
    assert_eq!(world.get().await.expect("its replacement, had without the store").token.generation, SECOND);
}
