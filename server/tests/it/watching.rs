//! `WatchTokens`: what happens to several tokens, on one stream.

use std::{collections::BTreeMap, time::Duration};

use tokencache_client::{Client, Error, Rejection, Selector, TokenEvent, TokenEvents, TokenUpdate};
use tokencache_proto::v1::{TokenSelector, WatchTokensRequest};
use tokio::time::timeout;
use tonic::Code;

use crate::{
    broker::{Broker, Over, Stage, eventually, reason},
    upstream::Fault,
};

const PATIENCE: Duration = Duration::from_secs(30);

async fn next(events: &mut TokenEvents) -> TokenEvent {
    let event = timeout(PATIENCE, events.next()).await.expect("an event in time");
    event.expect("the stream goes on").expect("a valid event")
}

async fn token(events: &mut TokenEvents) -> (String, u64) {
    let event = next(events).await;
    let TokenUpdate::Token(token) = event.update else { panic!("not a token: {event:?}") };
    (event.selector.credential().to_owned(), token.generation)
}

async fn unavailable(events: &mut TokenEvents) -> (Selector, Error) {
    let event = next(events).await;
    let TokenUpdate::Unavailable(error) = event.update else { panic!("not unavailable: {event:?}") };
    (event.selector, error)
}

async fn watchers(broker: &Broker, name: &str) -> u32 {
    let description = broker.operator().describe_credential(name).await.expect("a description");
    description.tokens.iter().map(|token| token.watchers).sum()
}

async fn reject(client: &Client, name: &str, generation: u64) {
    let report = Rejection::of_generation(name, generation).http_status(401);
    assert!(client.invalidate(report).await.expect("a report").invalidated);
}

#[tokio::test]
async fn one_stream_tells_of_several_tokens_the_current_ones_first_and_then_each_change() {
    let stage = Stage::new(Over::Sqlite).await;
    let credentials = stage.credential("ci", "") + &stage.credential("crm/prod", "");
    let broker = stage.start(&credentials).await;
    let client = broker.library();
    let mut events = client.watch(["ci", "crm/prod"]).await.expect("a watch");
    let first = BTreeMap::from([token(&mut events).await, token(&mut events).await]);
    assert_eq!(first, BTreeMap::from([("ci".into(), 1), ("crm/prod".into(), 1)]));

    broker.operator().refresh_token("crm/prod").await.expect("a new token");
    assert_eq!(token(&mut events).await, ("crm/prod".into(), 2), "replaced");

    reject(&client, "ci", 1).await;
    let event = next(&mut events).await;
    assert_eq!(event.selector.credential(), "ci");
    assert!(matches!(event.update, TokenUpdate::Invalidated { min_generation: 2 }), "{event:?}");
    assert_eq!(token(&mut events).await, ("ci".into(), 2), "and its replacement");

    stage.upstream.always(Some(Fault::status(503)));
    reject(&client, "ci", 2).await;
    assert!(matches!(next(&mut events).await.update, TokenUpdate::Invalidated { min_generation: 3 }));
    let (selector, error) = unavailable(&mut events).await;
    assert_eq!((selector.credential(), error.reason()), ("ci", Some("UPSTREAM_DOWN")));
    assert!(error.retry_after().is_some());
    stage.upstream.always(None);
    stage.clock.advance(Duration::from_secs(301));
    broker.operator().refresh_token("ci").await.expect("it works again");
    assert_eq!(token(&mut events).await, ("ci".into(), 3));
    drop(events);
    broker.stop().await;
}

#[tokio::test]
async fn a_token_that_cannot_be_had_is_told_first_with_the_reason() {
    let stage = Stage::new(Over::Memory).await;
    let broker = stage.start(&stage.credential("ci", "")).await;
    stage.upstream.then(Fault::refusal("invalid_client"));
    let mut events = broker.library().watch([Selector::new("ci").with_scopes(["a", "b"])]).await.expect("a watch");
    let (selector, error) = unavailable(&mut events).await;
    assert_eq!(selector, Selector::new("ci").with_scopes(["a", "b"]), "as the client wrote it");
    assert_eq!(error.reason(), Some("MISCONFIGURED"));
    drop(events);
    broker.stop().await;
}

#[tokio::test]
async fn a_replica_that_drains_tells_its_watchers_to_look_for_another_one() {
    let stage = Stage::new(Over::Sqlite).await;
    let broker = stage.start(&stage.credential("ci", "")).await;
    let selectors = vec![TokenSelector { credential: "ci".into(), ..Default::default() }];
    let watch = broker.tokens().await.watch_tokens(WatchTokensRequest { selectors }).await.expect("a watch");
    let mut stream = watch.into_inner();
    assert!(stream.message().await.expect("an event").is_some());
    broker.drain();
    let farewell = timeout(PATIENCE, stream.message()).await.expect("in time").expect_err("the end");
    assert_eq!((farewell.code(), reason(&farewell)), (Code::Unavailable, "DRAINING".into()));
    broker.stop().await;
}

#[tokio::test]
async fn streams_that_are_dropped_leave_no_watcher_behind() {
    let stage = Stage::new(Over::Memory).await;
    let broker = stage.start(&stage.credential("ci", "")).await;
    let mut streams = vec![];
    for _ in 0..50 {
        let mut events = broker.library().watch(["ci"]).await.expect("a watch");
        assert_eq!(token(&mut events).await, ("ci".into(), 1));
        streams.push(events);
    }
    assert_eq!(watchers(&broker, "ci").await, 50);
    streams.truncate(1);
    eventually("one is left", async || watchers(&broker, "ci").await == 1).await;
    drop(streams);
    eventually("none is left", async || watchers(&broker, "ci").await == 0).await;
    broker.stop().await;
}
