//! Replays recorded exchanges with upstreams: one directory per case, see `tests/fixtures/exchanges/README.md`.

mod tls;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::Deserialize;
use tokencache_server::{
    config::reader::{Problems, Section},
    provider::{MintFailure, MintRequest, Minted, SharedProvider, registry::ProviderRegistry},
    time::{Clock, Timestamp},
    types::{CredentialName, Secret, Selector, TokenKey},
};
use tokencache_testkit::http::{Reply, ScriptedServer};
use toml::de::DeTable;

/// What no error may show.
const CANARY: &str = "c4n4ry";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    #[serde(default)]
    ask: Ask,
    #[serde(default)]
    now: i64,
    token: Option<Token>,
    failure: Option<Failure>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Ask {
    scopes: Vec<String>,
    audience: Option<String>,
    resources: Vec<String>,
    grant: Option<String>,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Token {
    access_token: String,
    token_type: String,
    lifetime: f64,
    scopes: Option<Vec<String>>,
    #[serde(default)]
    attributes: BTreeMap<String, String>,
    grant: Option<String>,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Failure {
    kind: String,
    message: String,
    retry_after: Option<u64>,
    #[serde(default)]
    in_doubt: bool,
    grant: Option<String>,
}

impl From<Minted> for Token {
    fn from(minted: Minted) -> Self {
        Self {
            access_token: minted.access_token.expose().clone(),
            token_type: minted.token_type,
            lifetime: minted.lifetime.as_secs_f64(),
            scopes: minted.scopes,
            attributes: minted.attributes,
            grant: minted.grant.map(|grant| grant.expose().clone()),
        }
    }
}

impl From<MintFailure> for Failure {
    fn from(failure: MintFailure) -> Self {
        Self {
            kind: failure.error.kind().reason().into(),
            message: failure.error.to_string(),
            retry_after: failure.error.retry_after().as_ref().map(Duration::as_secs),
            in_doubt: failure.in_doubt,
            grant: failure.grant.map(|grant| grant.expose().clone()),
        }
    }
}

#[derive(Debug)]
struct FixedClock(Timestamp);

impl Clock for FixedClock {
    fn now(&self) -> Timestamp {
        self.0
    }

    fn uptime(&self) -> Duration {
        Duration::ZERO
    }
}

#[tokio::test]
async fn every_recorded_exchange_has_its_expected_outcome() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/exchanges");
    let kinds = directories(&root);
    assert_eq!(kinds.iter().filter_map(|kind| kind.file_name()?.to_str()).collect::<Vec<_>>(), ["oauth2", "session"]);
    let cases: Vec<_> = kinds.iter().flat_map(|kind| directories(kind)).collect();
    assert!(cases.len() >= 60, "only {} cases", cases.len());

    let mut failed = Vec::new();
    for case in cases {
        if let Err(difference) = replay(&case).await {
            failed.push(format!("{}: {difference}", case.strip_prefix(&root).unwrap().display()));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

async fn replay(case: &Path) -> Result<(), String> {
    let expect = fs::read(case.join("expect.json")).expect("expect.json");
    let expect: Expect = serde_json::from_slice(&expect).map_err(|error| format!("expect.json: {error}"))?;
    let responses = numbered(case, "response");
    let server = ScriptedServer::with_own_url(|url| responses.iter().map(|text| reply(text, url)).collect())
        .await
        .expect("a server");
    let host = server.url().strip_prefix("http://").expect("an http URL").to_owned();

    let provider = build(case, server.url(), Timestamp::from_millis(expect.now * 1000))?;
    let selector = Selector::new(
        CredentialName::parse("recorded").expect("a valid name"),
        expect.ask.scopes,
        expect.ask.audience,
        expect.ask.resources,
    );
    let request = MintRequest { key: TokenKey::new(selector), grant: expect.ask.grant.map(Secret::from) };
    let minted = provider.mint(request).await;

    if minted.as_ref().is_err_and(|failure| format!("{failure:?}").contains(CANARY)) {
        return Err(format!("an error shows what it must not: {minted:?}"));
    }
    let outcome = minted.map(Token::from).map_err(|failure| Failure::from(failure).with_host(&host));
    let expected = match (expect.token, expect.failure) {
        (Some(token), None) => Ok(token),
        (None, Some(failure)) => Err(failure),
        _ => return Err("expect.json has not exactly one of `token` and `failure`".into()),
    };
    if outcome != expected {
        return Err(format!("expected {expected:?}, found {outcome:?}"));
    }
    compare_requests(case, &server.requests(), responses.len())
}

impl Failure {
    /// The same with the name of the upstream instead of its address.
    fn with_host(self, host: &str) -> Self {
        Self { message: self.message.replace(host, "UPSTREAM"), ..self }
    }
}

fn build(case: &Path, url: &str, now: Timestamp) -> Result<SharedProvider, String> {
    let keys = fs::read_to_string(case.join("credential.toml")).expect("credential.toml").replace("UPSTREAM", url);
    let problems = Problems::new("credential.toml", &keys, case.to_owned());
    let table = DeTable::parse(&keys).map_err(|error| error.to_string())?;
    let section = Section::new(&problems, "credentials.recorded", table.get_ref(), 0);
    let built = ProviderRegistry::builtin().with_clock(Arc::new(FixedClock(now))).build(&section);
    section.finish();
    let messages = problems.into_messages();
    built.filter(|_| messages.is_empty()).map(|built| built.provider).ok_or_else(|| messages.join("\n"))
}

/// `1.<kind>`, `2.<kind>` and so on.
fn numbered(case: &Path, kind: &str) -> Vec<String> {
    (1..).map_while(|n| fs::read_to_string(case.join(format!("{n}.{kind}"))).ok()).collect()
}

fn reply(text: &str, url: &str) -> Reply {
    let text = text.replace("http://UPSTREAM", url);
    let (head, body) = text.split_once("\n\n").expect("a head and a body");
    Reply::Bytes(format!("{}\r\n\r\n{body}", head.replace('\n', "\r\n")).into())
}

fn compare_requests(case: &Path, requests: &[String], expected: usize) -> Result<(), String> {
    if requests.len() != expected {
        return Err(format!("expected {expected} requests, found {}", requests.len()));
    }
    for (n, request) in requests.iter().enumerate() {
        let Ok(wanted) = fs::read_to_string(case.join(format!("{}.request", n + 1))) else { continue };
        let (head, body) = request.split_once("\r\n\r\n").expect("a whole request");
        let (wanted_head, wanted_body) = wanted.split_once("\n\n").unwrap_or((wanted.trim_end(), ""));
        let has_line = |line: &str| head.split("\r\n").any(|found| found == line);
        if let Some(missing) = wanted_head.lines().find(|line| !has_line(line)) {
            return Err(format!("request {}: no line {missing:?} in {head:?}", n + 1));
        }
        if body != wanted_body.trim_end_matches('\n') {
            return Err(format!("request {}: expected the body {wanted_body:?}, found {body:?}", n + 1));
        }
    }
    Ok(())
}

fn directories(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).expect("a directory").map(|entry| entry.expect("an entry").path());
    let mut directories: Vec<_> = entries.filter(|path| path.is_dir()).collect();
    directories.sort();
    directories
}
