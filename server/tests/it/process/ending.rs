//! How the process ends: what was begun is finished, and nothing keeps it alive for ever.

use std::{net::TcpListener, os::unix::fs::PermissionsExt as _, path::Path};

use sqlx::{Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;
use tokencache_client::{Error, GetToken};
use tokencache_testkit::http::ClosedPort;
use tokio::net::TcpStream;

use super::{
    Daemon, Outcome,
    daemon::{FREE_PORTS, http_client},
    upstream::{Upstream, minted},
};

/// A credential whose upstream answers when the test says so, and one that needs none.
fn configuration(drain_timeout: &str, upstream: &Upstream) -> String {
    format!(
        r#"{FREE_PORTS}drain_timeout = "{drain_timeout}"

[credentials.slow]
provider = "oauth2"
grant = "client_credentials"
token_url = "{url}"
client_id = "c"
timeout = "5m"
http = {{ timeout = "5m" }}

[credentials.rotating]
provider = "oauth2"
grant = "refresh_token"
token_url = "{url}"
client_id = "c"
refresh_token = {{ command = ["echo", "rt-0"] }}
timeout = "5m"
http = {{ timeout = "5m" }}

[credentials.static]
provider = "fixed"
token = {{ command = ["echo", "t0k3n"] }}
"#,
        url = upstream.url()
    )
}

fn directory() -> TempDir {
    TempDir::new().expect("a directory")
}

async fn serve(directory: &TempDir, drain_timeout: &str, upstream: &Upstream) -> Daemon {
    Daemon::serve(directory.path(), &configuration(drain_timeout, upstream)).await
}

/// The reason that an error gives to machines.
fn reason(error: &Error) -> &str {
    error.reason().unwrap_or_else(|| panic!("no reason: {error:?}"))
}

#[tokio::test]
async fn calls_in_progress_are_finished_and_watchers_are_told() {
    let (directory, upstream) = (directory(), Upstream::start([minted("at-1", "")]).await);
    let mut daemon = serve(&directory, "50s", &upstream).await;
    let idle = daemon.client();
    idle.get_token(GetToken::of("static")).await.expect("a token");
    let mut watch = daemon.client().watch(["static"]).await.expect("a stream");
    watch.next().await.expect("an event").expect("the current token");
    let caller = daemon.client();
    let waiting = tokio::spawn(async move { caller.get_token(GetToken::of("slow")).await });
    upstream.until_asked(1).await;

    daemon.terminate();
    let farewell = watch.next().await.expect("an event").expect_err("no more tokens");
    assert_eq!(reason(&farewell), "DRAINING");
    daemon.until_logged("draining").await;
    upstream.release(1);
    let token = waiting.await.expect("the task ends").expect("the call is finished").token.expect("a token");
    assert_eq!(token.access_token.expose(), "at-1");

    let outcome = daemon.end().await;
    assert_eq!(outcome.code(), Some(0), "{outcome:?}");
    assert!(outcome.stderr.contains("\"message\":\"ended\""), "{outcome:?}");
    drop(idle);
}

#[tokio::test]
async fn what_was_minted_during_the_end_is_kept() {
    let (directory, upstream) = (directory(), Upstream::start([minted("at-1", "")]).await);
    let mut daemon = serve(&directory, "50s", &upstream).await;
    let caller = daemon.client();
    let waiting = tokio::spawn(async move { caller.get_token(GetToken::of("slow")).await });
    upstream.until_asked(1).await;
    // Nobody waits for it any more.
    waiting.abort();
    daemon.terminate();
    daemon.until_logged("draining").await;
    upstream.release(1);
    assert_eq!(daemon.end().await.code(), Some(0));

    let daemon = serve(&directory, "50s", &upstream).await;
    let token = daemon.client().get_token(GetToken::of("slow")).await.expect("an answer").token.expect("a token");
    assert_eq!((token.access_token.expose(), token.generation), ("at-1", 1));
}

#[tokio::test]
async fn a_connection_that_says_nothing_does_not_keep_it_alive() {
    let (directory, upstream) = (directory(), Upstream::start([]).await);
    let daemon = serve(&directory, "1s", &upstream).await;
    let mut silent = Vec::new();
    for address in [daemon.client_address(), daemon.admin_address(), daemon.metrics_address().expect("it listens")] {
        silent.push(TcpStream::connect(address).await.expect("a connection"));
    }
    let outcome = daemon.stop().await;
    assert_eq!(outcome.code(), Some(0), "{outcome:?}");
}

#[tokio::test]
async fn told_to_end_twice_it_does_not_wait_for_what_is_unfinished() {
    let (directory, upstream) = (directory(), Upstream::start([]).await);
    let mut daemon = serve(&directory, "1h", &upstream).await;
    let caller = daemon.client();
    let waiting = tokio::spawn(async move { caller.get_token(GetToken::of("slow")).await });
    upstream.until_asked(1).await;
    daemon.terminate();
    daemon.until_logged("draining").await;
    daemon.terminate();
    let outcome = daemon.end().await;
    assert_eq!(outcome.code(), Some(1), "{outcome:?}");
    let expected = "tokencached: not everything was finished in time: 1 flights were left\n";
    assert!(outcome.stderr.ends_with(expected), "{outcome:?}");
    waiting.await.expect("the task ends").expect_err("there was no answer");
}

/// Begins a call to a credential, has the time to drain pass, and returns the broker.
async fn outlast_the_drain(upstream: &Upstream, directory: &TempDir, credential: &'static str) -> Daemon {
    let mut daemon = serve(directory, "1s", upstream).await;
    let caller = daemon.client();
    let waiting = tokio::spawn(async move { caller.get_token(GetToken::of(credential)).await });
    upstream.until_asked(1).await;
    daemon.terminate();
    daemon.until_logged("draining").await;
    waiting.await.expect("the task ends").expect_err("its connection was dropped");
    daemon
}

#[tokio::test]
async fn a_call_that_loses_nothing_is_left_when_the_time_to_drain_is_over() {
    let (directory, upstream) = (directory(), Upstream::start([]).await);
    let outcome = outlast_the_drain(&upstream, &directory, "slow").await.end().await;
    assert_eq!(outcome.code(), Some(1), "{outcome:?}");
    assert!(outcome.stderr.ends_with("in time: 1 flights were left\n"), "{outcome:?}");
}

#[tokio::test]
async fn a_refresh_token_on_its_way_is_waited_for_in_any_case() {
    let (directory, upstream) = (directory(), Upstream::start([minted("at-1", "rt-1")]).await);
    let mut daemon = outlast_the_drain(&upstream, &directory, "rotating").await;
    daemon.until_logged("the time to drain is over").await;
    upstream.release(1);
    let outcome = daemon.end().await;
    assert_eq!(outcome.code(), Some(0), "{outcome:?}");

    let daemon = serve(&directory, "1s", &upstream).await;
    let token = daemon.client().get_token(GetToken::of("rotating")).await.expect("an answer").token.expect("a token");
    assert_eq!((token.access_token.expose(), token.generation), ("at-1", 1));
    assert_eq!(upstream.refresh_tokens(), ["rt-0"], "it was spent once");
}

/// Has a refresh token rotate while another process holds the database, and returns the broker that cannot store it.
async fn caught_with_a_refresh_token(upstream: &Upstream, directory: &TempDir) -> (Daemon, SqliteConnection) {
    let mut daemon = serve(directory, "1s", upstream).await;
    let caller = daemon.client();
    let waiting = tokio::spawn(async move { caller.get_token(GetToken::of("rotating")).await });
    upstream.until_asked(1).await;
    let database = SqliteConnectOptions::new().filename(directory.path().join("tokencache.db"));
    let mut holder = SqliteConnection::connect_with(&database).await.expect("a connection");
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut holder).await.expect("the lock");
    upstream.release(1);
    daemon.until_logged("what the upstream gave waits to be stored").await;
    daemon.terminate();
    waiting.await.expect("the task ends").expect_err("its connection was dropped");
    (daemon, holder)
}

fn spilled(directory: &TempDir) -> Vec<std::path::PathBuf> {
    let files = std::fs::read_dir(directory.path().join("tokencache-spill")).expect("the directory of spilled tokens");
    files.map(|file| file.expect("a file").path()).collect()
}

/// Starts another broker, and has it use the refresh token that the first one left.
async fn goes_on_with_the_refresh_token(upstream: &Upstream, directory: &TempDir) {
    let daemon = serve(directory, "1s", upstream).await;
    let token = daemon.client().get_token(GetToken::of("rotating")).await.expect("an answer").token.expect("a token");
    assert_eq!((token.access_token.expose(), token.generation), ("at-1", 1));
    upstream.release(1);
    daemon.admin().refresh_token("rotating").await.expect("the refresh token that was left is good");
    assert_eq!(upstream.refresh_tokens(), ["rt-0", "rt-1"]);
    assert_eq!(daemon.stop().await.code(), Some(0));
}

#[tokio::test]
async fn told_to_end_twice_it_spills_a_refresh_token_that_is_not_stored_and_the_next_start_stores_it() {
    let (directory, upstream) = (directory(), Upstream::start([minted("at-1", "rt-1"), minted("at-2", "rt-2")]).await);
    let (mut daemon, holder) = caught_with_a_refresh_token(&upstream, &directory).await;
    daemon.until_logged("draining").await;
    daemon.terminate();
    let outcome = daemon.end().await;
    assert_eq!(outcome.code(), Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains("spilled what the store has not taken"), "{outcome:?}");
    let files = spilled(&directory);
    assert_eq!(files.len(), 1, "{files:?}");
    let mode = std::fs::metadata(&files[0]).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    holder.close().await.expect("the lock is given back");
    goes_on_with_the_refresh_token(&upstream, &directory).await;
    assert_eq!(spilled(&directory), Vec::<std::path::PathBuf>::new());
}

#[tokio::test]
async fn when_the_time_to_drain_is_over_a_refresh_token_is_spilled_and_still_waited_for() {
    let (directory, upstream) = (directory(), Upstream::start([minted("at-1", "rt-1"), minted("at-2", "rt-2")]).await);
    let (mut daemon, holder) = caught_with_a_refresh_token(&upstream, &directory).await;
    daemon.until_logged("spilled what the store has not taken").await;
    assert_eq!(spilled(&directory).len(), 1);
    holder.close().await.expect("the lock is given back");
    let outcome = daemon.end().await;
    assert_eq!(outcome.code(), Some(0), "{outcome:?}");
    assert_eq!(spilled(&directory), Vec::<std::path::PathBuf>::new());
    goes_on_with_the_refresh_token(&upstream, &directory).await;
}

#[tokio::test]
async fn with_its_store_down_it_listens_says_so_and_ends_when_told() {
    let (directory, closed) = (directory(), ClosedPort::take().expect("a port"));
    let store = closed.url().replace("http://", "postgres://nobody@");
    let configuration = format!(
        "{FREE_PORTS}\n[store]\nurl = \"{store}/none\"\n[credentials.a]\nprovider = \"fixed\"\ntoken = {{ env = \"PATH\" }}\n"
    );
    let mut daemon = Daemon::launch(&mut Daemon::command(directory.path(), &configuration));
    daemon.until_logged("the store does not answer").await;
    let ready = format!("http://{}/readyz", daemon.metrics_address().expect("it listens"));
    assert_eq!(http_client().get(ready).send().await.expect("an answer").status(), 503);
    let error = daemon.client().get_token(GetToken::of("a")).await.expect_err("there is no store");
    assert_eq!(reason(&error), "STORE_DOWN");
    assert!(error.retry_after().is_some(), "{error:?}");
    assert_eq!(daemon.stop().await.code(), Some(0));
}

#[test]
fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address");
    for key in ["listen", "admin_listen", "metrics_listen"] {
        let directory = directory();
        let configuration =
            FREE_PORTS.replace(&format!("\n{key} = \"127.0.0.1:0\""), &format!("\n{key} = \"{address}\""));
        let outcome = run(directory.path(), &configuration);
        assert_eq!(outcome.code(), Some(1), "{outcome:?}");
        let expected = format!("tokencached: cannot listen on {address}: Address already in use");
        assert!(outcome.stderr.contains(&expected), "{outcome:?}");
    }
}

/// Runs a broker that is expected to end by itself.
fn run(directory: &Path, configuration: &str) -> Outcome {
    Outcome::of(&mut Daemon::command(directory, configuration))
}
