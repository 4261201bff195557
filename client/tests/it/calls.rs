//! Each call, over the wire.

use std::time::{Duration, SystemTime};

use tokencache_client::{
    AdminClient, Client, CredentialState, ErrorKind, Freshness, GetToken, Rejection, Selector, Target, TokenUpdate,
};
use tokio::net::TcpListener;

use crate::fake::{SECRET, serve_tcp, serve_unix};

async fn client() -> Client {
    Client::builder().endpoint(serve_tcp().await).build().unwrap()
}

async fn admin() -> AdminClient {
    AdminClient::builder().endpoint(serve_tcp().await).build_admin().unwrap()
}

#[tokio::test]
async fn a_token_arrives_whole() {
    let answer = client().await.get_token(GetToken::of("demo")).await.unwrap();
    let token = answer.token.unwrap();
    assert_eq!(token.authorization().expose(), format!("Bearer {SECRET}"));
    assert_eq!((token.generation, token.fingerprint.as_str()), (1, "0123456789abcdef"));
    assert_eq!(token.expires_at, SystemTime::UNIX_EPOCH + Duration::from_secs(100));
    assert_eq!(answer.server_time, Some(SystemTime::UNIX_EPOCH + Duration::from_secs(40)));
    assert_eq!(answer.freshness, Freshness::Verified);
}

#[tokio::test]
async fn the_broker_is_told_what_is_asked_and_how_long_the_caller_waits() {
    let client = Client::builder().endpoint(serve_tcp().await).deadline(Duration::from_secs(5)).build().unwrap();
    let selector = Selector::new("asked").with_scopes(["b", "a"]).with_audience("aud").with_resources(["urn:r"]);
    let request = GetToken::of(selector).min_validity(Duration::from_secs(300)).rejected_generation(7);
    let token = client.get_token(request).await.unwrap().token.unwrap();
    let asked = &token.attributes["asked"];
    for part in ["[\"b\", \"a\"]", "\"aud\"", "[\"urn:r\"]", "seconds: 300", "rejected_generation: 7"] {
        assert!(asked.contains(part), "{part} in {asked}");
    }
    // Microseconds: what is left of the whole call's deadline.
    let told: u64 = token.attributes["timeout"].trim_end_matches('u').parse().unwrap();
    assert!((1..=5_000_000).contains(&told), "{told}");
    assert_eq!(token.generation, 8);
}

#[tokio::test]
async fn a_copy_that_is_still_current_is_not_sent_again() {
    let answer = client().await.get_token(GetToken::of("demo").if_generation_not(1)).await.unwrap();
    assert!(answer.token.is_none());
}

#[tokio::test]
async fn an_error_keeps_its_reason_and_delay() {
    let error = client().await.get_token(GetToken::of("broken")).await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (ErrorKind::Unavailable, Some("UPSTREAM_DOWN")));
    assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
    assert_eq!(error.to_string(), "idp.example refuses connections");
}

#[tokio::test]
async fn a_broker_that_is_not_there_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let client = Client::builder().endpoint(endpoint).build().unwrap();
    let error = client.get_token(GetToken::of("demo")).await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (ErrorKind::Unreachable, None));
    assert!(error.is_transient());
    assert!(error.message().contains("refused"), "{error}");
}

#[tokio::test]
async fn a_broker_that_hangs_is_given_up_at_the_deadline() {
    let builder = Client::builder().endpoint(serve_tcp().await).deadline(Duration::from_millis(50));
    let error = builder.build().unwrap().get_token(GetToken::of("hangs")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("did not answer"), "{error}");
}

#[tokio::test]
async fn a_listener_that_never_speaks_is_given_up_at_the_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let builder = Client::builder().endpoint(endpoint).deadline(Duration::from_millis(50));
    let client = builder.connect_timeout(Duration::from_millis(50)).build().unwrap();
    let error = client.get_token(GetToken::of("demo")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("did not answer"), "{error}");
}

#[tokio::test]
async fn a_unix_socket_serves_as_well() {
    let directory = tempfile::tempdir().unwrap();
    let endpoint = serve_unix(&directory.path().join("t.sock"));
    let client = Client::builder().endpoint(endpoint).build().unwrap();
    assert!(client.get_token(GetToken::of("demo")).await.unwrap().token.is_some());
}

#[tokio::test]
async fn a_watch_tells_every_change_and_then_why_it_ended() {
    let mut events = client().await.watch(["demo"]).await.unwrap();
    let first = events.next().await.unwrap().unwrap();
    assert!(!format!("{first:?}").contains(SECRET));
    assert_eq!(first.selector.credential(), "demo");
    assert!(matches!(first.update, TokenUpdate::Token(token) if token.generation == 1));
    let second = events.next().await.unwrap().unwrap();
    assert!(matches!(second.update, TokenUpdate::Invalidated { min_generation: 2 }));
    let third = events.next().await.unwrap().unwrap();
    assert!(matches!(third.update, TokenUpdate::Unavailable(error) if error.reason() == Some("UPSTREAM_DOWN")));
    assert_eq!(events.next().await.unwrap().unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn a_report_names_the_token_by_generation_or_fingerprint() {
    let client = client().await;
    let by_generation = Rejection::of_generation("demo", 3).http_status(401).error("invalid_token");
    let answer = client.invalidate(by_generation).await.unwrap();
    assert!(answer.invalidated);
    assert_eq!(answer.min_generation, 4);
    let by_fingerprint = Rejection::of_fingerprint("demo", "0123456789abcdef").http_status(401).error("invalid_token");
    assert!(client.invalidate(by_fingerprint).await.unwrap().invalidated);
    assert!(!client.invalidate(Rejection::of_generation("demo", 2)).await.unwrap().invalidated);
}

#[tokio::test]
async fn credentials_come_in_pages() {
    let admin = admin().await;
    let first = admin.list_credentials(1, "").await.unwrap();
    assert_eq!((first.credentials[0].name.as_str(), first.next_page_token.as_str()), ("demo", "more"));
    assert_eq!(first.credentials[0].state, CredentialState::Valid);
    let last = admin.list_credentials(1, &first.next_page_token).await.unwrap();
    assert_eq!((last.credentials[0].name.as_str(), last.next_page_token.as_str()), ("later", ""));
}

#[tokio::test]
async fn a_description_tells_failed_attempts_from_successful_ones() {
    let described = admin().await.describe_credential("demo").await.unwrap();
    assert_eq!((described.credential.name.as_str(), described.explanation.as_str()), ("demo", "all is well"));
    let endpoint = described.endpoint.as_ref().expect("it has one");
    assert_eq!((endpoint.state.as_str(), endpoint.calls, endpoint.next_attempt_at), ("half-open", 1, None));
    let token = &described.tokens[0];
    assert_eq!(token.state, CredentialState::Unknown);
    let reasons: Vec<_> = token.attempts.iter().map(|attempt| attempt.error.as_ref().map(|e| e.reason())).collect();
    assert_eq!(reasons, [Some(Some("UPSTREAM_DOWN")), None, Some(Some("UPSTREAM_DOWN"))]);
}

#[tokio::test]
async fn the_other_admin_calls_carry_their_arguments() {
    let admin = admin().await;
    let token = admin.refresh_token(Selector::new("demo").with_scopes(["a"])).await.unwrap();
    assert_eq!((token.generation, token.selector.scopes()), (9, &["a".to_owned()][..]));
    let done = admin.invalidate_credentials(Target::Pattern("crm/*".into()), true).await.unwrap();
    assert_eq!(done.credentials, ["Some(Pattern(\"crm/*\")) dry_run=true"]);
    assert_eq!(done.token_count, 2);
    let info = admin.server_info().await.unwrap();
    assert_eq!((info.replica.as_str(), info.dev), ("r1", true));
}
