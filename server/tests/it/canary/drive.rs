//! Every call of every service, on every credential, with all that is answered.

use std::fmt::Debug;

use futures::{StreamExt as _, future::join_all};
use prost::Message;
use tokencache_proto::v1::{
    self, admin_service_client::AdminServiceClient, invalidate_credentials_request::Target,
    invalidate_token_request::Rejected, token_service_client::TokenServiceClient, watch_tokens_response::Event,
};
use tonic::{Response, Status, transport::Channel};

use super::{
    configuration::{names, serving},
    search::hits,
    upstream::Upstreams,
};
use crate::process::{Daemon, http_client};

/// What the broker has said, and where.
#[derive(Default)]
pub(super) struct Told(pub(super) Vec<(String, Vec<u8>)>);

impl Told {
    pub(super) fn add(&mut self, place: &str, text: impl Into<Vec<u8>>) {
        self.0.push((place.into(), text.into()));
    }

    fn add_answer<T: Message + Debug>(&mut self, place: &str, answer: &Result<Response<T>, Status>) {
        match answer {
            Ok(answer) => {
                self.add(place, answer.get_ref().encode_to_vec());
                self.add(place, format!("{:?}", answer.metadata()));
            }
            Err(status) => self.add_status(place, status),
        }
    }

    fn add_status(&mut self, place: &str, status: &Status) {
        self.add(place, status.message());
        self.add(place, status.details());
        self.add(place, format!("{status:?}"));
    }
}

/// Calls everything.
pub(super) async fn everything(daemon: &Daemon, upstreams: &Upstreams, told: &mut Told) {
    let connect = |address: String| Channel::from_shared(format!("http://{address}")).expect("a URI").connect_lazy();
    let tokens = TokenServiceClient::new(connect(daemon.client_address()));
    let admin = AdminServiceClient::new(connect(daemon.admin_address()));

    let selectors = names().into_iter().map(|credential| v1::TokenSelector { credential, ..Default::default() });
    let watch = v1::WatchTokensRequest { selectors: selectors.collect() };
    let watch = tokens.clone().watch_tokens(watch).await.expect("a stream").into_inner();
    let per_credential = join_all(names().into_iter().map(|name| one(name, tokens.clone(), admin.clone())));
    let parts = per_credential.await;
    for (name, (_, served)) in names().iter().zip(&parts) {
        assert!(*served > 0 || !serving().contains(name), "{name} brought no token");
    }
    parts.into_iter().for_each(|(part, _)| told.0.extend(part.0));

    as_an_operator(admin, told).await;
    over_http(daemon, told).await;
    wrong_calls(tokens, told).await;
    let events: Vec<_> = watch.take(names().len()).collect().await;
    for event in events {
        match event {
            Ok(event) => told.add("WatchTokens", without_token(event).encode_to_vec()),
            Err(status) => told.add_status("WatchTokens", &status),
        }
    }
    assert!(!upstreams.plain.is_empty());
}

/// Everything that can be asked of one credential, and how many tokens it gave.
async fn one(
    name: String,
    mut tokens: TokenServiceClient<Channel>,
    mut admin: AdminServiceClient<Channel>,
) -> (Told, usize) {
    let (mut told, mut served) = (Told::default(), 0);
    let request = v1::GetTokenRequest { credential: name.clone(), ..Default::default() };
    let mut generation = 1;
    let mut fingerprint = "0123456789abcdef".to_owned();
    for rejected_generation in [0, 1, 0] {
        let request = v1::GetTokenRequest { rejected_generation, ..request.clone() };
        let answer = tokens.get_token(request).await.map(|mut answer| {
            if let Some(token) = &mut answer.get_mut().token {
                assert!(!hits(token.access_token.as_bytes()).is_empty(), "{name}: a token without a canary");
                token.access_token.clear();
                (generation, fingerprint) = (token.generation, token.fingerprint.clone());
                served += 1;
            }
            answer
        });
        told.add_answer(&format!("GetToken {name}"), &answer);
    }
    for rejected in [Rejected::Fingerprint(fingerprint), Rejected::Generation(generation)] {
        let rejected = Some(rejected);
        let request = v1::InvalidateTokenRequest { credential: name.clone(), rejected, ..Default::default() };
        told.add_answer(&format!("InvalidateToken {name}"), &tokens.invalidate_token(request).await);
    }
    let request = v1::RefreshTokenRequest { credential: name.clone(), ..Default::default() };
    told.add_answer(&format!("RefreshToken {name}"), &admin.refresh_token(request).await);
    let request = v1::DescribeCredentialRequest { name: name.clone() };
    told.add_answer(&format!("DescribeCredential {name}"), &admin.describe_credential(request).await);
    (told, served)
}

async fn as_an_operator(mut admin: AdminServiceClient<Channel>, told: &mut Told) {
    told.add_answer("GetServerInfo", &admin.get_server_info(v1::GetServerInfoRequest {}).await);
    for target in [Some(Target::Pattern("*".into())), Some(Target::Provider("oauth2".into())), None] {
        let request = v1::InvalidateCredentialsRequest { target, dry_run: false };
        told.add_answer("InvalidateCredentials", &admin.invalidate_credentials(request).await);
    }
    for page_token in ["", "NOT A PAGE"] {
        let request = v1::ListCredentialsRequest { page_size: 0, page_token: page_token.into() };
        told.add_answer("ListCredentials", &admin.list_credentials(request).await);
    }
    for page_token in ["", "NOT A PAGE"] {
        let request = v1::ListAuditEventsRequest { page_token: page_token.into(), page_size: 1000, filter: None };
        told.add_answer("ListAuditEvents", &admin.list_audit_events(request).await);
    }
    let request = v1::DescribeCredentialRequest { name: "unknown".into() };
    told.add_answer("DescribeCredential", &admin.describe_credential(request).await);
}

async fn over_http(daemon: &Daemon, told: &mut Told) {
    let address = daemon.metrics_address().expect("it listens");
    for path in ["metrics", "healthz", "readyz", "elsewhere"] {
        let answer = http_client().get(format!("http://{address}/{path}")).send().await.expect("an answer");
        told.add(path, format!("{:?}", answer.headers()));
        told.add(path, answer.bytes().await.expect("a body"));
    }
}

async fn wrong_calls(mut tokens: TokenServiceClient<Channel>, told: &mut Told) {
    for credential in ["unknown", "", "..", "NOT A NAME"] {
        let request = v1::GetTokenRequest { credential: credential.into(), ..Default::default() };
        told.add_answer("GetToken", &tokens.get_token(request).await);
        let request = v1::InvalidateTokenRequest { credential: credential.into(), ..Default::default() };
        told.add_answer("InvalidateToken", &tokens.invalidate_token(request).await);
    }
    let watch = tokens.watch_tokens(v1::WatchTokensRequest::default()).await;
    told.add_status("WatchTokens", &watch.expect_err("nothing to watch"));
}

fn without_token(mut event: v1::WatchTokensResponse) -> v1::WatchTokensResponse {
    if let Some(Event::Token(token)) = &mut event.event {
        token.access_token.clear();
    }
    event
}
