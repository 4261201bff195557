//! An upstream that is down, slow or hangs: what is valid is served, what is not is refused with the time to come again.

use std::time::Duration;

use futures::future::join_all;
use tokencache_proto::v1::{GetTokenRequest, Token};
use tonic::{Code, Request, Status};

use crate::{
    broker::{Broker, Over, Stage, come_again, eventually, reason},
    upstream::Fault,
};

const HOUR: Duration = Duration::from_secs(3600);

/// Longer than the broker's own backoff.
const BACKOFF: Duration = Duration::from_secs(301);

fn of(credential: &str) -> GetTokenRequest {
    GetTokenRequest { credential: credential.into(), ..Default::default() }
}

async fn get(broker: &Broker, request: impl tonic::IntoRequest<GetTokenRequest>) -> Result<Token, Status> {
    let answer = broker.tokens().await.get_token(request).await?.into_inner();
    Ok(answer.token.expect("an answer without a condition has a token"))
}

fn within(timeout: Duration) -> Request<GetTokenRequest> {
    let mut request = Request::new(of("ci"));
    request.set_timeout(timeout);
    request
}

#[tokio::test]
async fn with_the_upstream_down_a_valid_token_is_served_until_it_expires_and_then_refused_until_it_is_up_again() {
    let stage = Stage::new(Over::Sqlite).await;
    let broker = stage.start(&stage.credential("ci", "")).await;
    let first = get(&broker, of("ci")).await.expect("the upstream works");

    for (fault, late) in [(Fault::status(503), HOUR / 2), (Fault::Cut, HOUR / 4), (Fault::status(500), HOUR / 5)] {
        stage.upstream.always(Some(fault));
        stage.clock.advance(late);
        let served = get(&broker, of("ci")).await.expect("the token is still valid");
        assert_eq!(served.access_token, first.access_token);
    }
    stage.clock.advance(HOUR / 20);
    let refused = get(&broker, of("ci")).await.expect_err("the token has expired");
    assert_eq!((refused.code(), reason(&refused)), (Code::Unavailable, "UPSTREAM_DOWN".into()));
    let delay = come_again(&refused).expect("a time to come again");
    assert!(delay > Duration::ZERO && delay < BACKOFF, "{delay:?}");

    let calls = stage.upstream.calls();
    let herd = join_all((0..50).map(|_| get(&broker, of("ci")))).await;
    assert!(herd.iter().all(|answer| answer.as_ref().is_err_and(|status| reason(status) == "UPSTREAM_DOWN")));
    assert_eq!(stage.upstream.calls(), calls, "a dead upstream is asked once, not once per caller");

    stage.upstream.always(None);
    stage.clock.advance(BACKOFF);
    let second = get(&broker, of("ci")).await.expect("it recovers by itself");
    assert_eq!(second.generation, 2);
    broker.stop().await;
}

#[tokio::test]
async fn nobody_has_to_ask_for_the_recovery() {
    let stage = Stage::new(Over::Memory).await;
    let broker = stage.start(&stage.credential("ci", "")).await;
    stage.upstream.always(Some(Fault::status(503).with_header("retry-after", "1")));
    let mut events = broker.library().watch(["ci"]).await.expect("a watch");
    let event = events.next().await.expect("an event").expect("a valid one");
    assert!(matches!(event.update, tokencache_client::TokenUpdate::Unavailable(_)), "{event:?}");
    stage.upstream.always(None);
    eventually("the watcher gets a token", async || {
        let event = events.next().await.expect("the watch goes on").expect("a valid event");
        matches!(event.update, tokencache_client::TokenUpdate::Token(_))
    })
    .await;
    broker.stop().await;
}

#[tokio::test]
async fn a_throttled_upstream_says_when_to_come_again() {
    let stage = Stage::new(Over::Memory).await;
    let broker = stage.start(&stage.credential("ci", "")).await;
    stage.upstream.then(Fault::status(429).with_header("retry-after", "120"));
    let refused = get(&broker, of("ci")).await.expect_err("it is throttled");
    assert_eq!((refused.code(), reason(&refused)), (Code::Unavailable, "UPSTREAM_THROTTLED".into()));
    let delay = come_again(&refused).expect("a time to come again");
    assert!(delay <= Duration::from_secs(120) && delay > Duration::from_secs(60), "{delay:?}");
    stage.clock.advance(Duration::from_secs(60));
    get(&broker, of("ci")).await.expect_err("it is too early");
    assert_eq!(stage.upstream.calls(), 1);
    stage.clock.advance(Duration::from_secs(61));
    assert_eq!(get(&broker, of("ci")).await.expect("it works again").generation, 1);
    broker.stop().await;
}

#[tokio::test]
async fn a_caller_hears_that_the_upstream_is_slow_before_its_own_deadline_and_the_next_one_gets_the_result() {
    let stage = Stage::new(Over::Sqlite).await;
    let broker = stage.start(&stage.credential("ci", "")).await;
    stage.upstream.hold();
    let slow = get(&broker, within(Duration::from_millis(1500))).await.expect_err("nobody answers");
    // A deadline that fires on this side of the wire, or in the transport of the other, carries no reason.
    assert_eq!((slow.code(), reason(&slow)), (Code::DeadlineExceeded, "UPSTREAM_SLOW".into()));
    assert!(come_again(&slow).is_some());
    stage.upstream.release();
    assert_eq!(get(&broker, of("ci")).await.expect("the answer was kept").generation, 1);
    assert_eq!(stage.upstream.calls(), 1, "the flight went on without its caller");
    broker.stop().await;
}

#[tokio::test]
async fn in_its_last_stretch_a_token_is_served_when_the_deadline_passes_before_its_replacement_comes() {
    let stage = Stage::new(Over::Sqlite).await;
    let broker = stage.start(&stage.credential("ci", "")).await;
    let first = get(&broker, of("ci")).await.expect("the upstream works");
    stage.upstream.always(Some(Fault::Hang));
    stage.clock.advance(HOUR - Duration::from_secs(30));
    let served = get(&broker, within(Duration::from_millis(1500))).await.expect("the token is valid for 30 s more");
    assert_eq!(served.access_token, first.access_token);
    assert_eq!(stage.upstream.calls(), 2, "the replacement was asked for");

    let mut demanding = within(Duration::from_millis(1500));
    demanding.get_mut().min_validity = Some(prost_types::Duration { seconds: 60, nanos: 0 });
    let refused = get(&broker, demanding).await.expect_err("nothing lasts that long");
    assert_eq!((refused.code(), reason(&refused)), (Code::DeadlineExceeded, "UPSTREAM_SLOW".into()));
}
