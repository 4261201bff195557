//! Invariant I7: no secret leaves the broker but where it is asked for. Every secret that it is given and every token that
//! it gets carries a canary, which is then looked for in all that it says.

mod configuration;
mod drive;
mod dump;
mod panic;
mod search;
mod upstream;

use std::fs;

use tempfile::TempDir;
use tokencache_testkit::Postgres;

use self::{
    drive::Told,
    search::{canary, hits},
    upstream::Upstreams,
};
use crate::{
    broker::ENCRYPTION_KEY,
    process::{Daemon, Outcome, tokencached},
};

/// What the log shows only if everything is logged, by whom: it proves that the search looked at the whole.
const TRACES: [&str; 3] = ["\"target\":\"hyper", "\"target\":\"h2", "\"target\":\"tokencache_server"];

fn assert_no_canary(place: &str, text: &[u8]) {
    let found = hits(text);
    assert!(found.is_empty(), "{place} has {} canaries, such as {:?}", found.len(), &found[..found.len().min(5)]);
}

/// A dump of a database has what is no secret, and nothing that is one.
fn assert_sealed(dump: &[(String, Vec<u8>)]) {
    let has = |what: &str| dump.iter().any(|(_, bytes)| bytes.windows(what.len()).any(|part| part == what.as_bytes()));
    // "§tcs1." as it is, or as the hexadecimal digits of its bytes.
    assert!(has("rotating-odd") && (has("\u{a7}tcs1.") || has("c2a7746373312e")), "the dump is not one of the whole");
    for (table, bytes) in dump {
        assert_no_canary(&format!("the table or file {table}"), bytes);
    }
}

/// Runs the broker over a store, has it do everything, and looks at all that it said. Where its files were.
async fn nothing_is_told_over(store: &str, password: &str) -> TempDir {
    let (directory, upstreams) = (TempDir::new().expect("a directory"), Upstreams::start().await);
    let configuration = configuration::text(directory.path(), &upstreams, store);
    let command = || {
        let mut command = Daemon::command(directory.path(), &configuration);
        command.env("RUST_LOG", "trace").env("RUST_BACKTRACE", "full").env("STORE_PASSWORD", password);
        command.envs(configuration::environment());
        command
    };
    let mut told = Told::default();
    for _ in 0..2 {
        let daemon = Daemon::start(command()).await;
        drive::everything(&daemon, &upstreams, &mut told).await;
        let outcome = daemon.stop().await;
        assert_eq!(outcome.code(), Some(0), "it survives everything");
        // The audit log, which goes there if nothing else is said.
        for kind in ["token_issued", "token_pushed", "rejection", "refresh", "admin_call", "call_refused", "stopped"] {
            assert!(outcome.stdout.contains(&format!("\"kind\":\"{kind}\"")), "there is no {kind}");
        }
        told.add("standard output", outcome.stdout);
        for trace in TRACES {
            assert!(outcome.stderr.contains(trace), "the log has no {trace}");
        }
        assert!(outcome.stderr.contains("\"level\":\"DEBUG\""));
        told.add("the log", outcome.stderr);
    }
    for (place, text) in &told.0 {
        assert_no_canary(place, text);
        let key = ENCRYPTION_KEY.as_bytes();
        assert!(!text.windows(key.len()).any(|part| part == key), "the key of the store is in {place}");
    }
    upstreams.assert_that_secrets_were_sent();
    directory
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_told_that_is_secret_over_sqlite() {
    let directory = nothing_is_told_over("url = \"sqlite:tokens.db\"", "unused").await;
    assert_sealed(&dump::of_sqlite(directory.path()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_told_that_is_secret_over_postgres() {
    let server = Postgres::start().await.expect("a Postgres to test with");
    let url = server.new_database().await.expect("a new database");
    // A server that trusts everybody on this machine takes any password.
    let password = server.password().map_or_else(|| canary("store password"), str::to_owned);
    nothing_is_told_over(&format!("url = \"{url}\"\npassword = {{ env = \"STORE_PASSWORD\" }}"), &password).await;
    assert_sealed(&dump::of_postgres(&url, server.password()).await);
}

/// Every command that reads a configuration, on one that has secrets where they do not belong.
fn say_everything_about(configuration: &str) -> Vec<Outcome> {
    let directory = TempDir::new().expect("a directory");
    fs::write(directory.path().join("c.toml"), configuration).expect("a file");
    let run = |arguments: &[&str]| {
        let mut command = tokencached();
        Outcome::of(command.current_dir(directory.path()).env("RUST_LOG", "trace").args(arguments))
    };
    vec![
        run(&["check-config", "c.toml"]),
        run(&["serve", "--config", "c.toml"]),
        run(&["migrate", "--config", "c.toml"]),
    ]
}

#[test]
fn a_secret_in_the_wrong_place_of_a_configuration_is_not_repeated() {
    let secret = canary("plain");
    for mistake in [
        format!("[credentials.a]\nprovider = \"fixed\"\ntoken = \"{secret}\"\n"),
        format!("[credentials.a]\nprovider = \"fixed\"\ntoken = {{ plain = \"{secret}\" }}\n"),
        format!("[credentials.a]\nprovider = \"fixed\"\ntoken = {{ command = \"echo {secret}\" }}\n"),
        format!("[credentials.a]\nprovider = \"fixed\"\ntoken = \"{secret}\n"),
        format!("[credentials.a]\nprovider = \"fixed\"\ntoken = {secret}\n"),
        format!("[credentials.a]\nprovider = \"oauth2\"\ngrant = \"password\"\npassword = \"{secret}\"\n"),
        format!("[credentials.a]\nprovider = \"oauth2\"\ntoken_url = \"https://u:{secret}@idp.example/token\"\n"),
        format!("[credentials.a]\nprovider = \"oauth2\"\nissuer = \"ftp://u:{secret}@idp.example/\"\n"),
        format!("[credentials.a]\nprovider = \"oauth2\"\nhttp = {{ proxy = \"http://u:{secret}@proxy:1\" }}\n"),
        format!("[credentials.a]\nprovider = \"session\"\nlogin = {{ url = \"https://u:{secret}@old.example/\" }}\n"),
        format!("[store]\nurl = \"postgres://u:{secret}@db/x\"\n"),
        format!("[store]\nurl = \"postgres://u@db/x?password={secret}\"\n"),
        format!("[store]\nurl = \"postgres://u@db/x\"\npassword = \"{secret}\"\n"),
    ] {
        for outcome in say_everything_about(&mistake) {
            assert_eq!(outcome.code(), Some(1), "{mistake}: {outcome:?}");
            assert_no_canary(&mistake.replace(&secret, "SECRET"), (outcome.stdout + &outcome.stderr).as_bytes());
        }
    }
}
