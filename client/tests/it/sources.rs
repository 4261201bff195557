//! A source against a broker in memory.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokencache_client::{ErrorKind, Refusal, TokenSource, testing::MemoryBroker};
use tokio::task::JoinSet;

const LONG: Duration = Duration::from_secs(3600);

fn broker() -> MemoryBroker {
    let broker = MemoryBroker::new();
    broker.add("api", LONG);
    broker
}

/// Waits until the source holds a generation.
async fn until_held(source: &TokenSource, generation: u64) {
    while source.current().is_none_or(|token| token.generation != generation) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_token_comes_by_itself_and_is_replaced_by_the_stream() {
    let broker = broker();
    let source = broker.client().source("api");
    until_held(&source, 1).await;
    broker.refresh("api");
    until_held(&source, 2).await;
    assert_eq!((broker.minted("api"), broker.reports("api")), (2, 0));
}

#[tokio::test]
async fn many_sources_share_one_stream_and_each_gets_its_token() {
    let broker = MemoryBroker::new();
    let client = broker.client();
    let sources: Vec<_> = (0..1500)
        .map(|number| {
            broker.add(format!("api-{number}"), LONG);
            client.source(format!("api-{number}"))
        })
        .collect();
    for source in &sources {
        until_held(source, 1).await;
    }
    broker.refresh("api-1499");
    until_held(&sources[1499], 2).await;
}

#[tokio::test]
async fn a_thousand_reports_of_one_dead_token_are_one_call() {
    let broker = broker();
    let source = broker.client().source("api");
    let dead = source.get().await.expect("a token");
    let mut reports = JoinSet::new();
    for _ in 0..1000 {
        let (source, dead) = (source.clone(), Arc::clone(&dead));
        reports.spawn(async move { source.rejected(&dead, 401).await });
    }
    for outcome in reports.join_all().await {
        assert_eq!(outcome.expect("a replacement").expect("it was dead").generation, 2);
    }
    assert_eq!((broker.minted("api"), broker.reports("api")), (2, 1));
    let late = source.rejected(&dead, 401).await.expect("a replacement").expect("it was dead");
    assert_eq!((late.generation, broker.reports("api")), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn the_last_token_is_kept_while_the_broker_is_away_but_a_refused_one_is_not() {
    let broker = broker();
    let source = broker.client().source_builder("api").deadline(Duration::from_secs(2)).build();
    let token = source.get().await.expect("a token");
    broker.set_present(false);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(source.get().await.expect("it is valid").generation, 1);
    let error = source.rejected(&token, 401).await.expect_err("nobody is there");
    assert!(error.is_transient(), "{error}");
    assert!(source.current().is_none());
    assert!(source.get().await.is_err());
    broker.set_present(true);
    assert_eq!(source.get().await.expect("a replacement").generation, 2);
    assert_eq!(broker.reports("api"), 1, "what could not be reported then is reported now");
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_gets_the_token_when_the_broker_comes_back() {
    let broker = broker();
    broker.set_present(false);
    let source = broker.client().source("api");
    let waiting = tokio::spawn(async move { source.get().await });
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!waiting.is_finished());
    broker.set_present(true);
    assert_eq!(waiting.await.expect("no panic").expect("a token").generation, 1);
}

#[tokio::test(start_paused = true)]
async fn the_stream_is_opened_again_for_ever() {
    let broker = broker();
    let source = broker.client().source("api");
    until_held(&source, 1).await;
    for generation in 2..6 {
        broker.set_present(false);
        tokio::time::sleep(Duration::from_secs(300)).await;
        broker.set_present(true);
        broker.refresh("api");
        until_held(&source, generation).await;
    }
}

#[tokio::test]
async fn what_only_a_person_can_mend_is_said_at_once() {
    let broker = broker();
    broker.fail("api", "NEEDS_REAUTH");
    let source = broker.client().source("api");
    let error = source.get().await.expect_err("there is none");
    assert_eq!((error.kind(), error.reason()), (ErrorKind::NeedsOperator, Some("NEEDS_REAUTH")));
    let error = broker.client().source("nobody").get().await.expect_err("there is none");
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_refusal_that_the_broker_does_not_take_for_a_dead_token_changes_nothing() {
    let broker = broker();
    let source = broker.client().source("api");
    let token = source.get().await.expect("a token");
    let refusal = Refusal::status(403).error("insufficient_scope");
    assert!(source.rejected(&token, refusal).await.expect("an answer").is_none());
    assert_eq!(source.current().expect("it stays in use").generation, 1);
    assert_eq!((broker.minted("api"), broker.reports("api")), (1, 0));
}

#[tokio::test]
async fn a_token_stays_in_use_where_the_upstream_refuses_fresh_ones_as_well() {
    let broker = broker();
    let source = broker.client().source("api");
    let token = source.get().await.expect("a token");
    broker.fail("api", "TOO_MANY_INVALIDATIONS");
    for _ in 0..3 {
        assert!(source.rejected(&token, 401).await.expect("an answer").is_none());
        assert_eq!(source.get().await.expect("it stays in use").generation, 1);
    }
    assert_eq!((broker.minted("api"), broker.reports("api")), (1, 0));
}

#[tokio::test]
async fn each_new_token_is_observed() {
    let broker = broker();
    let seen = Arc::new(Mutex::new(vec![]));
    let observed = Arc::clone(&seen);
    let client = broker.client();
    let source = client
        .source_builder("api")
        .on_token(move |token| observed.lock().expect("nobody panics").push(token.generation))
        .build();
    until_held(&source, 1).await;
    broker.refresh("api");
    until_held(&source, 2).await;
    assert_eq!(*seen.lock().expect("nobody panics"), [1, 2]);
}

#[tokio::test]
async fn debug_shows_no_token() {
    let broker = broker();
    let source = broker.client().source("api");
    source.get().await.expect("a token");
    let shown = format!("{source:?} {:?}", source.current());
    assert!(!shown.contains("token-1"), "{shown}");
}
