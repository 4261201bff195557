//! A broker whose answer depends on the name of the credential.

use std::{future::pending, path::Path, time::Duration, vec};

use tokencache_proto::v1::{
    self,
    admin_service_server::{AdminService, AdminServiceServer},
    token_service_server::{TokenService, TokenServiceServer},
};
use tokio::net::{TcpListener, UnixListener};
use tokio_rustls::TlsAcceptor;
use tokio_stream::{
    Iter,
    wrappers::{TcpListenerStream, UnboundedReceiverStream, UnixListenerStream},
};
use tonic::{Code, Request, Response, Status, transport::Server};
use tonic_types::{ErrorDetails, StatusExt as _, pb};

pub(crate) const SECRET: &str = "s3cr3t-t0ken";

/// The broker's only behaviour.
#[derive(Debug)]
pub(crate) struct FakeBroker;

/// Serves on a free port until the test ends.
pub(crate) async fn serve_tcp() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(router().serve_with_incoming(TcpListenerStream::new(listener)));
    format!("http://{address}")
}

/// One that is about to go away.
pub(crate) async fn serve_draining() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = TokenServiceServer::with_interceptor(FakeBroker, |_| {
        let mut details = ErrorDetails::with_error_info("DRAINING", "tokencache", [("k".to_owned(), "v".to_owned())]);
        details.set_retry_info(Some(Duration::from_secs(60)));
        Err(Status::with_error_details(Code::Unavailable, "this replica is going away", details))
    });
    tokio::spawn(Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener)));
    format!("http://{address}")
}

/// Serves over TLS at `localhost`.
pub(crate) async fn serve_tls(acceptor: TlsAcceptor) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (accepted, incoming) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // A client that does not trust us goes away.
            if let Ok(stream) = acceptor.accept(stream).await {
                accepted.send(Ok::<_, std::io::Error>(stream)).unwrap();
            }
        }
    });
    tokio::spawn(router().serve_with_incoming(UnboundedReceiverStream::new(incoming)));
    format!("https://localhost:{}", address.port())
}

/// Serves on a socket until the test ends.
pub(crate) fn serve_unix(path: &Path) -> String {
    let listener = UnixListener::bind(path).unwrap();
    tokio::spawn(router().serve_with_incoming(UnixListenerStream::new(listener)));
    format!("unix:{}", path.display())
}

fn router() -> tonic::transport::server::Router {
    Server::builder().add_service(TokenServiceServer::new(FakeBroker)).add_service(AdminServiceServer::new(FakeBroker))
}

fn token(generation: u64) -> v1::Token {
    v1::Token {
        access_token: SECRET.into(),
        token_type: "Bearer".into(),
        expires_at: Some(prost_types::Timestamp { seconds: 100, nanos: 0 }),
        generation,
        fingerprint: "0123456789abcdef".into(),
        ..v1::Token::default()
    }
}

fn down() -> Status {
    let mut details =
        ErrorDetails::with_error_info("UPSTREAM_DOWN", "tokencache", [("host".to_owned(), "x".to_owned())]);
    details.set_retry_info(Some(Duration::from_secs(7)));
    Status::with_error_details(Code::Unavailable, "idp.example refuses connections", details)
}

fn down_event() -> pb::Status {
    let status = down();
    prost::Message::decode(status.details()).expect("the details are a google.rpc.Status")
}

#[tonic::async_trait]
impl TokenService for FakeBroker {
    async fn get_token(&self, request: Request<v1::GetTokenRequest>) -> Result<Response<v1::GetTokenResponse>, Status> {
        let timeout = request.metadata().get("grpc-timeout").map(|value| value.to_str().unwrap().to_owned());
        let request = request.into_inner();
        let mut token = token(request.rejected_generation + 1);
        match request.credential.as_str() {
            "demo" => {}
            "asked" => {
                let asked = format!("{request:?}");
                token.attributes = [("asked".to_owned(), asked), ("timeout".to_owned(), timeout.unwrap())].into();
            }
            "hangs" => pending().await,
            _ => return Err(down()),
        }
        let not_modified = request.if_generation_not == token.generation;
        Ok(Response::new(v1::GetTokenResponse {
            token: (!not_modified).then_some(token),
            not_modified,
            freshness: v1::Freshness::Verified.into(),
            server_time: Some(prost_types::Timestamp { seconds: 40, nanos: 0 }),
        }))
    }

    type WatchTokensStream = Iter<vec::IntoIter<Result<v1::WatchTokensResponse, Status>>>;

    async fn watch_tokens(
        &self,
        request: Request<v1::WatchTokensRequest>,
    ) -> Result<Response<Self::WatchTokensStream>, Status> {
        use v1::watch_tokens_response::Event;
        let selector = request.into_inner().selectors.pop();
        let event = |event| Ok(v1::WatchTokensResponse { selector: selector.clone(), event: Some(event) });
        let events = vec![
            event(Event::Token(token(1))),
            event(Event::Invalidated(v1::TokenInvalidated { min_generation: 2 })),
            event(Event::Unavailable(down_event())),
            Err(Status::unavailable("draining")),
        ];
        Ok(Response::new(tokio_stream::iter(events)))
    }

    async fn invalidate_token(
        &self,
        request: Request<v1::InvalidateTokenRequest>,
    ) -> Result<Response<v1::InvalidateTokenResponse>, Status> {
        use v1::invalidate_token_request::Rejected;
        let request = request.into_inner();
        let expected = (401, "invalid_token");
        let invalidated = match request.rejected {
            Some(Rejected::Generation(generation)) => generation == 3,
            Some(Rejected::Fingerprint(fingerprint)) => fingerprint == "0123456789abcdef",
            None => false,
        };
        let invalidated = invalidated && (request.http_status, request.error.as_str()) == expected;
        Ok(Response::new(v1::InvalidateTokenResponse { invalidated, min_generation: 4 }))
    }
}

#[tonic::async_trait]
impl AdminService for FakeBroker {
    async fn list_credentials(
        &self,
        request: Request<v1::ListCredentialsRequest>,
    ) -> Result<Response<v1::ListCredentialsResponse>, Status> {
        let first = request.into_inner().page_token.is_empty();
        let name = if first { "demo" } else { "later" };
        let summary = v1::CredentialSummary { name: name.into(), state: 2, token_count: 1, ..Default::default() };
        let next_page_token = if first { "more" } else { "" };
        Ok(Response::new(v1::ListCredentialsResponse {
            credentials: vec![summary],
            next_page_token: next_page_token.into(),
        }))
    }

    async fn describe_credential(
        &self,
        request: Request<v1::DescribeCredentialRequest>,
    ) -> Result<Response<v1::DescribeCredentialResponse>, Status> {
        let name = request.into_inner().name;
        let failed = v1::Attempt { status: Some(down_event()), ..Default::default() };
        let succeeded = v1::Attempt { status: Some(pb::Status::default()), ..Default::default() };
        let bare = pb::Status { code: Code::Unavailable.into(), message: "down".into(), details: vec![] };
        let bare = v1::Attempt { status: Some(bare), reason: "UPSTREAM_DOWN".into(), ..Default::default() };
        let token = v1::TokenStatus { attempts: vec![failed, succeeded, bare], state: 99, ..Default::default() };
        Ok(Response::new(v1::DescribeCredentialResponse {
            credential: Some(v1::CredentialSummary { name, ..Default::default() }),
            tokens: vec![token],
            grant: None,
            explanation: "all is well".into(),
            endpoint: Some(v1::EndpointStatus {
                endpoint: "https://idp.example".into(),
                state: v1::EndpointState::HalfOpen.into(),
                calls: 1,
                ..Default::default()
            }),
        }))
    }

    async fn refresh_token(
        &self,
        request: Request<v1::RefreshTokenRequest>,
    ) -> Result<Response<v1::RefreshTokenResponse>, Status> {
        let v1::RefreshTokenRequest { credential, scopes, audience, resources } = request.into_inner();
        let selector = Some(v1::TokenSelector { credential, scopes, audience, resources });
        let token = Some(v1::TokenStatus { selector, generation: 9, ..Default::default() });
        Ok(Response::new(v1::RefreshTokenResponse { token }))
    }

    async fn invalidate_credentials(
        &self,
        request: Request<v1::InvalidateCredentialsRequest>,
    ) -> Result<Response<v1::InvalidateCredentialsResponse>, Status> {
        let request = request.into_inner();
        let credentials = vec![format!("{:?} dry_run={}", request.target, request.dry_run)];
        Ok(Response::new(v1::InvalidateCredentialsResponse { credentials, token_count: 2 }))
    }

    async fn list_replicas(
        &self,
        _: Request<v1::ListReplicasRequest>,
    ) -> Result<Response<v1::ListReplicasResponse>, Status> {
        Err(Status::unimplemented("the fake is no fleet"))
    }

    async fn rotate_encryption_key(
        &self,
        _: Request<v1::RotateEncryptionKeyRequest>,
    ) -> Result<Response<v1::RotateEncryptionKeyResponse>, Status> {
        Err(Status::unimplemented("the fake seals nothing"))
    }

    async fn get_server_info(
        &self,
        _: Request<v1::GetServerInfoRequest>,
    ) -> Result<Response<v1::GetServerInfoResponse>, Status> {
        let info = v1::GetServerInfoResponse { replica: "r1".into(), dev: true, ..Default::default() };
        Ok(Response::new(info))
    }

    async fn list_audit_events(
        &self,
        request: Request<v1::ListAuditEventsRequest>,
    ) -> Result<Response<v1::ListAuditEventsResponse>, Status> {
        let first = request.into_inner().page_token.is_empty();
        let events = vec![audit_event(if first { 7 } else { 8 })];
        let next_page_token = if first { "more".into() } else { String::new() };
        let source = v1::AuditSource::Store.into();
        Ok(Response::new(v1::ListAuditEventsResponse { events, next_page_token, source }))
    }

    type TailAuditEventsStream = Iter<vec::IntoIter<Result<v1::TailAuditEventsResponse, Status>>>;

    async fn tail_audit_events(
        &self,
        _: Request<v1::TailAuditEventsRequest>,
    ) -> Result<Response<Self::TailAuditEventsStream>, Status> {
        let response = |sequence| Ok(v1::TailAuditEventsResponse { event: Some(audit_event(sequence)), source: 2 });
        Ok(Response::new(tokio_stream::iter(vec![response(7), response(8)])))
    }
}

fn audit_event(sequence: u64) -> v1::AuditEvent {
    v1::AuditEvent {
        chain: "c".into(),
        sequence,
        time: Some(prost_types::Timestamp { seconds: 1_800_000_000, nanos: 0 }),
        replica: "r1".into(),
        kind: v1::AuditKind::TokenIssued.into(),
        rpc: "GetToken".into(),
        subject: "uid:1000".into(),
        peer: "unix".into(),
        selector: Some(v1::TokenSelector { credential: "demo".into(), ..Default::default() }),
        generation: 3,
        fingerprint: "0123456789abcdef".into(),
        outcome: "OK".into(),
        reason: "hit".into(),
        line: "{}".into(),
        ..Default::default()
    }
}
