//! Answers of a token endpoint.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use http::{HeaderMap, StatusCode, header::RETRY_AFTER};
use serde_json::Value;
use tokencache_server::{
    error::ErrorKind,
    provider::{
        MintFailure, MintRequest, Minted,
        http::{Answer, BodyFault},
        oauth2::fuzzing::AnswerReader,
    },
    time::Timestamp,
    types::{CredentialName, Secret, Selector, TokenKey},
};
use zeroize::Zeroizing;

use crate::Standing;

const NOW: i64 = 1_800_000_000;

const STATUSES: [u16; 8] = [200, 200, 201, 400, 401, 403, 429, 503];

const FAULTS: [Option<BodyFault>; 4] = [None, None, None, Some(BodyFault::Truncated)];

const MOST: Duration = Duration::from_secs(12 * 3600);

/// The refresh token that was sent.
const SENT: &str = "sent";

/// All that an error says behind the host and the status. Nothing in it comes from the body.
const WORDS: [&str; 8] = [
    " with a body that is not JSON",
    " with a body that breaks off",
    " with an access_token that is not visible ASCII or has spaces at its ends",
    " without an access_token",
    " with a token_type other than Bearer, DPoP; `token_types` can allow it",
    " invalid_grant: the refresh token is no longer valid",
    " ",
    "",
];

const CODES: [&str; 7] = [
    "invalid_grant",
    "invalid_client",
    "invalid_request",
    "invalid_scope",
    "invalid_target",
    "unauthorized_client",
    "unsupported_grant_type",
];

const KEYS: &str = r#"
client_id = "ci"
client_secret = { env = "X" }
token_url = "https://idp.example/token"
max_lifetime = "12h"
default_lifetime = "30m"
token_types = ["Bearer", "DPoP"]
attributes = { url = "/instance_url", all = "/deep/1", id = "/id" }
"#;

struct Bench {
    refreshing: AnswerReader,
    plain: AnswerReader,
    key: TokenKey,
}

static BENCH: LazyLock<Bench> = LazyLock::new(|| {
    let reader = |grant: &str| {
        let clock = Arc::new(Standing(Timestamp::from_millis(NOW * 1000)));
        AnswerReader::new(&format!("{KEYS}{grant}"), clock).expect("a provider")
    };
    let name = CredentialName::parse("ci").expect("a name");
    Bench {
        refreshing: reader("grant = \"refresh_token\"\nrefresh_token = { env = \"Y\" }\n"),
        plain: reader("grant = \"client_credentials\"\n"),
        key: TokenKey::new(Selector::new(name, vec![], None, vec![])),
    }
});

/// A byte for the grant, the status and what befell the body, then the body.
pub fn check(input: &[u8]) {
    let Some((way, body)) = crate::way_of(input, 64) else { return };
    let refreshing = way % 2 == 1;
    let status = StatusCode::from_u16(STATUSES[usize::from(way / 2 % 8)]).expect("a status");
    let fault = FAULTS[usize::from(way / 16)];
    let headers = HeaderMap::from_iter([(RETRY_AFTER, "7".parse().expect("a value"))]);
    let answer = Answer { host: "idp.example".into(), status, headers, body: Zeroizing::new(body.to_vec()), fault };
    let grant = refreshing.then(|| Secret::from(SENT));
    let request = MintRequest { key: BENCH.key.clone(), grant };
    let reader = if refreshing { &BENCH.refreshing } else { &BENCH.plain };
    let result = reader.read(&answer, &request);

    let document = serde_json::from_slice::<Value>(body).ok();
    check_grant(&result, refreshing && status.is_success(), document.as_ref());
    match &result {
        Ok(minted) => {
            assert!(status.is_success() && fault.is_none());
            check_minted(minted, document.as_ref().expect("JSON"));
        }
        Err(failure) => check_failure(failure, &answer, refreshing),
    }
}

/// A refresh token in a success is never lost, whatever else is wrong, and none is made up.
fn check_grant(result: &Result<Minted, MintFailure>, expected: bool, document: Option<&Value>) {
    let grant = match result {
        Ok(minted) => minted.grant.as_ref(),
        Err(failure) => failure.grant.as_ref(),
    };
    assert!(expected || grant.is_none());
    let told = document.and_then(|all| all.as_object()?.get("refresh_token")?.as_str());
    if let Some(told) = told.filter(|told| expected && !matches!(*told, "" | SENT)) {
        assert_eq!(grant.map(|grant| grant.expose().as_str()), Some(told));
    }
    assert!(grant.is_none_or(|grant| !matches!(grant.expose().as_str(), "" | SENT)));
}

fn check_minted(minted: &Minted, document: &Value) {
    let token = minted.access_token.expose();
    assert_eq!(document["access_token"], token.as_str());
    let visible = |b: u8| (0x20..0x7f).contains(&b);
    assert!(!token.is_empty() && token.bytes().all(visible) && !token.starts_with(' ') && !token.ends_with(' '));
    assert!(matches!(minted.token_type.as_str(), "Bearer" | "DPoP"));
    assert!(minted.lifetime <= MOST);
    if let Some(seconds) = document["expires_in"].as_u64().filter(|_| token.split('.').count() != 3) {
        assert_eq!(minted.lifetime, Duration::from_secs(seconds).min(MOST));
    }
    for scope in minted.scopes.iter().flatten() {
        assert!(!scope.is_empty() && !scope.contains(|c: char| c.is_ascii_whitespace()), "{scope:?}");
    }
    assert!(minted.scopes.iter().all(|scopes| scopes.is_sorted_by(|a, b| a < b)));
    assert!(minted.attributes.keys().all(|name| matches!(name.as_str(), "url" | "all" | "id")));
    // It stands in Debug where it also was the name of a scope.
    if token.len() > 24 && !minted.scopes.iter().flatten().any(|scope| scope.contains(token.as_str())) {
        assert!(!format!("{minted:?}").contains(token.as_str()));
    }
}

fn check_failure(failure: &MintFailure, answer: &Answer, refreshing: bool) {
    let (status, kind) = (answer.status.as_u16(), failure.error.kind());
    assert!(refreshing || !failure.in_doubt);
    assert!(failure.grant.is_none() || !failure.in_doubt);
    let shown = failure.error.to_string();
    let said = shown.strip_prefix(&format!("idp.example answered {status}")).expect("the host and the status");
    let code = CODES.into_iter().find(|code| said.ends_with(code));
    let words = code.map_or(said, |code| said.strip_suffix(code).expect("a code"));
    let words = words.strip_suffix(" but with the error ").unwrap_or(words);
    assert!(WORDS.contains(&words), "{shown}");
    // What nobody said is never permanent.
    let named = code.is_some() || said.contains("invalid_grant");
    assert!(named || said.contains("token_type") || !kind.is_permanent(), "{shown}");
    let lost = kind == ErrorKind::NeedsReauth;
    assert!(!lost || (refreshing && matches!(status, 400 | 401 | 403) && answer.fault.is_none()), "{shown}");
}
