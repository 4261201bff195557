//! What a token is served for, and when it is replaced.

use std::time::Duration;

use tokencache_client::{Freshness, GetToken, Selector, Token};

use crate::{
    broker::{Broker, Over, Stage, eventually},
    upstream::Fault,
};

const HOUR: Duration = Duration::from_secs(3600);

async fn get(broker: &Broker, request: GetToken) -> Token {
    broker.library().get_token(request).await.expect("a token").token.expect("it is in the answer")
}

#[tokio::test]
async fn a_token_that_is_due_is_served_at_once_and_replaced_behind_the_callers_back() {
    let stage = Stage::new(Over::Sqlite).await;
    let broker = stage.start(&stage.credential("ci", "refresh_window = \"10m\"\n")).await;
    assert_eq!(get(&broker, GetToken::of("ci")).await.generation, 1);
    // Jitter brings the time forward by a tenth of the lifetime at most.
    stage.clock.advance(HOUR - Duration::from_secs(17 * 60));
    assert_eq!((get(&broker, GetToken::of("ci")).await.generation, stage.upstream.calls()), (1, 1), "not yet");
    stage.clock.advance(Duration::from_secs(8 * 60));
    stage.upstream.hold();
    assert_eq!(get(&broker, GetToken::of("ci")).await.generation, 1, "nobody waits for the upstream");
    eventually("it is asked all the same", async || stage.upstream.calls() == 2).await;
    for _ in 0..20 {
        assert_eq!(get(&broker, GetToken::of("ci")).await.generation, 1);
    }
    stage.upstream.release();
    eventually("the new one is served", async || get(&broker, GetToken::of("ci")).await.generation == 2).await;
    assert_eq!(stage.upstream.calls(), 2, "once for all callers");
    broker.stop().await;
}

#[tokio::test]
async fn a_caller_that_needs_a_token_for_longer_gets_a_new_one() {
    let stage = Stage::new(Over::Sqlite).await;
    let broker = stage.start(&stage.credential("ci", "")).await;
    assert_eq!(get(&broker, GetToken::of("ci")).await.generation, 1);
    stage.clock.advance(HOUR / 3);
    let for_half_an_hour = || GetToken::of("ci").min_validity(HOUR / 2);
    assert_eq!(get(&broker, for_half_an_hour()).await.generation, 1, "it lasts");
    stage.clock.advance(HOUR / 4);
    assert_eq!(get(&broker, for_half_an_hour()).await.generation, 2, "it did not last any more");
    stage.upstream.always(Some(Fault::status(503)));
    stage.clock.advance(HOUR * 2 / 3);
    let refused = broker.library().get_token(for_half_an_hour()).await.expect_err("there is none");
    assert_eq!(refused.reason(), Some("UPSTREAM_DOWN"));
    assert_eq!(get(&broker, GetToken::of("ci")).await.generation, 2, "for others it is good enough");
    broker.stop().await;
}

#[tokio::test]
async fn a_caller_that_has_the_current_token_is_not_sent_it_again() {
    let stage = Stage::new(Over::Memory).await;
    let broker = stage.start(&stage.credential("ci", "")).await;
    let client = broker.library();
    let first = get(&broker, GetToken::of("ci")).await;
    let unchanged = client.get_token(GetToken::of("ci").if_generation_not(1)).await.expect("an answer");
    assert!(unchanged.token.is_none(), "{unchanged:?}");
    assert_eq!(unchanged.freshness, Freshness::Verified);
    assert!(unchanged.server_time.is_some_and(|now| now < first.expires_at));
    let changed = client.get_token(GetToken::of("ci").if_generation_not(1).rejected_generation(1)).await;
    assert_eq!(changed.expect("an answer").token.expect("the replacement").generation, 2);
    broker.stop().await;
}

#[tokio::test]
async fn what_is_asked_for_in_another_order_or_twice_is_the_same_and_everything_else_is_not() {
    let stage = Stage::new(Over::Sqlite).await;
    let broker = stage.start(&stage.credential("ci", "scopes = [\"read\", \"write\"]\n")).await;
    let scopes = |scopes: &[&str]| Selector::new("ci").with_scopes(scopes.iter().copied());
    let (api, other) = ("https://api.example/v1", "https://api.example/v2");
    let same = [Selector::new("ci"), scopes(&["read", "write"]), scopes(&["write", "read", "write"])];
    for selector in same {
        assert_eq!(get(&broker, GetToken::of(selector)).await.fingerprint.len(), 16);
    }
    assert_eq!(stage.upstream.calls(), 1);
    let distinct = [
        scopes(&["read"]),
        scopes(&["read,write"]),
        Selector::new("ci").with_audience("read write"),
        Selector::new("ci").with_resources([api]),
        Selector::new("ci").with_resources([api, other]),
        Selector::new("ci").with_audience(api),
    ];
    for (calls, selector) in (2..).zip(distinct) {
        get(&broker, GetToken::of(selector)).await;
        assert_eq!(stage.upstream.calls(), calls);
    }
    get(&broker, GetToken::of(Selector::new("ci").with_resources([other, api, other]))).await;
    assert_eq!(stage.upstream.calls(), 7);
    broker.stop().await;
}
