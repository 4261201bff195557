//! The tower layer around a hyper client.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper_util::{
    client::legacy::{Client as Hyper, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokencache_client::{
    Refusal, Timing, TokenAuth,
    testing::MemoryBroker,
    tower::{BodyError, TokenBody},
};
use tokio_stream::StreamExt as _;
use tower::{Service as _, ServiceBuilder, ServiceExt as _};

use crate::upstream::Upstream;

type Boxed = http_body_util::combinators::UnsyncBoxBody<Bytes, BodyError>;
type Answer = Response<TokenBody<hyper::body::Incoming>>;

fn auth() -> (MemoryBroker, TokenAuth) {
    let broker = MemoryBroker::new();
    broker.add("api", Duration::from_secs(3600));
    let auth = TokenAuth::new(broker.client().source("api"));
    (broker, auth)
}

async fn send(auth: TokenAuth, request: Request<Boxed>) -> Result<Answer, BodyError> {
    let session: Hyper<HttpConnector, TokenBody<Boxed>> = Hyper::builder(TokioExecutor::new()).build_http();
    let mut session = ServiceBuilder::new().layer(auth.layer()).service(session);
    session.ready().await?.call(request).await
}

fn whole(bytes: &'static [u8]) -> Boxed {
    Full::from(bytes).map_err(|never| match never {}).boxed_unsync()
}

fn streamed(parts: usize) -> Boxed {
    let frames = tokio_stream::iter((0..parts).map(|_| Ok(hyper::body::Frame::data(Bytes::from_static(&[7; 1000])))));
    StreamBody::new(frames.map(|frame: Result<_, BodyError>| frame)).boxed_unsync()
}

#[tokio::test]
async fn the_original_request_is_sent_again_but_for_the_token() {
    for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS] {
        for kind in 0..3 {
            let upstream = Upstream::start().await;
            upstream.accept(2);
            let (broker, auth) = auth();
            let body = [whole(b""), whole(b"a body"), streamed(5)].into_iter().nth(kind).expect("one of them");
            let request = Request::builder().method(&method).uri(upstream.url("/a?b=c")).header("x-own", "kept");
            let answer = send(auth, request.body(body).expect("a request")).await.expect("an answer");
            assert_eq!(answer.status(), StatusCode::OK);
            assert_eq!(answer.extensions().get::<Timing>().expect("timed").replays, 1);
            let mut sent = upstream.sent();
            assert_eq!(sent.len(), 2, "{method} {kind}");
            assert_eq!(sent[0].headers.remove("authorization").expect("a token"), "Bearer token-1-of-api");
            assert_eq!(sent[1].headers.remove("authorization").expect("a token"), "Bearer token-2-of-api");
            assert_eq!((sent[0].status, sent[1].status), (StatusCode::UNAUTHORIZED, StatusCode::OK));
            sent[0].status = StatusCode::OK;
            assert_eq!(sent[0], sent[1]);
            assert_eq!(sent[1].headers["x-own"], "kept");
            assert_eq!((broker.minted("api"), broker.reports("api")), (2, 1));
        }
    }
}

#[tokio::test]
async fn a_body_that_is_too_long_to_keep_arrives_whole_and_its_refusal_is_handed_through() {
    let upstream = Upstream::start().await;
    upstream.accept(2);
    let (broker, auth) = auth();
    let auth = auth.body_limit(2000);
    let request = || Request::post(upstream.url("/")).body(streamed(5)).expect("a request");
    let answer = send(auth.clone(), request()).await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(answer.into_body().collect().await.expect("a body").to_bytes(), "who are you?");
    assert_eq!(upstream.sent().iter().map(|sent| sent.body.len()).collect::<Vec<_>>(), [5000]);
    // It was reported, so that the next one succeeds.
    while broker.reports("api") == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let answer = send(auth, request()).await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(broker.minted("api"), 2);
}

#[tokio::test]
async fn a_refusal_may_be_in_the_body() {
    let upstream = Upstream::start().await;
    upstream.accept(2);
    let (broker, auth) = auth();
    let auth = auth.header(http::HeaderName::from_static("x-session")).scheme("").refused_by_body(100, |_, _, body| {
        let expired = body.windows(15).any(|part| part == b"SESSION_EXPIRED");
        expired.then(|| Refusal::status(401).error("SESSION_EXPIRED"))
    });
    let request = Request::put(upstream.url("/session")).body(whole(b"hello")).expect("a request");
    let answer = send(auth.clone(), request).await.expect("an answer");
    assert_eq!(answer.into_body().collect().await.expect("a body").to_bytes(), "hello");
    let sent = upstream.sent();
    assert_eq!((sent.len(), broker.reports("api")), (2, 1));
    assert_eq!(sent[1].headers["x-session"], "token-2-of-api");
    assert!(!sent[1].headers.contains_key("authorization"));
    // It may have acted before it answered 200.
    for (auth, sendings) in [(auth.clone(), 1), (auth.replay_any_method(true), 2)] {
        upstream.accept(broker.minted("api") + 1);
        let request = Request::post(upstream.url("/session")).body(whole(b"hello")).expect("a request");
        send(auth, request).await.expect("an answer");
        assert_eq!(upstream.sent().len(), sendings);
        while broker.minted("api") < 2 + u64::try_from(sendings).expect("one or two") {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test]
async fn an_upstream_that_refuses_fresh_tokens_is_asked_twice_and_no_more() {
    let upstream = Upstream::start().await;
    upstream.accept(1000);
    let (broker, auth) = auth();
    let request = Request::get(upstream.url("/")).body(whole(b"")).expect("a request");
    let answer = send(auth, request).await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    assert_eq!((upstream.sent().len(), broker.minted("api"), broker.reports("api")), (2, 2, 1));
}

#[tokio::test]
async fn what_the_upstream_answers_is_no_error() {
    let upstream = Upstream::start().await;
    for status in [400, 403, 404, 409, 429, 500, 503] {
        let (broker, auth) = auth();
        let request = Request::get(upstream.url(&format!("/status?{status}"))).body(whole(b"")).expect("a request");
        let answer = send(auth, request).await.expect("an answer");
        assert_eq!(answer.status().as_u16(), status);
        assert_eq!(broker.reports("api"), 0, "{status}");
    }
}

#[tokio::test]
async fn without_a_token_nothing_is_sent() {
    let upstream = Upstream::start().await;
    let (broker, auth) = auth();
    broker.fail("api", "NEEDS_REAUTH");
    let request = Request::get(upstream.url("/")).body(whole(b"")).expect("a request");
    let error = send(auth, request).await.expect_err("there is no token");
    let error = error.downcast_ref::<tokencache_client::Error>().expect("the client's error");
    assert_eq!(error.reason(), Some("NEEDS_REAUTH"));
    assert!(upstream.sent().is_empty());
}
