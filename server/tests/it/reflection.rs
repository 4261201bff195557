//! Reflection, for clients that have no `.proto` file: both versions, on the admin listener; in dev mode on the only one.

use std::net::SocketAddr;

use tonic::{Code, Status};
use tonic_reflection::pb;

use crate::broker::{Over, Stage, connect};

/// Asks the reflection service of a version for the names of all services.
macro_rules! services {
    ($version:ident, $address:expr) => {{
        use pb::$version::{
            ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
            server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
        };
        let request = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let mut client = ServerReflectionClient::new(connect($address).await);
        let mut answers = client.server_reflection_info(tokio_stream::once(request)).await?.into_inner();
        let answer = answers.message().await?.expect("an answer").message_response;
        let Some(MessageResponse::ListServicesResponse(list)) = answer else { panic!("no list: {answer:?}") };
        list.service.into_iter().map(|service| service.name).collect::<Vec<_>>()
    }};
}

async fn listed(address: SocketAddr) -> Result<[Vec<String>; 2], Status> {
    Ok([services!(v1, address), services!(v1alpha, address)])
}

#[tokio::test]
async fn both_versions_list_the_services_on_the_admin_listener_and_on_no_other() {
    let stage = Stage::new(Over::Memory).await;
    let broker = stage.start(&stage.credential("ci", "")).await;
    for services in listed(broker.admin).await.expect("reflection is served") {
        for service in ["tokencache.v1.AdminService", "tokencache.v1.TokenService", "grpc.health.v1.Health"] {
            assert!(services.iter().any(|listed| listed == service), "{service} is not in {services:?}");
        }
    }
    let refused = listed(broker.client).await.expect_err("the client listener does not tell");
    assert_eq!(refused.code(), Code::Unimplemented, "{refused:?}");
    broker.stop().await;
}

#[tokio::test]
async fn in_dev_mode_one_port_serves_all() {
    let stage = Stage::new(Over::Memory).await;
    let broker = stage.start_dev(&stage.credential("ci", "")).await;
    assert_eq!(broker.admin, broker.client);
    let [services, _] = listed(broker.client).await.expect("reflection is served");
    assert!(services.iter().any(|listed| listed == "tokencache.v1.TokenService"), "{services:?}");
    assert!(broker.operator().server_info().await.expect("the admin API").dev);
    broker.library().get_token(tokencache_client::GetToken::of("ci")).await.expect("the client API");
    broker.stop().await;
}
