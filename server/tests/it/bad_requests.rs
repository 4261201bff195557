//! Requests that are refused: the code, the reason, and every field that is wrong, at once.

use prost_types::Duration as ProtoDuration;
use tokencache_proto::v1::{
    DescribeCredentialRequest, GetTokenRequest, InvalidateCredentialsRequest, InvalidateTokenRequest,
    ListCredentialsRequest, RefreshTokenRequest, TokenSelector, WatchTokensRequest,
    invalidate_credentials_request::Target, invalidate_token_request::Rejected,
};
use tonic::{Code, Status};

use crate::broker::{Broker, Over, Stage, fields, reason};

async fn broker() -> (Stage, Broker) {
    let stage = Stage::new(Over::Memory).await;
    let broker = stage.start(&stage.credential("ci", "")).await;
    (stage, broker)
}

fn of(credential: &str) -> GetTokenRequest {
    GetTokenRequest { credential: credential.into(), ..Default::default() }
}

fn code_and_reason(status: &Status) -> (Code, String) {
    (status.code(), reason(status))
}

async fn refusal(broker: &Broker, request: GetTokenRequest) -> Status {
    broker.tokens().await.get_token(request).await.expect_err("the request is refused")
}

async fn refused_report(broker: &Broker, request: InvalidateTokenRequest) -> Status {
    broker.tokens().await.invalidate_token(request).await.expect_err("the report is refused")
}

#[tokio::test]
async fn every_rpc_refuses_a_name_that_is_none_and_says_which_rule_it_breaks() {
    let (stage, broker) = broker().await;
    let (mut tokens, mut admin) = (broker.tokens().await, broker.admin().await);
    let bad = [
        ("", "must not be empty"),
        (&"x".repeat(129), "at most 128 bytes"),
        (&"x".repeat(1_000_000), "at most 128 bytes"),
        ("caf\u{e9}", "consists of a-z"),
        ("CI", "consists of a-z"),
        ("a\0b", "consists of a-z"),
        ("a/../b", "segments"),
        ("..", "consists of a-z"),
        ("a//b", "segments"),
        ("a/", "segments"),
    ];
    for (name, rule) in bad {
        let credential = name.to_owned();
        let selector = TokenSelector { credential: credential.clone(), ..Default::default() };
        let report =
            InvalidateTokenRequest { credential, rejected: Some(Rejected::Generation(1)), ..Default::default() };
        let refresh = RefreshTokenRequest { credential: name.into(), ..Default::default() };
        let refusals = [
            tokens.get_token(of(name)).await.expect_err("get").clone(),
            tokens.watch_tokens(WatchTokensRequest { selectors: vec![selector] }).await.expect_err("watch"),
            tokens.invalidate_token(report).await.expect_err("invalidate"),
            admin.describe_credential(DescribeCredentialRequest { name: name.into() }).await.expect_err("describe"),
            admin.refresh_token(refresh).await.expect_err("refresh"),
        ];
        for status in refusals {
            assert_eq!(code_and_reason(&status), (Code::InvalidArgument, "BAD_NAME".into()), "{name:.20?}");
            assert!(status.message().contains(rule), "{name:.20?}: {}", status.message());
        }
    }
    assert_eq!(stage.upstream.calls(), 0);
    broker.stop().await;
}

#[tokio::test]
async fn a_credential_that_is_not_configured_is_not_found() {
    let (_stage, broker) = broker().await;
    let (mut tokens, mut admin) = (broker.tokens().await, broker.admin().await);
    let selector = TokenSelector { credential: "cx".into(), ..Default::default() };
    let report = InvalidateTokenRequest {
        credential: "cx".into(),
        rejected: Some(Rejected::Generation(1)),
        ..Default::default()
    };
    let refusals = [
        tokens.get_token(of("cx")).await.expect_err("get"),
        tokens.watch_tokens(WatchTokensRequest { selectors: vec![selector] }).await.expect_err("watch"),
        tokens.invalidate_token(report).await.expect_err("invalidate"),
        admin.describe_credential(DescribeCredentialRequest { name: "cx".into() }).await.expect_err("describe"),
    ];
    for status in refusals {
        assert_eq!(code_and_reason(&status), (Code::NotFound, "NO_SUCH_CREDENTIAL".into()));
    }
    broker.stop().await;
}

#[tokio::test]
async fn hundreds_of_thousands_of_scopes_are_refused_and_a_message_without_end_is_not_read() {
    let (stage, broker) = broker().await;
    let scopes = |count| GetTokenRequest { scopes: vec!["s".to_owned(); count], ..of("ci") };
    let many = refusal(&broker, scopes(300_000)).await;
    assert_eq!(code_and_reason(&many), (Code::InvalidArgument, "BAD_REQUEST".into()));
    assert_eq!(fields(&many), ["scopes"]);
    // More than 1 MiB: the message is not even decoded.
    let endless = refusal(&broker, scopes(1_000_000)).await;
    assert_eq!(endless.code(), Code::OutOfRange, "{endless:?}");
    assert_eq!(stage.upstream.calls(), 0);
    assert_eq!(
        broker.tokens().await.get_token(of("ci")).await.expect("it lives").into_inner().token.map(|t| t.generation),
        Some(1)
    );
    broker.stop().await;
}

#[tokio::test]
async fn every_field_of_a_request_that_is_wrong_is_named_at_once() {
    let (_stage, broker) = broker().await;
    let wrong = GetTokenRequest {
        scopes: vec!["ok".into(), "a b".into(), String::new(), "x".repeat(257)],
        audience: "two\r\nlines".into(),
        resources: vec!["relative".into(), "https://a.example/#part".into()],
        min_validity: Some(ProtoDuration { seconds: -1, nanos: 0 }),
        ..of("ci")
    };
    let status = refusal(&broker, wrong).await;
    assert_eq!(code_and_reason(&status), (Code::InvalidArgument, "BAD_REQUEST".into()));
    let expected = ["scopes[1]", "scopes[2]", "scopes[3]", "resources[0]", "resources[1]", "audience", "min_validity"];
    assert_eq!(fields(&status), expected);

    let report = InvalidateTokenRequest {
        credential: "ci".into(),
        scopes: vec!["a\"b".into()],
        rejected: None,
        http_status: 99,
        error: "x".repeat(257),
        ..Default::default()
    };
    let status = refused_report(&broker, report).await;
    assert_eq!(code_and_reason(&status), (Code::InvalidArgument, "BAD_REQUEST".into()));
    assert_eq!(fields(&status), ["scopes[0]", "rejected", "http_status", "error"]);
    broker.stop().await;
}

#[tokio::test]
async fn a_duration_that_is_negative_or_none_is_refused() {
    let (_stage, broker) = broker().await;
    for (seconds, nanos) in [(-1, 0), (0, -1), (i64::MIN, 0)] {
        let min_validity = Some(ProtoDuration { seconds, nanos });
        let status = refusal(&broker, GetTokenRequest { min_validity, ..of("ci") }).await;
        assert_eq!(code_and_reason(&status), (Code::InvalidArgument, "BAD_REQUEST".into()), "{seconds} s {nanos} ns");
        assert_eq!(fields(&status), ["min_validity"], "{seconds} s {nanos} ns");
    }
    broker.stop().await;
}

#[tokio::test]
async fn a_validity_that_no_token_of_the_upstream_has_is_refused_without_asking_for_more_of_them() {
    let (stage, broker) = broker().await;
    for seconds in [3601, 86_400, i64::MAX] {
        let min_validity = Some(ProtoDuration { seconds, nanos: 0 });
        let status = refusal(&broker, GetTokenRequest { min_validity, ..of("ci") }).await;
        assert_eq!(code_and_reason(&status), (Code::InvalidArgument, "BAD_REQUEST".into()), "{seconds} s");
        assert_eq!(fields(&status), ["min_validity"], "{seconds} s");
    }
    assert_eq!(stage.upstream.calls(), 1);
    broker.stop().await;
}

#[tokio::test]
async fn a_fingerprint_that_is_none_is_refused_and_an_unknown_one_changes_nothing() {
    let (stage, broker) = broker().await;
    let token = broker.tokens().await.get_token(of("ci")).await.expect("a token").into_inner().token.expect("a token");
    let report = |rejected| InvalidateTokenRequest { credential: "ci".into(), rejected, ..Default::default() };
    let fingerprint = |text: &str| report(Some(Rejected::Fingerprint(text.into())));
    for bad in ["", "xyz", "0123456789abcde", "0123456789abcdefg", "0123456789abcdeg", "caf\u{e9}"] {
        let status = refused_report(&broker, fingerprint(bad)).await;
        assert_eq!(code_and_reason(&status), (Code::InvalidArgument, "BAD_REQUEST".into()), "{bad:?}");
        assert_eq!(fields(&status), ["rejected"], "{bad:?}");
    }
    for bad in [report(None), report(Some(Rejected::Generation(0)))] {
        assert_eq!(fields(&refused_report(&broker, bad).await), ["rejected"]);
    }
    let mut tokens = broker.tokens().await;
    for unknown in [fingerprint("0123456789abcdef"), report(Some(Rejected::Generation(7)))] {
        let answer = tokens.invalidate_token(unknown).await.expect("it is no error").into_inner();
        assert!(!answer.invalidated);
    }
    assert_eq!(stage.upstream.calls(), 1);
    let answer = tokens.invalidate_token(fingerprint(&token.fingerprint)).await.expect("a report").into_inner();
    assert!(answer.invalidated && answer.min_generation == 2, "{answer:?}");
    broker.stop().await;
}

#[tokio::test]
async fn a_watch_needs_selectors_and_not_too_many() {
    let (_stage, broker) = broker().await;
    let mut tokens = broker.tokens().await;
    for count in [0, 1001] {
        let selector = TokenSelector { credential: "ci".into(), ..Default::default() };
        let status =
            tokens.watch_tokens(WatchTokensRequest { selectors: vec![selector; count] }).await.expect_err("refused");
        assert_eq!(code_and_reason(&status), (Code::InvalidArgument, "BAD_REQUEST".into()), "{count}");
        assert_eq!(fields(&status), ["selectors"], "{count}");
    }
    broker.stop().await;
}

#[tokio::test]
async fn the_admin_api_names_what_is_wrong_as_well() {
    let (_stage, broker) = broker().await;
    let mut admin = broker.admin().await;
    let page = ListCredentialsRequest { page_size: 1, page_token: "../etc".into() };
    let status = admin.list_credentials(page).await.expect_err("no such page");
    assert_eq!(
        (code_and_reason(&status), fields(&status)),
        ((Code::InvalidArgument, "BAD_REQUEST".into()), vec!["page_token".into()])
    );
    for target in [None, Some(Target::Pattern(String::new())), Some(Target::Provider(String::new()))] {
        let request = InvalidateCredentialsRequest { target, dry_run: false };
        let status = admin.invalidate_credentials(request).await.expect_err("no target");
        assert_eq!(code_and_reason(&status), (Code::InvalidArgument, "BAD_REQUEST".into()));
        assert_eq!(fields(&status), ["target"]);
    }
    let wrong = RefreshTokenRequest { credential: "ci".into(), scopes: vec![" ".into()], ..Default::default() };
    assert_eq!(fields(&admin.refresh_token(wrong).await.expect_err("a bad scope")), ["scopes[0]"]);
    broker.stop().await;
}
