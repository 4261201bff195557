//! The audit log over the wire: every rpc leaves an event, and operators can read it.

use prost::Message as _;
use tokencache_client::{AuditFilter, GetToken, Rejection};
use tokencache_proto::FILE_DESCRIPTOR_SET;
use tonic::{Request, client::Grpc, codegen::http::uri::PathAndQuery};
use tonic_prost::ProstCodec;

use crate::broker::{Over, Stage, connect, eventually};

/// Every method of the services that this broker serves, as `package.Service/Method`.
fn methods() -> Vec<(String, String)> {
    let files = prost_types::FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("valid descriptors").file;
    let mut methods = vec![];
    for file in files {
        for service in &file.service {
            let served = matches!(service.name(), "TokenService" | "AdminService");
            assert!(served || service.name() == "ProviderService", "{} is not looked at", service.name());
            let path = |method: &str| format!("/{}.{}/{method}", file.package(), service.name());
            let all = service.method.iter().filter(|_| served);
            methods.extend(all.map(|method| (method.name().to_owned(), path(method.name()))));
        }
    }
    assert!(methods.len() >= 11, "{methods:?}");
    methods
}

#[tokio::test]
async fn every_rpc_of_every_service_leaves_an_event() {
    let stage = Stage::new(Over::Memory).await;
    let broker = stage.start_dev(&stage.credential("ci", "")).await;
    let operator = broker.operator();
    for (name, path) in methods() {
        let before = operator.list_audit_events(AuditFilter::default(), 1000, "").await.expect("a page").events.len();
        let mut client = Grpc::new(connect(broker.client).await);
        client.ready().await.expect("it is connected");
        // An empty message is one of every type. A unary call is a stream with one answer.
        let path: PathAndQuery = path.parse().expect("a path");
        let _ = client.server_streaming(Request::new(()), path, ProstCodec::<(), ()>::default()).await;
        eventually(&format!("{name} leaves an event"), async || {
            let page = operator.list_audit_events(AuditFilter::default(), 1000, "").await.expect("a page");
            page.events[before..].iter().any(|event| {
                let about = matches!(event.kind.as_str(), "admin_call" | "call_refused");
                about && event.rpc == name && event.peer.starts_with("127.0.0.1:")
            })
        })
        .await;
    }
    broker.stop().await;
}

/// What a client and an operator do leaves these events, wherever they are kept.
async fn what_is_done_can_be_read(over: Over, sinks: &str) {
    let stage = Stage::new(over).await.with_sinks(sinks);
    let broker = stage.start(&stage.credential("ci", "")).await;
    let (client, operator) = (broker.library(), broker.operator());
    let token = client.get_token(GetToken::of("ci")).await.expect("an answer").token.expect("a token");
    client.get_token(GetToken::of("ci")).await.expect("a hit");
    client.get_token(GetToken::of("ci").if_generation_not(token.generation)).await.expect("not modified");
    client.invalidate(Rejection::of_generation("ci", token.generation).http_status(401)).await.expect("a report");
    client.get_token(GetToken::of("unknown")).await.expect_err("there is none");
    let mut watch = client.watch(["ci"]).await.expect("a watch");
    watch.next().await.expect("an event").expect("a token");
    operator.describe_credential("ci").await.expect("an answer");

    let mut filter = AuditFilter::default();
    filter.credential = Some("ci".into());
    let mut kinds = vec![];
    let mut page_token = String::new();
    loop {
        let page = operator.list_audit_events(filter.clone(), 3, &page_token).await.expect("a page");
        assert!(page.events.len() <= 3);
        assert_eq!(page.fleet, sinks.contains("store"));
        kinds.extend(page.events.into_iter().map(|event| (event.kind, event.reason, event.outcome)));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let told = |kind: &str, reason: &str| {
        kinds.iter().filter(|told| (told.0.as_str(), told.1.as_str()) == (kind, reason)).count()
    };
    assert_eq!(told("token_issued", "miss"), 1, "{kinds:?}");
    assert_eq!(told("token_issued", "hit"), 1, "{kinds:?}");
    assert_eq!(told("not_modified", "hit"), 1, "{kinds:?}");
    assert_eq!(told("rejection", "invalidated"), 1, "{kinds:?}");
    assert!(told("refresh", "miss") >= 1, "{kinds:?}");
    assert_eq!((told("watch_opened", ""), told("token_pushed", "")), (1, 1), "{kinds:?}");
    assert_eq!(told("admin_call", ""), 1, "{kinds:?}");
    filter.credential = Some("unknown".into());
    let refused = operator.list_audit_events(filter, 0, "").await.expect("a page").events;
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!((refused[0].kind.as_str(), refused[0].outcome.as_str()), ("call_refused", "NO_SUCH_CREDENTIAL"));
    drop(watch);
    broker.stop().await;
}

#[tokio::test]
async fn what_is_done_can_be_read_from_memory() {
    what_is_done_can_be_read(Over::Memory, "[\"memory\"]").await;
}

#[tokio::test]
async fn what_is_done_can_be_read_from_sqlite() {
    what_is_done_can_be_read(Over::Sqlite, "[\"store\"]").await;
}

#[tokio::test]
async fn what_is_done_can_be_read_from_postgres() {
    what_is_done_can_be_read(Over::Postgres, "[{ file = \"audit.jsonl\" }, \"store\"]").await;
}

#[tokio::test]
async fn an_operator_follows_what_all_replicas_record() {
    let stage = Stage::new(Over::Postgres).await.with_sinks("[\"store\"]");
    let credentials = stage.credential("ci", "");
    let one = stage.start(&credentials).await;
    let other = stage.start_replica("it-2", &credentials).await;
    let mut filter = AuditFilter::default();
    filter.kind = Some("token_issued".into());
    let mut events = one.operator().tail_audit_events(filter).await.expect("a stream");
    for broker in [&one, &other] {
        broker.library().get_token(GetToken::of("ci")).await.expect("a token");
    }
    let mut replicas = vec![];
    while replicas.len() < 2 {
        replicas.push(events.next().await.expect("it goes on").expect("an event").replica);
    }
    replicas.sort();
    assert_eq!(replicas, ["it-1", "it-2"]);
    drop(events);
    one.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn whoever_follows_does_not_keep_the_broker_from_ending() {
    let stage = Stage::new(Over::Memory).await;
    let broker = stage.start(&stage.credential("ci", "")).await;
    let mut events = broker.operator().tail_audit_events(AuditFilter::default()).await.expect("a stream");
    broker.library().get_token(GetToken::of("ci")).await.expect("a token");
    events.next().await.expect("it goes on").expect("an event");
    broker.drain();
    while events.next().await.is_some_and(|event| event.is_ok()) {}
    broker.stop().await;
}
