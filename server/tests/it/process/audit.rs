//! The audit log of a real process: no kill loses an event of a token that was handed out, and a change is found.

use std::{
    collections::HashMap,
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;
use tokencache_proto::v1::{GetTokenRequest, token_service_client::TokenServiceClient};
use tokio::time::{sleep, timeout};
use tonic::{Request, transport::Channel};

use super::{Daemon, FREE_PORTS, Outcome, tokencached};

const CALLERS: usize = 32;

/// How many tokens are handed out in a round before the broker is killed.
const TOKENS: usize = 300;

const PATIENCE: Duration = Duration::from_secs(60);

fn configuration(sinks: &str) -> String {
    format!(
        r#"{FREE_PORTS}
[audit]
sinks = {sinks}

[credentials.random]
provider = "fixed"
token = {{ command = ["sh", "-c", "od -An -N16 -tx1 /dev/urandom | tr -d ' \\n'"] }}
"#
    )
}

/// A token that a client has received: the trace of its call, its generation and its fingerprint.
type Received = (String, u64, String);

/// Asks for tokens, each in a trace of its own, until the broker is gone.
async fn call_until_it_is_gone(
    channel: Channel,
    caller: usize,
    round: usize,
    count: Arc<AtomicUsize>,
) -> Vec<Received> {
    let mut client = TokenServiceClient::new(channel);
    let mut received = vec![];
    for call in 1.. {
        let trace = format!("{round:08x}{caller:08x}{call:016x}");
        // A few keys, so that generations and misses are among them.
        let scopes = vec![format!("s{}", (caller + call) % 8)];
        let mut request = Request::new(GetTokenRequest { credential: "random".into(), scopes, ..Default::default() });
        let header = format!("00-{trace}-00f067aa0ba902b7-01").parse().expect("ASCII");
        request.metadata_mut().insert("traceparent", header);
        let Ok(answer) = client.get_token(request).await else { break };
        let token = answer.into_inner().token.expect("a token");
        received.push((trace, token.generation, token.fingerprint));
        count.fetch_add(1, Ordering::Relaxed);
    }
    received
}

/// One life of the broker, which ends by SIGKILL under load. What its clients had received by then.
async fn round(directory: &Path, number: usize) -> Vec<Received> {
    let daemon = Daemon::serve(directory, &configuration("[{ file = \"audit.jsonl\" }]")).await;
    let address = format!("http://{}", daemon.client_address());
    let count = Arc::<AtomicUsize>::default();
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let channel = Channel::from_shared(address.clone()).expect("a URI").connect_lazy();
            tokio::spawn(call_until_it_is_gone(channel, caller, number, Arc::clone(&count)))
        })
        .collect();
    let enough = async {
        while count.load(Ordering::Relaxed) < TOKENS {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, enough).await.expect("tokens are handed out");
    assert_eq!(daemon.kill().code(), None, "killed by a signal");
    let mut received = vec![];
    for caller in callers {
        received.extend(caller.await.expect("no panic"));
    }
    received
}

fn verify(directory: &Path, arguments: &[&str]) -> Outcome {
    Outcome::of(tokencached().current_dir(directory).args(["audit", "verify"]).args(arguments))
}

/// Kills it so many times, and looks for an event of each token that was received.
async fn no_token_is_without_an_event(rounds: usize) {
    let directory = TempDir::new().expect("a directory");
    let mut received = vec![];
    for number in 0..rounds {
        received.extend(round(directory.path(), number).await);
    }
    let text = fs::read_to_string(directory.path().join("audit.jsonl")).expect("the audit file");
    let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let issued: HashMap<_, _> = events
        .filter(|event| event["kind"] == "token_issued")
        .map(|event| (event["trace"].as_str().unwrap_or_default().to_owned(), event))
        .collect();
    let is_recorded = |(trace, generation, fingerprint): &&Received| {
        let event = issued.get(trace);
        event.is_some_and(|event| event["generation"] == *generation && event["fingerprint"] == fingerprint.as_str())
    };
    let recorded = received.iter().filter(is_recorded).count();
    // For whoever measures: `--nocapture` shows it.
    let seen =
        format!("{rounds} kills: {} tokens received, {recorded} recorded, {} events", received.len(), issued.len());
    std::io::Write::write_all(&mut std::io::stdout(), format!("{seen}\n").as_bytes()).expect("somebody reads it");
    assert!(received.len() >= rounds * TOKENS);
    assert_eq!(received.len() - recorded, 0, "tokens without an event");
    let verified = verify(directory.path(), &["audit.jsonl"]);
    assert_eq!(verified.code(), Some(0), "{verified:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_under_load_leaves_no_token_without_an_event() {
    no_token_is_without_an_event(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: cargo test --workspace --test it -- --ignored --nocapture a_hundred_kills"]
async fn a_hundred_kills_under_load_leave_no_token_without_an_event() {
    no_token_is_without_an_event(100).await;
}

async fn get(daemon: &Daemon) -> Result<(), tokencache_client::Error> {
    daemon.client().get_token(tokencache_client::GetToken::of("random")).await.map(drop)
}

#[tokio::test]
async fn verification_finds_a_change_in_a_file_and_in_the_store_and_says_where() {
    let directory = TempDir::new().expect("a directory");
    let daemon = Daemon::serve(directory.path(), &configuration("[{ file = \"audit.jsonl\" }, \"store\"]")).await;
    for _ in 0..5 {
        get(&daemon).await.expect("a token");
    }
    assert_eq!(daemon.stop().await.code(), Some(0));
    for arguments in [["audit.jsonl"].as_slice(), &["--config", "tokencached.toml"]] {
        let whole = verify(directory.path(), arguments);
        assert_eq!((whole.code(), whole.stdout.contains("no end")), (Some(0), false), "{arguments:?}: {whole:?}");
    }
    let file = directory.path().join("audit.jsonl");
    let text = fs::read_to_string(&file).expect("text");
    assert!(text.lines().count() >= 7, "{text}");
    let forged: Vec<_> =
        text.lines().map(|line| line.replace("\"subject\":\"anonymous\"", "\"subject\":\"nobody\"")).collect();
    fs::write(&file, forged.join("\n") + "\n").expect("a file");
    let found = verify(directory.path(), &["audit.jsonl"]);
    assert_eq!(found.code(), Some(1), "{found:?}");
    assert!(found.stdout.contains("audit.jsonl:") && found.stdout.contains("damaged"), "{found:?}");

    let lines: Vec<_> = text.lines().enumerate().filter(|(i, _)| *i != 2).map(|(_, line)| line).collect();
    fs::write(&file, lines.join("\n") + "\n").expect("a file");
    let found = verify(directory.path(), &["audit.jsonl"]);
    assert_eq!(
        (found.code(), found.stdout.contains("audit.jsonl:3: event 3 follows event 1")),
        (Some(1), true),
        "{found:?}"
    );
}

#[tokio::test]
async fn a_file_that_was_moved_away_is_opened_anew_on_sighup() {
    let directory = TempDir::new().expect("a directory");
    let mut daemon = Daemon::serve(directory.path(), &configuration("[{ file = \"audit.jsonl\" }]")).await;
    get(&daemon).await.expect("a token");
    let (file, moved) = (directory.path().join("audit.jsonl"), directory.path().join("audit.jsonl.1"));
    fs::rename(&file, &moved).expect("a new name");
    daemon.hang_up();
    daemon.until_logged("the audit file was opened anew").await;
    get(&daemon).await.expect("a token");
    assert_eq!(daemon.stop().await.code(), Some(0));
    let verified = verify(directory.path(), &["audit.jsonl.1", "audit.jsonl"]);
    assert_eq!(verified.code(), Some(0), "{verified:?}");
    assert_eq!(verify(directory.path(), &["audit.jsonl"]).code(), Some(1), "the older one is missing");
    assert_eq!(verify(directory.path(), &["--partial", "audit.jsonl"]).code(), Some(0));
}

#[tokio::test]
async fn a_second_broker_does_not_write_to_the_same_file() {
    let directory = TempDir::new().expect("a directory");
    let configuration = configuration("[{ file = \"audit.jsonl\" }]");
    let daemon = Daemon::serve(directory.path(), &configuration).await;
    let refused = Outcome::of(&mut Daemon::command(directory.path(), &configuration));
    assert_eq!(refused.code(), Some(1), "{refused:?}");
    assert!(refused.stderr.contains("another process writes to it"), "{refused:?}");
    assert_eq!(daemon.stop().await.code(), Some(0));
}

#[tokio::test]
async fn a_full_disk_refuses_tokens_and_lets_the_broker_end() {
    let directory = TempDir::new().expect("a directory");
    let daemon = Daemon::serve(directory.path(), &configuration("[{ file = \"/dev/full\" }]")).await;
    let error = get(&daemon).await.expect_err("no event, no token");
    assert_eq!(error.reason(), Some("AUDIT_DOWN"), "{error:?}");
    assert!(daemon.metrics().await.contains("tokencache_audit_failures_total{sink=\"file\"}"));
    let outcome = daemon.stop().await;
    assert_eq!(outcome.code(), Some(0), "{outcome:?}");
    assert!(outcome.stderr.contains("the audit log cannot be written"), "{outcome:?}");
}
