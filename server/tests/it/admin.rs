//! `AdminService`: what operators see and do, and that no secret is in it.

use std::time::Duration;

use prost::Message;
use tokencache_client::{CredentialDescription, CredentialState, GetToken, Selector, Target};
use tokencache_proto::v1::{
    DescribeCredentialRequest, GetServerInfoRequest, InvalidateCredentialsRequest, ListCredentialsRequest,
    RefreshTokenRequest, invalidate_credentials_request,
};

use crate::{
    broker::{Broker, Over, REPLICA, Stage, eventually},
    upstream::{CLIENT_SECRET, Fault},
};

async fn describe(broker: &Broker, name: &str) -> CredentialDescription {
    broker.operator().describe_credential(name).await.expect("a description")
}

async fn get(broker: &Broker, name: &str) -> tokencache_client::Result<u64> {
    let answer = broker.library().get_token(GetToken::of(name)).await?;
    Ok(answer.token.expect("an answer without a condition has a token").generation)
}

#[tokio::test]
async fn credentials_are_listed_by_name_page_by_page() {
    let stage = Stage::new(Over::Sqlite).await;
    let names = ["a", "a.b", "a/b", "b", "c/d/e"];
    let credentials: String = names.iter().rev().map(|name| stage.credential(name, "")).collect();
    let broker = stage.start(&credentials).await;
    get(&broker, "b").await.expect("a token");
    let operator = broker.operator();
    let (mut pages, mut page_token) = (vec![], String::new());
    loop {
        let page = operator.list_credentials(2, &page_token).await.expect("a page");
        page_token = page.next_page_token.clone();
        pages.push(page.credentials);
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 1]);
    let listed: Vec<_> = pages.concat();
    assert_eq!(listed.iter().map(|credential| credential.name.as_str()).collect::<Vec<_>>(), names);
    let expected = |name: &str| if name == "b" { (CredentialState::Valid, 1) } else { (CredentialState::Idle, 0) };
    for credential in &listed {
        assert_eq!((credential.state, credential.token_count), expected(&credential.name), "{}", credential.name);
        assert_eq!(
            (credential.provider.as_str(), credential.next_expiry.is_some()),
            ("oauth2", credential.name == "b")
        );
    }
    let exact = operator.list_credentials(5, "").await.expect("a page");
    assert_eq!((exact.credentials.len(), exact.next_page_token.as_str()), (5, ""), "no empty page follows");
    let from_the_middle = operator.list_credentials(0, "a/c").await.expect("the name is gone, the place is not");
    assert_eq!(from_the_middle.credentials.len(), 2);
    broker.stop().await;
}

#[tokio::test]
async fn each_state_is_explained_with_its_cause_and_what_to_do() {
    let stage = Stage::new(Over::Sqlite).await;
    let names = ["idle", "valid", "failing", "down", "wrong"];
    let credentials = names.iter().map(|name| stage.credential(name, "")).collect::<String>() + &stage.rotating("lost");
    let broker = stage.start(&credentials).await;
    for name in ["valid", "failing"] {
        get(&broker, name).await.expect("a token");
    }
    stage.clock.advance(Duration::from_secs(1));
    stage.upstream.then(Fault::status(503));
    broker.operator().refresh_token("failing").await.expect_err("the upstream is down");
    for (name, fault) in [
        ("down", Fault::status(502)),
        ("wrong", Fault::refusal("invalid_scope")),
        ("lost", Fault::refusal("invalid_grant")),
    ] {
        stage.upstream.then(fault);
        get(&broker, name).await.expect_err(name);
    }
    for (name, state, cause, advice) in [
        ("idle", CredentialState::Idle, "nobody has asked", "the next call gets one"),
        ("valid", CredentialState::Valid, "a valid token", "replaced ahead"),
        ("failing", CredentialState::RefreshFailing, "answered 503", "tried again by itself"),
        ("down", CredentialState::Unavailable, "answered 502", "tried again by itself"),
        ("wrong", CredentialState::Misconfigured, "invalid_scope", "change the configuration"),
        ("lost", CredentialState::NeedsReauth, "invalid_grant", "log in again"),
    ] {
        let description = describe(&broker, name).await;
        assert_eq!(description.credential.state, state, "{name}");
        for part in [cause, advice] {
            assert!(description.explanation.contains(part), "{name}: {}", description.explanation);
        }
    }
    let lost = describe(&broker, "lost").await.grant.expect("a grant");
    assert!(lost.needs_reauth_reason.contains("no longer valid"), "{lost:?}");
    broker.stop().await;
}

#[tokio::test]
async fn the_last_attempts_and_the_holder_of_the_lease_are_told() {
    let stage = Stage::new(Over::Sqlite).await;
    let broker = stage.start(&stage.credential("ci", "")).await;
    stage.upstream.then(Fault::status(503));
    get(&broker, "ci").await.expect_err("the upstream is down");
    stage.clock.advance(Duration::from_secs(301));
    get(&broker, "ci").await.expect("it is up");
    stage.clock.advance(Duration::from_secs(1));
    stage.upstream.hold();
    let operator = broker.operator();
    let refresh = tokio::spawn(async move { operator.refresh_token("ci").await });
    eventually("the upstream is asked", async || stage.upstream.calls() == 3).await;

    let description = describe(&broker, "ci").await;
    let token = description.tokens.first().expect("one token");
    let holder = token.lease.as_ref().expect("somebody asks the upstream");
    assert!(holder.owner.starts_with(REPLICA) && holder.expires_at.is_some(), "{holder:?}");
    let outcomes: Vec<_> = token.attempts.iter().map(|a| a.error.as_ref().and_then(|e| e.reason())).collect();
    assert_eq!(outcomes, [None, Some("UPSTREAM_DOWN")], "newest first");
    assert!(token.attempts.iter().all(|attempt| attempt.replica == REPLICA && attempt.time.is_some()));

    stage.upstream.release();
    assert_eq!(refresh.await.expect("no panic").expect("a new token").generation, 2);
    let description = describe(&broker, "ci").await;
    let token = description.tokens.first().expect("one token");
    assert_eq!((token.lease.as_ref(), token.attempts.len(), token.consecutive_failures), (None, 3, 0));
    assert!(token.issued_at < token.refresh_at && token.refresh_at < token.expires_at, "{token:?}");
    broker.stop().await;
}

#[tokio::test]
async fn an_operator_replaces_a_token_in_spite_of_backoff() {
    let stage = Stage::new(Over::Sqlite).await;
    let broker = stage.start(&stage.credential("ci", "")).await;
    let operator = broker.operator();
    assert_eq!(operator.refresh_token("ci").await.expect("the first one").generation, 1);
    stage.clock.advance(Duration::from_secs(1));
    stage.upstream.then(Fault::status(503).with_header("retry-after", "3600"));
    operator.refresh_token("ci").await.expect_err("the upstream is down");
    stage.clock.advance(Duration::from_secs(1));
    let refreshed = operator.refresh_token("ci").await.expect("the operator knows better");
    assert_eq!((refreshed.generation, refreshed.consecutive_failures), (2, 0));
    assert_eq!(get(&broker, "ci").await, Ok(2));
    let other = operator.refresh_token(Selector::new("ci").with_scopes(["read"])).await.expect("another key");
    assert_eq!((other.generation, other.selector.scopes()), (1, &["read".to_owned()][..]));
    broker.stop().await;
}

#[tokio::test]
async fn tokens_are_invalidated_by_pattern_or_by_provider_and_a_dry_run_only_tells() {
    let stage = Stage::new(Over::Sqlite).await;
    std::fs::write(stage.path("api.token"), "a-f1xed-s3cr3t").expect("a file");
    let fixed = "[credentials.static]\nprovider = \"fixed\"\ntoken = { file = \"api.token\" }\n";
    let names = ["crm/prod", "crm/test", "ci"];
    let credentials = names.iter().map(|name| stage.credential(name, "")).collect::<String>() + fixed;
    let broker = stage.start(&credentials).await;
    let (client, operator) = (broker.library(), broker.operator());
    let mut first = vec![];
    for name in names {
        first.push(client.get_token(GetToken::of(name)).await.expect("a token").token.expect("a token"));
    }
    let more = GetToken::of(Selector::new("crm/prod").with_scopes(["read"]));
    client.get_token(more).await.expect("a second token of the same credential");
    get(&broker, "static").await.expect("a token");

    let crm = || Target::Pattern("crm/*".into());
    for dry_run in [true, false] {
        let done = operator.invalidate_credentials(crm(), dry_run).await.expect("an answer");
        assert_eq!((done.credentials, done.token_count), (vec!["crm/prod".into(), "crm/test".into()], 3), "{dry_run}");
        let expected = if dry_run { [1, 1] } else { [2, 2] };
        stage.clock.advance(Duration::from_secs(1));
        assert_eq!([get(&broker, "crm/prod").await, get(&broker, "crm/test").await], expected.map(Ok), "{dry_run}");
    }
    assert_eq!(get(&broker, "ci").await, Ok(1), "it does not match");
    eventually("the upstream is told", async || {
        first[..2].iter().all(|token| stage.upstream.is_revoked(token.access_token.expose()))
    })
    .await;
    assert!(!stage.upstream.is_revoked(first[2].access_token.expose()));

    let fixed = operator.invalidate_credentials(Target::Provider("fixed".into()), false).await.expect("an answer");
    assert_eq!((fixed.credentials, fixed.token_count), (vec!["static".into()], 1));
    let none = operator.invalidate_credentials(Target::Pattern("nothing*".into()), false).await.expect("an answer");
    assert_eq!((none.credentials.len(), none.token_count), (0, 0));
    broker.stop().await;
}

#[tokio::test]
async fn the_replica_tells_what_it_runs() {
    let stage = Stage::new(Over::Sqlite).await;
    let broker = stage.start(&(stage.credential("a", "") + &stage.credential("b", ""))).await;
    let info = broker.operator().server_info().await.expect("an answer");
    assert_eq!((info.replica.as_str(), info.store.as_str(), info.dev), (REPLICA, "sqlite", false));
    assert_eq!((info.version.as_str(), info.credential_count), (env!("CARGO_PKG_VERSION"), 2));
    assert_eq!(info.providers, ["fixed", "oauth2", "session"]);
    assert!(info.started_at.is_some());
    broker.stop().await;
}

/// Looks for every secret there is in the bytes of an answer.
fn assert_no_secret(stage: &Stage, what: &str, answer: &impl Message) {
    let bytes = answer.encode_to_vec();
    for secret in stage.upstream.secrets().iter().map(String::as_str).chain([CLIENT_SECRET]) {
        assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "{what} carries {secret}");
    }
}

#[tokio::test]
async fn no_answer_of_the_admin_api_carries_a_secret() {
    let stage = Stage::new(Over::Sqlite).await;
    let broker = stage.start(&(stage.credential("ci", "") + &stage.rotating("crm/prod"))).await;
    for name in ["ci", "crm/prod"] {
        get(&broker, name).await.expect("a token");
    }
    assert_eq!(stage.upstream.secrets().len(), 4, "two access tokens and two refresh tokens");
    stage.clock.advance(Duration::from_secs(1));
    let mut admin = broker.admin().await;
    for name in ["ci", "crm/prod"] {
        let refresh = RefreshTokenRequest { credential: name.into(), ..Default::default() };
        let refreshed = admin.refresh_token(refresh).await.expect("a new token").into_inner();
        assert_no_secret(&stage, "RefreshToken", &refreshed);
        let describe = DescribeCredentialRequest { name: name.into() };
        let described = admin.describe_credential(describe).await.expect("a description").into_inner();
        assert_no_secret(&stage, "DescribeCredential", &described);
    }
    let listed = admin.list_credentials(ListCredentialsRequest::default()).await.expect("a page").into_inner();
    assert_no_secret(&stage, "ListCredentials", &listed);
    let target = Some(invalidate_credentials_request::Target::Pattern("*".into()));
    let invalidate = InvalidateCredentialsRequest { target, dry_run: false };
    let invalidated = admin.invalidate_credentials(invalidate).await.expect("an answer").into_inner();
    assert_no_secret(&stage, "InvalidateCredentials", &invalidated);
    let info = admin.get_server_info(GetServerInfoRequest {}).await.expect("an answer").into_inner();
    assert_no_secret(&stage, "GetServerInfo", &info);
    let metrics = broker.http("/metrics").await.text().await.expect("text");
    assert!(!stage.upstream.secrets().iter().any(|secret| metrics.contains(secret)));
    broker.stop().await;
}
