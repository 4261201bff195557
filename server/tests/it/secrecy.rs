//! A canary: no secret is in the log at its most talkative level, in a metric, or in an error.

use std::{
    collections::BTreeSet,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokencache_client::{Error, GetToken, Rejection, Target};
use tracing::{Level, subscriber::DefaultGuard};

use crate::{
    broker::{Broker, Over, Stage, eventually},
    upstream::{CLIENT_SECRET, Fault},
};

/// Stands in bodies of the upstream that are no tokens.
const CANARY: &str = "c4n4ry";

/// What is logged on this thread, on which the whole broker of a test runs.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn listen(&self) -> DefaultGuard {
        let log = self.clone();
        let everything = tracing_subscriber::fmt().with_max_level(Level::TRACE).with_ansi(false);
        tracing::subscriber::set_default(everything.with_writer(move || log.clone()).finish())
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Much of what can happen to tokens. The errors that there were.
async fn live_through(stage: &Stage, broker: &Broker) -> Vec<Error> {
    let (client, operator) = (broker.library(), broker.operator());
    let mut errors = vec![];
    for name in ["ci", "crm/prod", "post", "static"] {
        let mut events = client.watch([name]).await.expect("a watch");
        events.next().await.expect("an event").expect("a token");
        client.invalidate(Rejection::of_generation(name, 1).description("refused")).await.expect("a report");
        errors.extend(client.get_token(GetToken::of(name).rejected_generation(1)).await.err());
    }
    let html = format!("<html>{CANARY}</html>");
    let oddly_typed = format!(r#"{{"access_token":"{CANARY}","token_type":"{CANARY}"}}"#);
    for fault in [
        Fault::json(html),
        Fault::json(oddly_typed),
        Fault::BreakOff(CANARY.into()),
        Fault::status(503).with_body(CANARY),
        Fault::refusal("invalid_client"),
        Fault::Cut,
    ] {
        stage.clock.advance(Duration::from_secs(1));
        stage.upstream.spoil_attempt(fault);
        errors.push(operator.refresh_token("ci").await.expect_err("it is worth nothing"));
    }
    stage.upstream.then(Fault::refusal("invalid_grant"));
    stage.clock.advance(Duration::from_secs(1));
    errors.push(operator.refresh_token("crm/prod").await.expect_err("the grant is lost"));
    operator.invalidate_credentials(Target::Pattern("post".into()), false).await.expect("an answer");
    let calls = stage.upstream.calls();
    eventually("it is replaced", async || client.get_token(GetToken::of("post")).await.is_ok()).await;
    assert!(stage.upstream.calls() > calls);
    errors
}

async fn no_secret_is_written_down(over: Over) {
    const FIXED: &str = "a-f1xed-s3cr3t";
    let log = Log::default();
    let listening = log.listen();
    let stage = Stage::new(over).await.with_sinks("[{ file = \"audit.jsonl\" }, \"store\"]");
    std::fs::write(stage.path("api.token"), FIXED).expect("a file");
    let credentials = [
        stage.credential("ci", ""),
        stage.credential("post", "extra_headers = { x-tenant = { file = \"api.token\" } }\n"),
        stage.rotating("crm/prod"),
        "[credentials.static]\nprovider = \"fixed\"\ntoken = { file = \"api.token\" }\n".into(),
    ];
    let broker = stage.start(&credentials.concat()).await;
    let errors = live_through(&stage, &broker).await;
    let metrics = broker.http("/metrics").await.text().await.expect("text");
    broker.stop().await;
    drop(listening);

    let mut secrets = stage.upstream.secrets();
    assert!(secrets.len() >= 8, "only {} tokens were issued", secrets.len());
    secrets.extend([CLIENT_SECRET, CANARY, FIXED].map(str::to_owned));
    let audit = std::fs::read_to_string(stage.path("audit.jsonl")).expect("the audit log");
    assert!(audit.lines().count() > 20 && audit.contains("token_issued"), "{audit}");
    let log = log.text();
    let targets = ["tokencache_server", "tonic", "hyper_util", "h2"];
    assert!(targets.iter().all(|target| log.contains(target)), "the log is not complete: {} bytes", log.len());
    let errors = format!("{errors:?}");
    let lines = log.lines().chain(metrics.lines()).chain(audit.lines()).chain([errors.as_str()]);
    let telltale: BTreeSet<_> =
        lines.filter(|line| secrets.iter().any(|secret| line.contains(secret.as_str()))).collect();
    assert!(telltale.is_empty(), "{} lines with secrets, such as {:?}", telltale.len(), telltale.first());
}

#[tokio::test]
async fn no_secret_is_in_a_log_a_metric_or_an_error_over_sqlite() {
    no_secret_is_written_down(Over::Sqlite).await;
}

#[tokio::test]
async fn no_secret_is_in_a_log_a_metric_or_an_error_over_postgres() {
    no_secret_is_written_down(Over::Postgres).await;
}
