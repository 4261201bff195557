//! Every answer says which replica gave it and how long it took.

use http::HeaderMap;
use tokencache_proto::v1::{GetServerInfoRequest, GetTokenRequest, TokenSelector, WatchTokensRequest};
use tonic::Code;

use crate::{
    broker::{Over, REPLICA, Stage, connect},
    upstream::Fault,
};

fn assert_signed(what: &str, headers: &HeaderMap) {
    let text = |name| headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok()).map(str::to_owned);
    assert_eq!(text("x-api-node").as_deref(), Some(REPLICA), "{what}: {headers:?}");
    let took = text("x-api-time").unwrap_or_else(|| panic!("{what}: no x-api-time in {headers:?}"));
    let seconds = took.strip_suffix('s').unwrap_or_else(|| panic!("{what}: {took}"));
    assert!(
        seconds.parse::<f64>().is_ok() && seconds.split_once('.').is_some_and(|(_, ms)| ms.len() == 3),
        "{what}: {took}"
    );
    for name in ["x-api-node", "x-api-time"] {
        assert_eq!(headers.get_all(name).iter().count(), 1, "{what}: {headers:?}");
    }
}

fn signed_status(what: &str, status: &tonic::Status, code: Code) {
    assert_eq!(status.code(), code, "{what}: {status:?}");
    assert_signed(what, &status.metadata().clone().into_headers());
}

#[tokio::test]
async fn every_grpc_answer_names_the_replica_and_the_time_it_took() {
    let stage = Stage::new(Over::Memory).await;
    let broker = stage.start(&stage.credential("ci", "")).await;
    let (mut tokens, mut admin) = (broker.tokens().await, broker.admin().await);
    let get = |name: &str| GetTokenRequest { credential: name.into(), ..Default::default() };

    stage.upstream.then(Fault::status(503));
    signed_status("an error of the upstream", &tokens.get_token(get("ci")).await.expect_err("down"), Code::Unavailable);
    stage.clock.advance(std::time::Duration::from_secs(301));
    for what in ["a miss", "a hit"] {
        let answer = tokens.get_token(get("ci")).await.expect("a token");
        assert_signed(what, &answer.metadata().clone().into_headers());
    }
    signed_status("an unknown name", &tokens.get_token(get("cx")).await.expect_err("none"), Code::NotFound);
    signed_status("a bad name", &tokens.get_token(get("")).await.expect_err("none"), Code::InvalidArgument);
    let selectors = vec![TokenSelector { credential: "ci".into(), ..Default::default() }];
    let stream = tokens.watch_tokens(WatchTokensRequest { selectors }).await.expect("a watch");
    assert_signed("a stream", &stream.metadata().clone().into_headers());
    let refused = tokens.watch_tokens(WatchTokensRequest::default()).await.expect_err("no selector");
    signed_status("a refused stream", &refused, Code::InvalidArgument);
    let info = admin.get_server_info(GetServerInfoRequest {}).await.expect("an answer");
    assert_signed("the admin API", &info.metadata().clone().into_headers());
    // The admin API is not on this listener.
    let mut elsewhere =
        tokencache_proto::v1::admin_service_client::AdminServiceClient::new(connect(broker.client).await);
    let nowhere = elsewhere.get_server_info(GetServerInfoRequest {}).await.expect_err("not here");
    signed_status("a service that is not here", &nowhere, Code::Unimplemented);
    drop(stream);
    broker.stop().await;
}

#[tokio::test]
async fn every_http_answer_does_so_too() {
    let stage = Stage::new(Over::Memory).await;
    let broker = stage.start("").await;
    for (path, status) in [("/metrics", 200), ("/healthz", 200), ("/readyz", 200), ("/nowhere", 404), ("/", 404)] {
        let answer = broker.http(path).await;
        assert_eq!(answer.status().as_u16(), status, "{path}");
        assert_signed(path, answer.headers());
    }
    broker.stop().await;
}
