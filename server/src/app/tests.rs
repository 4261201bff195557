use async_trait::async_trait;
use futures::future::join_all;
use tokencache_proto::v1::{
    GetTokenRequest, RefreshTokenRequest, admin_service_server::AdminService as _,
    token_service_client::TokenServiceClient, token_service_server::TokenService as _,
};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use super::*;
use crate::{
    credential::{AskDefaults, Catalog, Credential, RefreshRules, RejectOn, WhenDegraded},
    policy::authorize,
    provider::{Capabilities, GrantUse, MintRequest, MintResult, Minted, TokenProvider},
    time::{Timestamp, TokioClock},
    types::{Caller, CredentialName, Fingerprint, Secret, Selector, TokenRequest},
};

/// An upstream that takes its time for tokens that do not last.
#[derive(Debug)]
struct Slow;

#[async_trait]
impl TokenProvider for Slow {
    fn kind(&self) -> &'static str {
        "slow"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { grant: GrantUse::None, revocable: false }
    }

    async fn mint(&self, request: MintRequest) -> MintResult {
        sleep(Duration::from_millis(500)).await;
        Ok(Minted {
            access_token: Secret::new(format!("{:?} {:?}", request.key, tokio::time::Instant::now())),
            token_type: "Bearer".into(),
            lifetime: Duration::from_secs(2),
            scopes: None,
            attributes: [].into(),
            grant: None,
        })
    }
}

fn credential() -> Credential {
    Credential {
        name: CredentialName::parse("c").expect("a valid name"),
        provider: Arc::new(Slow),
        defaults: AskDefaults::default(),
        refresh: RefreshRules::default(),
        reject_on: RejectOn::default(),
        when_degraded: WhenDegraded::default(),
        endpoint: None,
        timeout: Duration::from_secs(10),
        config: Fingerprint::of_bytes(b"config"),
    }
}

async fn app() -> App {
    let any_port = "\"127.0.0.1:0\"";
    let text = format!(
        "[server]\nlisten = {any_port}\nadmin_listen = {any_port}\nmetrics_listen = {any_port}\n\
         insecure_allow_any_caller = true\n[store]\nurl = \"memory:\"\n[audit]\nsinks = [\"memory\"]\n"
    );
    let registry = ProviderRegistry::builtin();
    let config = Config::parse("test.toml", &text, ".", &registry).expect("a valid configuration");
    let clock = Arc::new(TokioClock::starting_at(Timestamp::from_millis(1_800_000_000_000)));
    let assembly = Assembly { clock, rng: SharedRng::from_seed(1), ..Assembly::standard(false, &registry) };
    App::build(Config { credentials: Catalog::new([credential()]), ..config }, assembly).await.expect("it builds")
}

async fn get(cache: &TokenCache, scope: String) {
    let name = CredentialName::parse("c").expect("a valid name");
    let request = TokenRequest {
        selector: Selector::new(name, vec![scope], None, vec![]),
        min_validity: Duration::ZERO,
        if_generation_not: None,
        rejected: None,
    };
    let request = authorize(&AllowAll, &Caller::anonymous(), request).expect("all is allowed");
    cache.get(&request, None).await.expect("a token");
}

#[tokio::test(start_paused = true)]
async fn tokens_that_come_due_while_it_drains_do_not_keep_the_broker_from_ending() {
    let app = app().await;
    let shutdown = Shutdown::default();
    let cache = Arc::clone(&app.cache);
    let running = tokio::spawn(app.run(shutdown.clone()));
    // One after another, so that there is always one that is being replaced.
    let all = (0..40).map(|i| {
        let cache = &cache;
        async move {
            sleep(Duration::from_millis(45 * i)).await;
            get(cache, format!("s{i}")).await;
        }
    });
    join_all(all).await;
    sleep(Duration::from_secs(5)).await;
    shutdown.orderly.cancel();
    let ended = running.await.expect("no panic");
    assert!(ended.is_ok(), "{ended:?}");
}

/// The address of a listener, as a client needs it.
fn url(app: &App, what: &str) -> String {
    let address = app.addresses().into_iter().find_map(|(name, address)| (name == what).then_some(address));
    format!("http://{}", address.expect("it listens"))
}

fn with_timeout<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(Duration::from_millis(200));
    request
}

fn assert_ended_by_its_deadline(status: &Status) {
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    assert_eq!(status.get_error_details().error_info().map(|info| info.reason.as_str()), Some("UPSTREAM_SLOW"));
}

#[tokio::test(start_paused = true)]
async fn whatever_call_its_deadline_ends_says_so_as_the_contract_says() {
    let app = app().await;
    let (clock, catalog) = (Arc::new(SystemClock), app.config.credentials.clone());
    let pipeline = Pipeline {
        authn: Arc::new(AnyCaller),
        rate: None,
        policy: Arc::new(AllowAll),
        catalog,
        cache: Arc::clone(&app.cache),
        audit: app.audit(),
        records: app.audit().in_memory_reader(),
    };
    let pipeline = Arc::new(pipeline);
    let draining = CancellationToken::new();
    let tokens = Tokens { pipeline: Arc::clone(&pipeline), clock: clock.clone(), draining: draining.clone() };
    let started_at = Timestamp::from_millis(0);
    let facts = ServerFacts { replica: ReplicaId::new("r"), started_at, store: "memory", providers: vec![], dev: true };
    let admin = Admin { pipeline, clock, facts, draining };

    let request = with_timeout(GetTokenRequest { credential: "c".into(), ..Default::default() });
    assert_ended_by_its_deadline(&tokens.get_token(request).await.expect_err("the upstream takes longer"));
    let request = with_timeout(RefreshTokenRequest { credential: "c".into(), ..Default::default() });
    assert_ended_by_its_deadline(&admin.refresh_token(request).await.expect_err("the upstream takes longer"));
}

#[tokio::test]
async fn a_request_with_everything_wrong_is_answered_with_what_is_wrong() {
    let app = app().await;
    let client = url(&app, CLIENT_API);
    let shutdown = Shutdown::default();
    let running = tokio::spawn(app.run(shutdown.clone()));
    let mut client = TokenServiceClient::connect(client).await.expect("it listens");
    let request = GetTokenRequest {
        credential: "c".into(),
        scopes: vec!["a b".into(); 128],
        resources: vec!["relative".into(); 32],
        audience: "\n".into(),
        ..Default::default()
    };
    let status = client.get_token(request).await.expect_err("it is invalid");
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    let violations = status.get_error_details().bad_request().map(|bad| bad.field_violations.len());
    assert!(violations.is_some_and(|count| count > 1), "{violations:?}");
    drop(client);
    shutdown.orderly.cancel();
    assert!(running.await.expect("no panic").is_ok());
}
