//! A broker that knows one credential, `demo`; the name of any other is the reason of an error.

use std::{
    process::{Output, Stdio},
    time::{Duration, SystemTime},
    vec,
};

use jiff::Timestamp;
use tokencache_proto::v1::{
    self,
    admin_service_server::{AdminService, AdminServiceServer},
    token_service_server::{TokenService, TokenServiceServer},
};
use tokio::{net::TcpListener, process::Command};
use tokio_stream::{Iter, wrappers::TcpListenerStream};
use tonic::{Code, Request, Response, Status, transport::Server};
use tonic_types::{ErrorDetails, StatusExt as _, pb};

pub(crate) const SECRET: &str = "s3cr3t-t0ken";
pub(crate) const FINGERPRINT: &str = "0123456789abcdef";

/// Far enough from now and from the next full hour that `in 3days 12h` stays true while a test runs.
const FAR: Duration = Duration::from_secs((3 * 24 + 12) * 3600 + 1800);

/// A broker and the times that it tells.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FakeBroker {
    start: Timestamp,
}

/// Serves on a free port until the test ends.
pub(crate) async fn serve() -> (FakeBroker, String) {
    let start = Timestamp::from_second(Timestamp::now().as_second()).unwrap();
    let broker = FakeBroker { start };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let router = Server::builder()
        .add_service(TokenServiceServer::new(broker))
        .add_service(AdminServiceServer::new(broker))
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(router);
    (broker, endpoint)
}

/// Runs the program against a broker of its own.
pub(crate) async fn run(arguments: &[&str]) -> (FakeBroker, Output) {
    let (broker, endpoint) = serve().await;
    let output = command(arguments).env("TOKENCACHE_ADDR", endpoint).output().await.unwrap();
    (broker, output)
}

/// The program, blind to the environment of the tests.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tokencache"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TOKENCACHE_")) {
        command.env_remove(name);
    }
    command.env("XDG_CONFIG_HOME", "/nonexistent");
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    command
}

impl FakeBroker {
    /// When tokens were issued.
    pub(crate) fn issued_at(self) -> Timestamp {
        self.start - FAR_SIGNED
    }

    /// When tokens expire.
    pub(crate) fn expires_at(self) -> Timestamp {
        self.start + FAR_SIGNED
    }

    fn token(self) -> v1::Token {
        v1::Token {
            access_token: SECRET.into(),
            token_type: "Bearer".into(),
            expires_at: proto(self.expires_at()),
            issued_at: proto(self.issued_at()),
            scopes: vec!["read".into(), "write".into()],
            generation: 3,
            fingerprint: FINGERPRINT.into(),
            attributes: [("instance_url".to_owned(), "https://i.example".to_owned())].into(),
        }
    }

    fn status(self) -> v1::TokenStatus {
        let failed = v1::Attempt {
            time: proto(self.issued_at()),
            duration: Some(prost_types::Duration { seconds: 1, nanos: 500_000_000 }),
            replica: "r1".into(),
            status: Some(error_event()),
            reason: "UPSTREAM_DOWN".into(),
        };
        let succeeded = v1::Attempt { status: Some(pb::Status::default()), reason: String::new(), ..failed.clone() };
        v1::TokenStatus {
            selector: Some(v1::TokenSelector {
                credential: "demo".into(),
                scopes: vec!["read".into(), "write".into()],
                ..Default::default()
            }),
            state: v1::CredentialState::RefreshFailing.into(),
            generation: 3,
            min_generation: 2,
            fingerprint: FINGERPRINT.into(),
            issued_at: proto(self.issued_at()),
            expires_at: proto(self.expires_at()),
            refresh_at: proto(self.expires_at()),
            next_attempt_at: None,
            consecutive_failures: 1,
            lease: Some(v1::Lease { owner: "r1".into(), expires_at: proto(self.expires_at()) }),
            attempts: vec![failed, succeeded],
            last_used_at: proto(self.issued_at()),
            watchers: 2,
        }
    }

    fn summary(self) -> v1::CredentialSummary {
        v1::CredentialSummary {
            name: "demo".into(),
            provider: "oauth2".into(),
            state: v1::CredentialState::RefreshFailing.into(),
            token_count: 1,
            next_expiry: proto(self.expires_at()),
        }
    }
}

const FAR_SIGNED: jiff::SignedDuration = jiff::SignedDuration::from_secs(FAR.as_secs().cast_signed());

fn proto(time: Timestamp) -> Option<prost_types::Timestamp> {
    Some(SystemTime::from(time).into())
}

/// The error whose reason is `name` in capitals.
fn error(name: &str) -> Status {
    let reason = name.to_uppercase().replace('-', "_");
    let code = match reason.as_str() {
        "BAD_NAME" => Code::InvalidArgument,
        "NOT_ALLOWED" => Code::PermissionDenied,
        "NO_SUCH_CREDENTIAL" => Code::NotFound,
        "NEEDS_REAUTH" | "MISCONFIGURED" | "KEY_MISSING" | "CONFIG_TAMPERED" => Code::FailedPrecondition,
        "TOO_MANY_INVALIDATIONS" | "TOO_MANY_REQUESTS" => Code::ResourceExhausted,
        "UPSTREAM_DOWN" | "DRAINING" => Code::Unavailable,
        "UPSTREAM_SLOW" => Code::DeadlineExceeded,
        "UNIMPLEMENTED" => return Status::unimplemented(""),
        _ => Code::Internal,
    };
    let mut details = ErrorDetails::with_error_info(reason, "tokencache", [("k".to_owned(), "v".to_owned())]);
    if matches!(code, Code::Unavailable | Code::ResourceExhausted) {
        details.set_retry_info(Some(Duration::from_secs(90)));
    }
    Status::with_error_details(code, "it failed", details)
}

fn error_event() -> pb::Status {
    let details = ErrorDetails::with_error_info("UPSTREAM_DOWN", "tokencache", [("k".to_owned(), "v".to_owned())]);
    let status = Status::with_error_details(Code::Unavailable, "idp.example refuses connections", details);
    prost::Message::decode(status.details()).expect("the details are a google.rpc.Status")
}

fn known(name: &str) -> Result<(), Status> {
    if name == "demo" { Ok(()) } else { Err(error(name)) }
}

#[tonic::async_trait]
impl TokenService for FakeBroker {
    async fn get_token(&self, request: Request<v1::GetTokenRequest>) -> Result<Response<v1::GetTokenResponse>, Status> {
        known(&request.into_inner().credential)?;
        Ok(Response::new(v1::GetTokenResponse {
            token: Some(self.token()),
            not_modified: false,
            freshness: v1::Freshness::Verified.into(),
            server_time: proto(self.start),
        }))
    }

    type WatchTokensStream = Iter<vec::IntoIter<Result<v1::WatchTokensResponse, Status>>>;

    async fn watch_tokens(
        &self,
        request: Request<v1::WatchTokensRequest>,
    ) -> Result<Response<Self::WatchTokensStream>, Status> {
        use v1::watch_tokens_response::Event;
        let selector = request.into_inner().selectors.pop();
        known(&selector.as_ref().map(|s| s.credential.clone()).unwrap_or_default())?;
        let event = |event| Ok(v1::WatchTokensResponse { selector: selector.clone(), event: Some(event) });
        let events = vec![
            event(Event::Token(self.token())),
            event(Event::Invalidated(v1::TokenInvalidated { min_generation: 4 })),
            event(Event::Unavailable(error_event())),
        ];
        Ok(Response::new(tokio_stream::iter(events)))
    }

    async fn invalidate_token(
        &self,
        request: Request<v1::InvalidateTokenRequest>,
    ) -> Result<Response<v1::InvalidateTokenResponse>, Status> {
        use v1::invalidate_token_request::Rejected;
        let request = request.into_inner();
        known(&request.credential)?;
        let invalidated = match request.rejected {
            Some(Rejected::Generation(generation)) => generation == 3,
            Some(Rejected::Fingerprint(fingerprint)) => fingerprint == FINGERPRINT,
            None => false,
        };
        let invalidated = invalidated && request.http_status != 403;
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
        let idle = v1::CredentialSummary {
            name: "later".into(),
            provider: "session".into(),
            state: v1::CredentialState::Idle.into(),
            ..Default::default()
        };
        let credentials = vec![if first { self.summary() } else { idle }];
        let next_page_token = if first { "more".into() } else { String::new() };
        Ok(Response::new(v1::ListCredentialsResponse { credentials, next_page_token }))
    }

    async fn describe_credential(
        &self,
        request: Request<v1::DescribeCredentialRequest>,
    ) -> Result<Response<v1::DescribeCredentialResponse>, Status> {
        known(&request.into_inner().name)?;
        Ok(Response::new(v1::DescribeCredentialResponse {
            credential: Some(self.summary()),
            tokens: vec![self.status()],
            grant: Some(v1::GrantStatus {
                version: 5,
                fingerprint: FINGERPRINT.into(),
                updated_at: proto(self.issued_at()),
                needs_reauth_reason: String::new(),
            }),
            explanation: "the last refresh failed".into(),
            endpoint: Some(v1::EndpointStatus {
                endpoint: "https://idp.example".into(),
                state: v1::EndpointState::Open.into(),
                consecutive_failures: 6,
                next_attempt_at: proto(self.expires_at()),
                calls: 1,
                max_concurrent: 32,
                prober: String::new(),
            }),
        }))
    }

    async fn refresh_token(
        &self,
        request: Request<v1::RefreshTokenRequest>,
    ) -> Result<Response<v1::RefreshTokenResponse>, Status> {
        known(&request.into_inner().credential)?;
        Ok(Response::new(v1::RefreshTokenResponse { token: Some(self.status()) }))
    }

    async fn invalidate_credentials(
        &self,
        _: Request<v1::InvalidateCredentialsRequest>,
    ) -> Result<Response<v1::InvalidateCredentialsResponse>, Status> {
        Err(Status::unimplemented("no command of the program calls this"))
    }

    async fn list_replicas(
        &self,
        _: Request<v1::ListReplicasRequest>,
    ) -> Result<Response<v1::ListReplicasResponse>, Status> {
        let replica = |id: &str, seconds| v1::Replica {
            id: id.into(),
            version: "0.1.0".into(),
            started_at: proto(self.issued_at()),
            lease_remaining: Some(prost_types::Duration { seconds, nanos: 0 }),
            applied_event: 41,
            missing_events: if seconds == 0 { vec![39] } else { vec![] },
            answering: seconds != 0,
        };
        Ok(Response::new(v1::ListReplicasResponse { replicas: vec![replica("r1", 2), replica("r2", 0)] }))
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
        Err(Status::unimplemented("no command of the program calls this"))
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
