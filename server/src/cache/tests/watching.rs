//! Watching.

use std::{pin::pin, time::Duration};

use futures::StreamExt as _;
use tokio::time::{sleep, timeout};

use super::world::{Plan, World, allowed, name, selector};
use crate::{
    cache::hub::Change,
    error::ErrorKind,
    policy::{Action, CredentialRequest, RefreshRequest},
    types::Generation,
};

#[tokio::test(start_paused = true)]
async fn a_watcher_is_given_the_current_token_and_then_every_change() {
    let world = World::new();
    let mut changes = pin!(world.cache.watch(&world.watch_request()).expect("it is known"));
    assert!(matches!(changes.next().await, Some(Change::Token(entry)) if entry.token.generation == Generation::new(1)));
    world.reject(Generation::new(1)).await.expect("a report");
    assert!(matches!(changes.next().await, Some(Change::Invalidated(floor)) if floor == Generation::new(2)));
    assert!(matches!(changes.next().await, Some(Change::Token(entry)) if entry.token.generation == Generation::new(2)));
}

#[tokio::test(start_paused = true)]
async fn a_watched_token_is_replaced_for_ever_although_nobody_asks_for_it() {
    let world = World::new();
    *world.upstream.lifetime.lock().unwrap() = Duration::from_secs(60);
    let mut changes = pin!(world.cache.watch(&world.watch_request()).expect("it is known"));
    for expected in 1..=500 {
        let change = changes.next().await;
        assert!(matches!(&change, Some(Change::Token(e)) if e.token.generation.get() == expected), "{change:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_watcher_hears_that_there_is_no_token_and_when_there_is_one_again() {
    let world = World::new();
    world.upstream.fail(Some(ErrorKind::UpstreamDown));
    let mut changes = pin!(world.cache.watch(&world.watch_request()).expect("it is known"));
    assert!(matches!(changes.next().await, Some(Change::Unavailable(e)) if e.kind() == ErrorKind::UpstreamDown));
    world.upstream.fail(None);
    loop {
        match changes.next().await {
            Some(Change::Token(entry)) => break assert_eq!(entry.token.generation, Generation::new(1)),
            Some(Change::Unavailable(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_remains_of_a_watch_that_ended() {
    let world = World::new();
    {
        let mut changes = pin!(world.cache.watch(&world.watch_request()).expect("it is known"));
        changes.next().await;
        assert_eq!(world.cache.parts.hub.watchers(&world.key().hash()), 1);
    }
    assert_eq!(world.cache.parts.hub.watchers(&world.key().hash()), 0);
    let calls = world.upstream.calls();
    sleep(Duration::from_secs(24 * 3600)).await;
    assert!(world.upstream.calls() <= calls + 4);
}

#[tokio::test(start_paused = true)]
async fn a_watcher_that_was_too_slow_is_given_the_current_token() {
    let world = World::new();
    let mut changes = pin!(world.cache.watch(&world.watch_request()).expect("it is known"));
    assert!(matches!(changes.next().await, Some(Change::Token(_))));
    for _ in 0..100 {
        world.cache.refresh(&allowed(RefreshRequest(selector(&[])))).await.expect("a new token");
    }
    let change = timeout(Duration::from_secs(1), changes.next()).await.expect("it is told at once");
    assert!(matches!(&change, Some(Change::Token(e)) if e.token.generation.get() == 101), "{change:?}");
}

#[tokio::test(start_paused = true)]
async fn a_watcher_is_never_given_a_token_that_it_was_told_is_rejected() {
    let world = World::new();
    let rejected = World::new().get().await.expect("a token");
    world.upstream.fail(Some(ErrorKind::UpstreamDown));
    let mut changes = pin!(world.cache.watch(&world.watch_request()).expect("it is known"));
    assert!(matches!(changes.next().await, Some(Change::Unavailable(_))));
    // A load that found the token in the store tells of it later than the rejection, which it raced.
    world.cache.parts.hub.invalidated(&world.key().hash(), Generation::new(2));
    world.cache.parts.hub.token(&rejected);
    let told: Vec<_> = changes.take(3).collect().await;
    assert!(told.iter().any(|change| matches!(change, Change::Invalidated(_))), "{told:?}");
    assert!(told.iter().all(|change| !matches!(change, Change::Token(_))), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_watcher_is_given_a_new_token_after_a_rejection_that_the_store_could_not_take() {
    let (world, store) = World::with_faulty_store(&Plan::default());
    let mut changes = pin!(world.cache.watch(&world.watch_request()).expect("it is known"));
    assert!(matches!(changes.next().await, Some(Change::Token(_))));
    store.set_down(true);
    assert!(world.reject(Generation::new(1)).await.is_err());
    store.set_down(false);
    assert!(matches!(changes.next().await, Some(Change::Invalidated(_))));
    let replaced = async {
        loop {
            match changes.next().await {
                Some(Change::Token(entry)) => break entry,
                Some(Change::Unavailable(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    };
    let entry = timeout(Duration::from_secs(10), replaced).await.expect("it is soon replaced");
    assert_eq!(entry.token.generation, Generation::new(2));
}

#[tokio::test(start_paused = true)]
async fn a_watcher_is_given_a_new_token_after_an_operator_has_invalidated_it() {
    let world = World::new();
    let mut changes = pin!(world.cache.watch(&world.watch_request()).expect("it is known"));
    assert!(matches!(changes.next().await, Some(Change::Token(_))));
    let all = allowed(CredentialRequest { name: name("c"), action: Action::Operate });
    assert_eq!(world.cache.invalidate_all(&all, false).await, Ok(1));
    assert!(matches!(changes.next().await, Some(Change::Invalidated(_))));
    let change = timeout(Duration::from_secs(10), changes.next()).await.expect("it is soon replaced");
    assert!(matches!(&change, Some(Change::Token(e)) if e.token.generation.get() == 2), "{change:?}");
}
