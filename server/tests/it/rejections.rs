//! A token that the upstream refuses: replaced once it is reported, and not again and again.

use std::time::Duration;

use tokencache_client::{CredentialState, ErrorKind, GetToken, Rejection, Token};

use crate::{
    broker::{Broker, Over, Stage},
    upstream::Fault,
};

async fn get(broker: &Broker, request: GetToken) -> Token {
    broker.library().get_token(request).await.expect("a token").token.expect("it is in the answer")
}

#[tokio::test]
async fn a_token_that_was_revoked_upstream_is_replaced_in_one_round_trip() {
    let stage = Stage::new(Over::Sqlite).await;
    let broker = stage.start(&stage.credential("ci", "")).await;
    let first = get(&broker, GetToken::of("ci")).await;
    assert_eq!(stage.upstream.call_api(first.access_token.expose()).await, 200);
    stage.upstream.revoke(first.access_token.expose());
    assert_eq!(stage.upstream.call_api(first.access_token.expose()).await, 401);

    let second = get(&broker, GetToken::of("ci").rejected_generation(first.generation)).await;
    assert_eq!((second.generation, stage.upstream.calls()), (2, 2));
    assert_eq!(stage.upstream.call_api(second.access_token.expose()).await, 200);
    let late = get(&broker, GetToken::of("ci").rejected_generation(first.generation)).await;
    assert_eq!((late.generation, stage.upstream.calls()), (2, 2), "a late report costs nothing");
    broker.stop().await;
}

#[tokio::test]
async fn an_expired_token_is_refused_by_the_api_and_never_served() {
    let stage = Stage::new(Over::Memory).await;
    stage.upstream.issue_for(Duration::from_secs(60));
    let broker = stage.start(&stage.credential("ci", "")).await;
    let first = get(&broker, GetToken::of("ci")).await;
    stage.clock.advance(Duration::from_secs(60));
    assert_eq!(stage.upstream.call_api(first.access_token.expose()).await, 401);
    let second = get(&broker, GetToken::of("ci")).await;
    assert_eq!(stage.upstream.call_api(second.access_token.expose()).await, 200);
    broker.stop().await;
}

#[tokio::test]
async fn what_the_credential_does_not_take_for_a_dead_token_leaves_it_alone() {
    let stage = Stage::new(Over::Memory).await;
    let credentials =
        stage.credential("ci", "") + &stage.credential("strange", "reject_on = [403, \"SESSION_EXPIRED\"]\n");
    let broker = stage.start(&credentials).await;
    let client = broker.library();
    for name in ["ci", "strange"] {
        assert_eq!(get(&broker, GetToken::of(name)).await.generation, 1);
    }
    let report = |name: &str, status| Rejection::of_generation(name, 1).http_status(status);
    let invalidated = async |report| client.invalidate(report).await.expect("a report").invalidated;
    assert!(!invalidated(report("ci", 403)).await, "a matter of permissions");
    assert!(!invalidated(report("ci", 401).error("insufficient_scope")).await, "so is this");
    assert!(!invalidated(report("strange", 401)).await, "not listed");
    assert_eq!(stage.upstream.calls(), 2);
    assert!(invalidated(report("ci", 401).error("invalid_token")).await);
    assert!(invalidated(report("strange", 200).error("SESSION_EXPIRED")).await);
    broker.stop().await;
}

#[tokio::test]
async fn a_storm_of_rejections_of_fresh_tokens_is_stopped_and_the_token_stays() {
    let stage = Stage::new(Over::Sqlite).await;
    let broker = stage.start(&stage.credential("ci", "")).await;
    let client = broker.library();
    for generation in 1..=3 {
        assert_eq!(get(&broker, GetToken::of("ci")).await.generation, generation);
        stage.clock.advance(Duration::from_secs(1));
        let report = Rejection::of_generation("ci", generation).http_status(401);
        assert!(client.invalidate(report).await.expect("it is believed").invalidated);
    }
    assert_eq!(get(&broker, GetToken::of("ci")).await.generation, 4);
    let refused = client.invalidate(Rejection::of_generation("ci", 4)).await.expect_err("the fourth within 30 s");
    assert_eq!((refused.kind(), refused.reason()), (ErrorKind::Throttled, Some("TOO_MANY_INVALIDATIONS")));
    assert!(refused.retry_after().is_some_and(|delay| delay <= Duration::from_secs(30)), "{refused:?}");
    assert_eq!(get(&broker, GetToken::of("ci")).await.generation, 4);
    let description = broker.operator().describe_credential("ci").await.expect("a description");
    assert_eq!(description.credential.state, CredentialState::UpstreamRejects);
    assert!(description.explanation.contains("permitted"), "{}", description.explanation);
    assert_eq!(stage.upstream.calls(), 4);

    stage.clock.advance(Duration::from_secs(30));
    assert!(client.invalidate(Rejection::of_generation("ci", 4)).await.expect("the storm is over").invalidated);
    broker.stop().await;
}

#[tokio::test]
async fn a_rejected_token_is_not_served_even_if_there_is_no_other() {
    let stage = Stage::new(Over::Sqlite).await;
    let broker = stage.start(&stage.credential("ci", "")).await;
    get(&broker, GetToken::of("ci")).await;
    stage.upstream.always(Some(Fault::status(503)));
    let error = broker.library().get_token(GetToken::of("ci").rejected_generation(1)).await.expect_err("none is left");
    assert_eq!(error.reason(), Some("UPSTREAM_DOWN"));
    let error = broker.library().get_token(GetToken::of("ci")).await.expect_err("for nobody");
    assert_eq!(error.reason(), Some("UPSTREAM_DOWN"));
    broker.stop().await;
}
