//! Rotating refresh tokens against a provider that ends the family of one that is sent twice.

use std::time::Duration;

use futures::future::join_all;
use tokencache_client::{CredentialState, ErrorKind, GetToken, Selector};

use crate::{
    broker::{Broker, Over, Stage},
    upstream::Fault,
};

const HOUR: Duration = Duration::from_secs(3600);

/// Longer than the broker's own backoff.
const BACKOFF: Duration = Duration::from_secs(301);

async fn get(broker: &Broker, scope: &str) -> tokencache_client::Result<u64> {
    let selector = Selector::new("crm/prod").with_scopes([scope]);
    Ok(broker.library().get_token(GetToken::of(selector)).await?.token.expect("a token").generation)
}

/// Ten rounds, in each of which every token has expired and ten callers ask for each of three that share a grant.
async fn thirty_rotations_reuse_nothing(over: Over) {
    let stage = Stage::new(over).await;
    let credential = stage.rotating("crm/prod");
    let mut broker = stage.start(&credential).await;
    stage.upstream.take(Duration::from_millis(10));
    for round in 1..=10 {
        let callers = (0..30).map(|caller| get(&broker, ["a", "b", "c"][caller % 3]));
        let generations = join_all(callers).await;
        assert!(generations.iter().all(|generation| *generation == Ok(round)), "round {round}: {generations:?}");
        if round == 5 {
            broker.stop().await;
            broker = stage.start(&credential).await;
        }
        stage.clock.advance(HOUR);
    }
    let upstream = &stage.upstream;
    assert_eq!((upstream.rotations(), upstream.calls()), (30, 30), "one call for each token");
    assert_eq!((upstream.reuses(), upstream.most_live_calls()), (0, 1), "each refresh token was sent once");
    let grant = broker.operator().describe_credential("crm/prod").await.expect("a description").grant.expect("a grant");
    assert_eq!(
        (grant.version, grant.needs_reauth_reason.as_str()),
        (31, ""),
        "the first one and each of its successors"
    );
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_rotations_send_no_refresh_token_twice_on_sqlite() {
    thirty_rotations_reuse_nothing(Over::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_rotations_send_no_refresh_token_twice_on_postgres() {
    thirty_rotations_reuse_nothing(Over::Postgres).await;
}

#[tokio::test]
async fn a_call_that_the_provider_never_saw_is_repeated_once_and_costs_nothing() {
    let stage = Stage::new(Over::Sqlite).await;
    let broker = stage.start(&stage.rotating("crm/prod")).await;
    assert_eq!(get(&broker, "a").await, Ok(1));
    stage.clock.advance(HOUR);
    stage.upstream.then(Fault::Cut);
    assert_eq!(get(&broker, "a").await.expect_err("the connection broke").reason(), Some("UPSTREAM_DOWN"));
    stage.clock.advance(BACKOFF);
    assert_eq!(get(&broker, "a").await, Ok(2));
    assert_eq!((stage.upstream.reuses(), stage.upstream.calls()), (0, 3));
    broker.stop().await;
}

#[tokio::test]
async fn a_lost_answer_ends_in_a_loss_that_says_so_and_in_no_further_call() {
    let stage = Stage::new(Over::Sqlite).await;
    let broker = stage.start(&stage.rotating("crm/prod")).await;
    assert_eq!(get(&broker, "a").await, Ok(1));
    stage.clock.advance(HOUR);
    stage.upstream.then(Fault::Lose);
    get(&broker, "a").await.expect_err("the connection broke");
    stage.clock.advance(BACKOFF);
    let lost = get(&broker, "a").await.expect_err("the replay is refused");
    assert_eq!((lost.kind(), lost.reason()), (ErrorKind::NeedsOperator, Some("NEEDS_REAUTH")));
    assert!(lost.message().contains("in doubt"), "{lost}");
    assert_eq!((stage.upstream.reuses(), stage.upstream.calls()), (1, 3), "one replay, and no more");

    for scope in ["a", "b"] {
        stage.clock.advance(HOUR);
        assert_eq!(get(&broker, scope).await.expect_err("nobody logged in").reason(), Some("NEEDS_REAUTH"));
    }
    assert_eq!(stage.upstream.calls(), 3, "a lost grant is not sent again");
    let description = broker.operator().describe_credential("crm/prod").await.expect("a description");
    assert_eq!(description.credential.state, CredentialState::NeedsReauth);

    std::fs::write(stage.path("crm-prod.rt"), stage.upstream.new_family()).expect("a file");
    stage.clock.advance(HOUR);
    assert_eq!(get(&broker, "a").await, Ok(2), "a person has logged in again");
    broker.stop().await;
}
