//! Every method of every service, found in the descriptors: none is forgotten.

use http::uri::PathAndQuery;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tokencache_proto::FILE_DESCRIPTOR_SET;
use tonic::{Code, Request, Status, client::Grpc, transport::Channel};
use tonic_prost::ProstCodec;

use crate::broker::{Broker, Over, Stage, connect, reason};

/// Each method: its path, and whether its answer is a stream.
fn methods() -> Vec<(String, bool)> {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("descriptors");
    let mut methods = Vec::new();
    for file in &set.file {
        for service in &file.service {
            for method in &service.method {
                let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                methods.push((path, method.server_streaming()));
            }
        }
    }
    methods
}

/// Calls a method with an empty request.
async fn call(channel: Channel, path: &str, streams: bool, bearer: Option<&str>) -> Result<(), Status> {
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.expect("a connection");
    let (path, codec) = (path.parse::<PathAndQuery>().expect("a path"), ProstCodec::<(), ()>::default());
    let mut request = Request::new(());
    if let Some(token) = bearer {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().expect("a header"));
    }
    if streams {
        let mut answers = grpc.server_streaming(request, path, codec).await?.into_inner();
        return answers.message().await.map(drop);
    }
    grpc.unary(request, path, codec).await.map(drop)
}

fn address(broker: &Broker, path: &str) -> std::net::SocketAddr {
    if path.starts_with("/tokencache.v1.TokenService/") { broker.client } else { broker.admin }
}

#[tokio::test]
async fn every_method_refuses_a_caller_without_an_identity_or_with_a_bad_one() {
    let stage = Stage::new(Over::Memory).await;
    let access = "[authn]\napi_keys = true\n[grants.all]\nsubjects = [\"key:**\"]\ncredentials = [\"**\"]\n\
                  actions = [\"get\", \"watch\", \"invalidate\", \"inspect\", \"operate\", \"audit\"]\n";
    let broker = stage.start_guarded("reflection = true\n", &format!("{access}{}", stage.credential("ci", ""))).await;
    let mut all = methods();
    let ours = all.len();
    assert!(ours >= 9, "{all:?}");
    for version in ["v1", "v1alpha"] {
        all.push((format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"), true));
    }
    let unknown = format!("tck_0123456789abcdef_{}", "A".repeat(43));
    for (path, streams) in &all {
        let channel = connect(address(&broker, path)).await;
        let nobody = call(channel.clone(), path, *streams, None).await.expect_err(path);
        assert_eq!((nobody.code(), reason(&nobody).as_str()), (Code::Unauthenticated, "NO_IDENTITY"), "{path}");
        for bad in [unknown.as_str(), "x", "eyJhbGciOiJub25lIn0.e30."] {
            let refused = call(channel.clone(), path, *streams, Some(bad)).await.expect_err(path);
            assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unauthenticated, "BAD_IDENTITY"), "{path}");
        }
    }
    // Health is for everybody, and says nothing of anybody.
    assert_eq!(broker.health().await, 1);
    broker.stop().await;
}

#[tokio::test]
async fn every_method_refuses_a_caller_without_a_grant() {
    let stage = Stage::new(Over::Memory).await;
    // Anonymous callers are let in, and a grant that is not theirs is the only one.
    let access = "[grants.other]\nsubjects = [\"key:x\"]\ncredentials = [\"**\"]\nactions = [\"get\"]\n";
    let tables = format!("{access}{}", stage.credential("ci", ""));
    let broker = stage.start_guarded("insecure_allow_any_caller = true\n", &tables).await;
    let (mut tokens, mut admin) = (broker.tokens().await, broker.admin().await);
    let (selector, name) = (TokenSelector { credential: "ci".into(), ..Default::default() }, "ci".to_owned());
    use tokencache_proto::v1::*;
    let get = GetTokenRequest { credential: name.clone(), ..Default::default() };
    let watch = WatchTokensRequest { selectors: vec![selector.clone()] };
    let invalidate = InvalidateTokenRequest {
        credential: name.clone(),
        rejected: Some(invalidate_token_request::Rejected::Generation(1)),
        ..Default::default()
    };
    let refresh = RefreshTokenRequest { credential: name.clone(), ..Default::default() };
    let refused = [
        tokens.get_token(get).await.map(drop),
        tokens.watch_tokens(watch).await.map(drop),
        tokens.invalidate_token(invalidate).await.map(drop),
        admin.describe_credential(DescribeCredentialRequest { name }).await.map(drop),
        admin.refresh_token(refresh).await.map(drop),
        admin.list_replicas(ListReplicasRequest {}).await.map(drop),
        admin.get_server_info(GetServerInfoRequest {}).await.map(drop),
    ];
    for refused in refused {
        let refused = refused.expect_err("there is no grant");
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "NOT_ALLOWED"));
    }
    // These show what the caller may see, which is nothing.
    let listed = admin.list_credentials(ListCredentialsRequest::default()).await.expect("an empty list").into_inner();
    assert_eq!(listed.credentials, []);
    let target = Some(invalidate_credentials_request::Target::Pattern("*".into()));
    let invalidated = admin.invalidate_credentials(InvalidateCredentialsRequest { target, dry_run: false }).await;
    assert_eq!(invalidated.expect("an empty list").into_inner().credentials, Vec::<String>::new());
    assert_eq!(stage.upstream.calls(), 0, "nobody was allowed anything");
    broker.stop().await;
}
