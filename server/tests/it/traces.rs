//! Traces, as a collector gets them: a real broker, and a server of OTLP that keeps what it is sent.

mod collector;

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;
use tempfile::TempDir;
use tokencache_client::GetToken;
use tokencache_proto::v1::{
    GetTokenRequest, GetTokenResponse, RefreshTokenRequest, token_service_client::TokenServiceClient,
};
use tokencache_testkit::http::{Reply, ScriptedServer};
use tonic::{Request, Status};

use self::collector::{Collector, Seen};
use crate::{
    broker::{Broker, Over, Stage, eventually},
    process::{Daemon, FREE_PORTS},
    upstream::Fault,
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// A broker that sends its spans to `endpoint`.
async fn start(stage: &Stage, endpoint: &str, ratio: &str) -> Broker {
    let telemetry = format!("[telemetry]\notlp_endpoint = {endpoint:?}\nsample_ratio = {ratio}\n");
    let tables = telemetry + &stage.credential("ci", "");
    stage.start_guarded("insecure_allow_any_caller = true\n", &tables).await
}

fn with_parent<T>(message: T, flags: &str) -> Request<T> {
    let mut request = Request::new(message);
    let header = format!("00-{TRACE}-{CALLER}-{flags}").parse().expect("a header");
    request.metadata_mut().insert("traceparent", header);
    request
}

async fn get(broker: &Broker, flags: &str) -> Result<GetTokenResponse, Status> {
    let request = with_parent(GetTokenRequest { credential: "ci".into(), ..Default::default() }, flags);
    broker.tokens().await.get_token(request).await.map(tonic::Response::into_inner)
}

/// Waits for as many spans, by their names; of several of a name the last one.
async fn spans(collector: &Collector, count: usize) -> BTreeMap<String, Seen> {
    eventually("the spans arrive", async || collector.spans().len() >= count).await;
    collector.spans().into_iter().map(|span| (span.name.clone(), span)).collect()
}

#[tokio::test]
async fn a_call_is_followed_from_its_caller_through_the_flight_to_the_upstream_and_the_store() {
    let (stage, collector) = (Stage::new(Over::Sqlite).await, Collector::start().await);
    let broker = start(&stage, collector.url(), "0.0").await;
    get(&broker, "01").await.expect("a token");
    broker.stop().await;

    let seen = spans(&collector, 5).await;
    let rpc = &seen["tokencache.v1.TokenService/GetToken"];
    assert!(seen.values().all(|span| span.trace_id == TRACE), "{seen:?}");
    assert_eq!((rpc.parent_id.as_str(), rpc.kind.as_str()), (CALLER, "server"));
    assert_eq!(rpc.attributes["rpc.system"], "grpc");
    assert_eq!(rpc.attributes["rpc.grpc.status_code"], "0");
    let flight = &seen["flight"];
    assert_eq!((flight.parent_id.as_str(), flight.kind.as_str()), (rpc.id.as_str(), "internal"));
    assert_eq!(flight.attributes["tokencache.credential"], "ci");
    assert_eq!(flight.attributes["tokencache.why"], "miss");
    assert_eq!(flight.attributes["tokencache.generation"], "1");
    let upstream = &seen["POST"];
    assert_eq!((upstream.parent_id.as_str(), upstream.kind.as_str()), (flight.id.as_str(), "client"));
    assert_eq!(upstream.attributes["server.address"], "127.0.0.1");
    assert_eq!(upstream.attributes["http.response.status_code"], "200");
    let commit = &seen["store commit"];
    assert_eq!((commit.parent_id.as_str(), commit.kind.as_str()), (flight.id.as_str(), "client"));
    assert_eq!(commit.attributes["db.system.name"], "sqlite");
    assert_eq!(stage.upstream.traceparents(), [Some(format!("00-{TRACE}-{}-01", upstream.id))]);
    assert_eq!(commit.resource["service.name"], "tokencached");
    assert_eq!(commit.resource["service.instance.id"], crate::broker::REPLICA);
}

#[tokio::test]
async fn a_request_that_is_sent_once_more_says_so() {
    let body = r#"{"access_token":"a","token_type":"Bearer","expires_in":3600}"#;
    // The second request meets the end of the connection.
    let replies =
        vec![Reply::json(200, body).then(Reply::Bytes(vec![])), Reply::json(200, &body.replace("\"a\"", "\"b\""))];
    let upstream = ScriptedServer::start(replies).await.expect("a port");
    let (stage, collector) = (Stage::new(Over::Memory).await, Collector::start().await);
    let telemetry = format!("[telemetry]\notlp_endpoint = {:?}\nsample_ratio = 0.0\n", collector.url());
    let tables = telemetry + &stage.credential("ci", "").replace(stage.upstream.url(), upstream.url());
    let broker = stage.start_guarded("insecure_allow_any_caller = true\n", &tables).await;
    get(&broker, "01").await.expect("a token");
    let refresh = RefreshTokenRequest { credential: "ci".into(), ..Default::default() };
    broker.admin().await.refresh_token(with_parent(refresh, "01")).await.expect("another token");
    broker.stop().await;

    spans(&collector, 6).await;
    let resends: Vec<_> = collector.spans().iter().filter(|span| span.name == "POST").map(resends).collect();
    assert_eq!((resends, upstream.requests().len()), (vec![None, Some("1".to_owned())], 3));
}

fn resends(span: &Seen) -> Option<String> {
    span.attributes.get("http.request.resend_count").cloned()
}

#[tokio::test]
async fn who_is_recorded_is_decided_by_the_caller_or_by_chance() {
    let (stage, collector) = (Stage::new(Over::Memory).await, Collector::start().await);
    let broker = start(&stage, collector.url(), "0.0").await;
    get(&broker, "00").await.expect("a token");
    broker.library().get_token(GetToken::of("ci")).await.expect("a hit");
    get(&broker, "01").await.expect("another hit");
    broker.stop().await;
    let seen = spans(&collector, 1).await;
    assert_eq!(seen.keys().collect::<Vec<_>>(), ["tokencache.v1.TokenService/GetToken"], "of one call alone");
    assert_eq!(stage.upstream.traceparents(), [None], "nobody recorded that");

    let (stage, collector) = (Stage::new(Over::Memory).await, Collector::start().await);
    let broker = start(&stage, collector.url(), "1.0").await;
    broker.library().get_token(GetToken::of("ci")).await.expect("a token");
    get(&broker, "00").await.expect("a hit that its caller does not record");
    broker.stop().await;
    let seen = spans(&collector, 4).await;
    let rpc = &seen["tokencache.v1.TokenService/GetToken"];
    assert_eq!(rpc.parent_id, "", "a trace begins");
    assert_ne!(rpc.trace_id, TRACE);
    assert_eq!(seen["flight"].trace_id, rpc.trace_id);
    let calls = collector.spans().into_iter().filter(|span| span.name.ends_with("/GetToken")).count();
    assert_eq!(calls, 1);
}

#[tokio::test]
async fn the_client_library_says_which_trace_its_calls_belong_to() {
    let (stage, collector) = (Stage::new(Over::Memory).await, Collector::start().await);
    let broker = start(&stage, collector.url(), "0.0").await;
    let builder = tokencache_client::Client::builder().endpoint(format!("http://{}", broker.client));
    let client = builder.traces(|| Some(format!("00-{TRACE}-{CALLER}-01"))).build().expect("a client");
    client.get_token(GetToken::of("ci")).await.expect("a token");
    broker.stop().await;
    let rpc = &spans(&collector, 3).await["tokencache.v1.TokenService/GetToken"];
    assert_eq!((rpc.trace_id.as_str(), rpc.parent_id.as_str()), (TRACE, CALLER));
}

#[tokio::test]
async fn what_fails_says_so_with_its_reason_and_without_a_secret() {
    let (stage, collector) = (Stage::new(Over::Sqlite).await, Collector::start().await);
    let broker = start(&stage, collector.url(), "1.0").await;
    get(&broker, "01").await.expect("a token");
    stage.upstream.always(Some(Fault::refusal("invalid_scope")));
    let refresh = RefreshTokenRequest { credential: "ci".into(), ..Default::default() };
    broker.admin().await.refresh_token(with_parent(refresh, "01")).await.expect_err("the upstream refuses");
    let metric = async || broker.metric("tokencache_spans_total{outcome=\"sent\"}").await;
    eventually("they are counted", async || metric().await > 0).await;
    let secrets = stage.upstream.secrets();
    broker.stop().await;

    let seen = spans(&collector, 10).await;
    let rpc = &seen["tokencache.v1.AdminService/RefreshToken"];
    assert_eq!((rpc.failed, rpc.attributes["error.type"].as_str()), (true, "FAILED_PRECONDITION"));
    let flight = &seen["flight"];
    assert_eq!((flight.failed, flight.attributes["error.type"].as_str()), (true, "MISCONFIGURED"));
    assert_eq!(flight.attributes["tokencache.why"], "operator");
    let upstream = &seen["POST"];
    assert_eq!((upstream.failed, upstream.attributes["http.response.status_code"].as_str()), (true, "400"));
    let shown = format!("{:?}", collector.spans());
    assert!(!secrets.is_empty());
    for secret in secrets.iter().map(String::as_str).chain(["c4n4ry"]) {
        assert!(!shown.contains(secret), "{secret} is in a span");
    }
}

#[tokio::test]
async fn a_refresh_in_the_background_is_a_trace_of_its_own() {
    let (stage, collector) = (Stage::new(Over::Memory).await, Collector::start().await);
    stage.upstream.issue_for(Duration::from_secs(600));
    let broker = start(&stage, collector.url(), "1.0").await;
    get(&broker, "01").await.expect("a token");
    stage.clock.advance(Duration::from_secs(450));
    get(&broker, "00").await.expect("a hit that begins a refresh");
    eventually("it is replaced", async || stage.upstream.calls() == 2).await;
    broker.stop().await;
    eventually("both flights arrive", async || {
        collector.spans().iter().filter(|span| span.name == "flight").count() == 2
    })
    .await;
    let flights: Vec<_> = collector.spans().into_iter().filter(|span| span.name == "flight").collect();
    let ahead = flights.iter().find(|span| span.attributes["tokencache.why"] == "ahead").expect("it is among them");
    assert_eq!(ahead.parent_id, "");
    assert_ne!(ahead.trace_id, TRACE);
}

#[tokio::test]
async fn log_lines_of_a_recorded_call_name_its_trace() {
    let (directory, collector) = (TempDir::new().expect("a directory"), Collector::start().await);
    let telemetry = format!("[telemetry]\notlp_endpoint = {:?}\nsample_ratio = 0.0\n", collector.url());
    let credential = "[credentials.ci]\nprovider = \"fixed\"\ntoken = { env = \"PATH\" }\n";
    let mut daemon = Daemon::serve(directory.path(), &format!("{FREE_PORTS}{telemetry}{credential}")).await;
    let mut tokens =
        TokenServiceClient::connect(format!("http://{}", daemon.client_address())).await.expect("it serves");
    let request = GetTokenRequest { credential: "ci".into(), ..Default::default() };
    tokens.get_token(with_parent(request, "01")).await.expect("a token");
    daemon.until_logged("token minted").await;
    let log = daemon.stop().await.stderr;
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let minted: Vec<_> = lines.filter(|line| line["message"] == "token minted").collect();
    assert_eq!(minted.len(), 1, "{log}");
    assert_eq!(minted[0]["span"]["trace_id"], TRACE, "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_down_or_hangs_holds_nothing_up() {
    let hung = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let hung_url = format!("http://{}", hung.local_addr().expect("it is bound"));
    // Nobody listens where somebody has just ceased to.
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let gone_url = format!("http://{}", gone.local_addr().expect("it is bound"));
    drop(gone);
    for endpoint in [hung_url, gone_url] {
        let stage = Stage::new(Over::Memory).await;
        let broker = start(&stage, &endpoint, "1.0").await;
        // More than there is room for.
        let mut tokens = broker.tokens().await;
        for _ in 0..10_000 {
            let request = with_parent(GetTokenRequest { credential: "ci".into(), ..Default::default() }, "01");
            tokens.get_token(request).await.expect("a token");
        }
        let failed = async || broker.metric("tokencache_spans_total{outcome=\"failed\"}").await;
        eventually("what was lost is counted", async || failed().await > 0).await;
        assert_eq!(broker.metric("tokencache_spans_total{outcome=\"sent\"}").await, 0);
        broker.stop().await;
    }
}
