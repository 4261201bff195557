//! Replicas on one Postgres that share the budget of a token endpoint, over real gRPC and HTTP.

use futures::future::join_all;
use tokencache_client::{EndpointState, Error, GetToken, Selector};

use crate::{
    broker::{Broker, Over, Stage, eventually},
    upstream::Fault,
};

/// Two replicas whose endpoint has these rules.
async fn replicas(rules: &str) -> (Stage, Broker, Broker) {
    let stage = Stage::new(Over::Postgres).await;
    let text = format!("[endpoints.{:?}]\n{rules}\n{}", stage.upstream.url(), stage.credential("ci", ""));
    let (one, two) = (stage.start_replica("one", &text).await, stage.start_replica("two", &text).await);
    (stage, one, two)
}

/// Asks for the key number `i`; its generation.
async fn get(broker: &Broker, i: usize) -> Result<u64, Error> {
    let selector = Selector::new("ci").with_scopes([format!("s{i}")]);
    let answer = broker.library().get_token(GetToken::of(selector)).await?;
    Ok(answer.token.expect("an answer without a condition has a token").generation)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_together_make_no_more_calls_at_once_than_may_be() {
    let (stage, one, two) = replicas("max_concurrent = 3").await;
    stage.upstream.take(std::time::Duration::from_millis(30));
    let answers = join_all((0..40).flat_map(|i| [get(&one, i), get(&two, i)])).await;
    for answer in answers {
        assert_eq!(answer.expect("a token"), 1);
    }
    assert_eq!((stage.upstream.calls(), stage.upstream.most_at_once()), (40, 3));
    let seen = one.operator().describe_credential("ci").await.expect("a description");
    let endpoint = seen.endpoint.expect("it has one");
    assert_eq!((endpoint.endpoint.as_str(), endpoint.state), (stage.upstream.url(), EndpointState::Closed));
    assert_eq!((endpoint.calls, endpoint.max_concurrent), (0, 3), "all places are free again");
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_fails_on_one_replica_is_left_alone_by_the_other_and_then_probed_once() {
    let (stage, one, two) = replicas("failures_to_open = 3").await;
    stage.upstream.always(Some(Fault::status(502)));
    for i in 0..3 {
        assert_eq!(get(&one, i).await.expect_err("it is down").reason(), Some("UPSTREAM_DOWN"));
    }
    let error = get(&two, 10).await.expect_err("it is left alone");
    assert_eq!(error.reason(), Some("UPSTREAM_DOWN"));
    assert!(error.message().ends_with("has failed 3 times in a row and is left alone for a while"), "{error}");
    assert!(error.retry_after().is_some(), "{error:?}");
    assert_eq!(stage.upstream.calls(), 3);

    let seen = two.operator().describe_credential("ci").await.expect("a description");
    let endpoint = seen.endpoint.expect("it has one");
    assert_eq!((endpoint.state, endpoint.consecutive_failures), (EndpointState::Open, 3));
    assert!(endpoint.next_attempt_at.is_some() && endpoint.prober.is_empty(), "{endpoint:?}");
    let origin = stage.upstream.url();
    assert_eq!(one.metric(&format!("tokencache_endpoint_openings_total{{endpoint=\"{origin}\"}}")).await, 1);
    assert_eq!(two.metric(&format!("tokencache_endpoint_open{{endpoint=\"{origin}\"}}")).await, 1);

    stage.upstream.always(None);
    let mut next = 100;
    eventually("a call finds out that it works again", async || {
        next += 1;
        get(&two, next).await.is_ok()
    })
    .await;
    assert_eq!(stage.upstream.calls(), 4, "one probe, and nobody asked before its time");
    assert_eq!(get(&one, 20).await.expect("it is closed for all"), 1);
    let seen = one.operator().describe_credential("ci").await.expect("a description");
    assert_eq!(seen.endpoint.map(|endpoint| endpoint.state), Some(EndpointState::Closed));
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_endpoint_asked_one_replica_for_the_other_honours() {
    let (stage, one, two) = replicas("").await;
    stage.upstream.then(Fault::status(503).with_header("retry-after", "600"));
    get(&one, 0).await.expect_err("it asks to be left alone");
    let error = get(&two, 1).await.expect_err("it is left alone");
    assert_eq!((error.reason(), stage.upstream.calls()), (Some("UPSTREAM_DOWN"), 1), "{error}");
    assert!(error.message().ends_with("asks to be left alone for a while"), "{error}");
    let seen = two.operator().describe_credential("ci").await.expect("a description");
    assert_eq!(seen.endpoint.map(|endpoint| endpoint.state), Some(EndpointState::Paused));
    two.operator().refresh_token("ci").await.expect("an operator may find out whether it works again");
    assert_eq!(get(&two, 2).await.expect("a token"), 1);
    let mut next = 100;
    eventually("the one that was told so hears that it is over", async || {
        next += 1;
        get(&one, next).await.is_ok()
    })
    .await;
    assert_eq!(stage.upstream.calls(), 4);
    one.stop().await;
    two.stop().await;
}
