//! Answers of the token endpoint that are worth nothing: each has an error of its own, and the token at hand stays.

use std::time::Duration;

use tokencache_client::{AdminClient, GetToken, Token};

use crate::{
    broker::{Broker, Over, Stage},
    upstream::Fault,
};

/// What no error may show: it stands in the body of every answer here.
const CANARY: &str = "c4n4ry";

fn token_with(field: &str) -> Fault {
    Fault::json(format!(r#"{{"access_token":"{CANARY}","token_type":"Bearer",{field}}}"#))
}

/// Five megabytes in thirty kilobytes: a letter, and again and again the same 258 ones (RFC 1951 section 3.2.6).
fn gzip_bomb() -> Vec<u8> {
    let again = "11000101".to_owned() + "00000";
    let bits = format!("110{}{}0000000", "10101000", again.repeat(20_000));
    let byte = |bits: &[u8]| bits.iter().rev().fold(0, |byte, bit| byte << 1 | (bit - b'0'));
    let header = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let checksum_and_length = [0; 8];
    header.into_iter().chain(bits.as_bytes().chunks(8).map(byte)).chain(checksum_and_length).collect()
}

/// What is wrong, the answer, the reason of the error, and a part of its text.
fn unusable() -> Vec<(&'static str, Fault, &'static str, &'static str)> {
    let huge = format!(r#"{{"access_token":"{CANARY}","pad":"{}"}}"#, "x".repeat(128 * 1024));
    let deep = format!(r#"{{"access_token":"{CANARY}","x":{}1{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
    let html = format!("<html>{CANARY}</html>");
    let packed = Fault::json(gzip_bomb()).with_header("content-encoding", "gzip");
    let moved = Fault::status(302).with_header("location", "/elsewhere").with_body(CANARY);
    let two_lines = format!(r#"{{"access_token":"{CANARY}\r\nx-admin: 1","token_type":"Bearer"}}"#);
    let mac = format!(r#"{{"access_token":"{CANARY}","token_type":"{CANARY}-mac"}}"#);
    let cut_off = format!(r#"{{"access_token":"{CANARY}"#);
    let no_token = format!(r#"{{"token":"{CANARY}","token_type":"Bearer"}}"#);
    let empty_token = format!(r#"{{"access_token":"","x":"{CANARY}"}}"#);
    let number = format!(r#"{{"access_token":7,"x":"{CANARY}"}}"#);
    vec![
        ("huge", Fault::json(huge), "UPSTREAM_DOWN", "more than 64 KiB"),
        ("deep", Fault::json(deep), "UPSTREAM_DOWN", "not JSON"),
        ("truncated", Fault::BreakOff(cut_off.clone().into()), "UPSTREAM_DOWN", "breaks off"),
        ("half an object", Fault::json(cut_off), "UPSTREAM_DOWN", "not JSON"),
        (
            "HTML",
            Fault::status(200).with_header("content-type", "text/html").with_body(html),
            "UPSTREAM_DOWN",
            "not JSON",
        ),
        ("gzip", packed, "UPSTREAM_DOWN", "compressed body"),
        ("empty", Fault::json(""), "UPSTREAM_DOWN", "not JSON"),
        ("an array", Fault::json(format!(r#"["{CANARY}"]"#)), "UPSTREAM_DOWN", "without an access_token"),
        ("no token", Fault::json(no_token), "UPSTREAM_DOWN", "without an access_token"),
        ("an empty token", Fault::json(empty_token), "UPSTREAM_DOWN", "without an access_token"),
        ("a number as a token", Fault::json(number), "UPSTREAM_DOWN", "without an access_token"),
        ("CR and LF in the token", Fault::json(two_lines), "UPSTREAM_DOWN", "not visible ASCII"),
        ("another type of token", Fault::json(mac), "MISCONFIGURED", "token_type other than Bearer"),
        ("expired at once", token_with(r#""expires_in":0"#), "UPSTREAM_DOWN", "already expired"),
        ("a negative lifetime", token_with(r#""expires_in":-3600"#), "UPSTREAM_DOWN", "already expired"),
        ("a negative string", token_with(r#""expires_in":"-1""#), "UPSTREAM_DOWN", "already expired"),
        ("a number that no float holds", token_with(r#""expires_in":1e999"#), "UPSTREAM_DOWN", "not JSON"),
        ("moved", moved, "UPSTREAM_DOWN", "redirects are not followed"),
        ("cut", Fault::Cut, "UPSTREAM_DOWN", "ended without a valid answer"),
        ("a refused client", Fault::refusal("invalid_client"), "MISCONFIGURED", "invalid_client"),
        ("an unknown refusal", Fault::refusal(CANARY), "UPSTREAM_DOWN", "answered 400"),
        ("down", Fault::status(503).with_body(CANARY), "UPSTREAM_DOWN", "answered 503"),
    ]
}

/// Lets the upstream answer so, and orders a new token.
async fn refresh_with(stage: &Stage, operator: &AdminClient, fault: Fault) -> tokencache_client::Result<u64> {
    // Attempts are a second apart at least.
    stage.clock.advance(Duration::from_secs(1));
    stage.upstream.spoil_attempt(fault);
    operator.refresh_token("ci").await.map(|token| token.generation)
}

async fn served(broker: &Broker) -> Token {
    broker.library().get_token(GetToken::of("ci")).await.expect("a token is served").token.expect("it is in the answer")
}

#[tokio::test]
async fn every_answer_that_is_worth_nothing_has_its_own_error_and_the_token_at_hand_stays() {
    let stage = Stage::new(Over::Sqlite).await;
    let broker = stage.start(&stage.credential("ci", "")).await;
    let (operator, first) = (broker.operator(), served(&broker).await);
    for (what, fault, reason, text) in unusable() {
        let error = refresh_with(&stage, &operator, fault).await.expect_err(what);
        assert_eq!(error.reason(), Some(reason), "{what}: {error:?}");
        assert!(error.message().contains(text), "{what}: {error:?}");
        assert!(!format!("{error:?}").contains(CANARY), "{what}: {error:?}");
        let description = operator.describe_credential("ci").await.expect("a description");
        assert!(!format!("{description:?}").contains(CANARY), "{what}: {description:?}");
        assert_eq!(served(&broker).await.fingerprint, first.fingerprint, "{what}");
    }
    stage.clock.advance(Duration::from_secs(1));
    assert_eq!(operator.refresh_token("ci").await.expect("the upstream works again").generation, 2);
    assert_eq!(served(&broker).await.generation, 2);
    broker.stop().await;
}

#[tokio::test]
async fn a_lifetime_is_read_however_it_is_written() {
    const YEARS: u64 = 10 * 365 * 24 * 3600;
    let stage = Stage::new(Over::Memory).await;
    let broker = stage.start(&stage.credential("ci", "default_lifetime = \"7m\"\n")).await;
    let operator = broker.operator();
    let cases = [
        (r#""expires_in":600"#, 600),
        (r#""expires_in":"600""#, 600),
        (r#""expires_in":600.0"#, 600),
        (r#""expires_in":" 6e2 ""#, 600),
        (r#""expires_in":1e30"#, YEARS),
        (r#""expires_in":"1e30""#, YEARS),
        (r#""expires_in":18446744073709551615"#, YEARS),
        (r#""expires_in":null"#, 420),
        (r#""expires_in":"soon""#, 420),
        (r#""scope":"a b""#, 420),
    ];
    for (generation, (field, seconds)) in (1..).zip(cases) {
        let answer = format!(r#"{{"access_token":"at-{generation}","token_type":"bearer",{field}}}"#);
        let refreshed = refresh_with(&stage, &operator, Fault::json(answer)).await;
        assert_eq!(refreshed.expect(field), generation, "{field}");
        let token = served(&broker).await;
        let lifetime = token.expires_at.duration_since(token.issued_at.expect("told")).expect("in this order");
        // Counted from before the request was sent.
        assert!(lifetime <= Duration::from_secs(seconds) && lifetime > Duration::from_secs(seconds - 60), "{field}");
        assert_eq!(token.token_type, "Bearer", "spelled as it is served");
    }
    broker.stop().await;
}

#[tokio::test]
async fn an_upstream_that_repeats_itself_is_not_asked_in_a_loop() {
    let stage = Stage::new(Over::Memory).await;
    let broker = stage.start(&stage.credential("ci", "")).await;
    let same = || Fault::json(r#"{"access_token":"the-same","token_type":"Bearer","expires_in":3600}"#);
    let operator = broker.operator();
    assert_eq!(refresh_with(&stage, &operator, same()).await.expect("the first one"), 1);
    let error = refresh_with(&stage, &operator, same()).await.expect_err("nothing was gained");
    assert_eq!(error.reason(), Some("UPSTREAM_DOWN"));
    assert!(error.message().contains("the same token again"), "{error}");
    assert_eq!(served(&broker).await.generation, 1);
    assert_eq!(stage.upstream.calls(), 2);
    broker.stop().await;
}
