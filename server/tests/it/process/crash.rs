//! A crash in the middle of a refresh: the refresh token on its way is neither lost nor silently given up.

use tempfile::TempDir;
use tokencache_client::{CredentialState, GetToken};

use super::{
    Daemon,
    daemon::FREE_PORTS,
    upstream::{Upstream, minted, refused},
};

/// A crash: the broker is killed while the upstream, which has received `rt-1`, still thinks. Returns the directory.
async fn crash_in_a_refresh(upstream: &Upstream, rotation: &str) -> (TempDir, String) {
    let directory = TempDir::new().expect("a directory");
    std::fs::write(directory.path().join("first.rt"), "rt-0").expect("a file");
    let configuration = format!(
        r#"{FREE_PORTS}
[credentials.crm]
provider = "oauth2"
grant = "refresh_token"
token_url = "{url}"
client_id = "c"
refresh_token = {{ file = "first.rt" }}
rotation = {rotation}
timeout = "5s"
"#,
        url = upstream.url()
    );
    let daemon = Daemon::serve(directory.path(), &configuration).await;
    upstream.release(1);
    let first = daemon.client().get_token(GetToken::of("crm")).await.expect("an answer").token.expect("a token");
    assert_eq!(first.access_token.expose(), "at-1");

    let operator = daemon.admin();
    let refresh = tokio::spawn(async move { operator.refresh_token("crm").await });
    upstream.until_asked(2).await;
    daemon.kill();
    refresh.await.expect("the task ends").expect_err("the broker is gone");
    upstream.release(100);
    (directory, configuration)
}

#[tokio::test]
async fn an_upstream_that_tolerates_a_replay_costs_nothing() {
    let second = minted("at-2", "rt-2");
    let upstream = Upstream::start([minted("at-1", "rt-1"), second.clone(), second, minted("at-3", "rt-3")]).await;
    let (directory, configuration) = crash_in_a_refresh(&upstream, "{ grace = \"30s\" }").await;

    let daemon = Daemon::serve(directory.path(), &configuration).await;
    let token = daemon.client().get_token(GetToken::of("crm")).await.expect("an answer").token.expect("a token");
    assert_eq!((token.access_token.expose(), token.generation), ("at-1", 1), "the old one is still valid");
    assert_eq!(daemon.admin().refresh_token("crm").await.expect("a token").generation, 2);
    assert_eq!(daemon.admin().refresh_token("crm").await.expect("a token").generation, 3);
    assert_eq!(upstream.refresh_tokens(), ["rt-0", "rt-1", "rt-1", "rt-2"]);
    let grant = daemon.admin().describe_credential("crm").await.expect("an answer").grant.expect("a grant");
    assert_eq!(grant.needs_reauth_reason, "");
    assert_eq!(daemon.stop().await.code(), Some(0));
}

#[tokio::test]
async fn an_upstream_that_does_not_is_asked_once_and_then_a_person_is() {
    let upstream = Upstream::start([minted("at-1", "rt-1"), minted("at-2", "rt-2"), refused("invalid_grant")]).await;
    let (directory, configuration) = crash_in_a_refresh(&upstream, "\"strict\"").await;

    let daemon = Daemon::serve(directory.path(), &configuration).await;
    let error = daemon.admin().refresh_token("crm").await.expect_err("the grant is in doubt");
    assert_eq!(error.reason(), Some("NEEDS_REAUTH"), "{error:?}");
    let token = daemon.client().get_token(GetToken::of("crm")).await.expect("an answer").token.expect("a token");
    assert_eq!(token.access_token.expose(), "at-1", "what is still valid is still served");

    let described = daemon.admin().describe_credential("crm").await.expect("an answer");
    let grant = described.grant.expect("a grant");
    assert!(grant.needs_reauth_reason.starts_with("in doubt: "), "{grant:?}");
    assert_eq!(described.credential.state, CredentialState::NeedsReauth);
    daemon.admin().refresh_token("crm").await.expect_err("only a person can help");
    assert_eq!(upstream.refresh_tokens(), ["rt-0", "rt-1", "rt-1"], "one replay, no more");
    let outcome = daemon.stop().await;
    assert_eq!(outcome.code(), Some(0));
    assert!(outcome.stderr.contains("a person has to log in again"), "it is logged: {outcome:?}");
}
