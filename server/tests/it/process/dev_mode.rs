//! `serve --dev`: the tour works as it is told, and a second run finds what the first one left.

use std::{collections::BTreeMap, net::SocketAddr, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use tempfile::TempDir;
use tokencache_client::{GetToken, Rejection, Token, TokenUpdate};

use super::{
    Daemon, Outcome,
    daemon::{http_client, tokencached},
};

const CREDENTIALS: [&str; 3] = ["demo", "demo-rotating", "demo-session"];

fn command(directory: &Path, upstream: &str) -> Command {
    let mut command = tokencached();
    let free = "127.0.0.1:0";
    command.current_dir(directory);
    command.args(["serve", "--dev", "--listen", free, "--metrics-listen", free, "--upstream-listen", upstream]);
    command
}

/// The address that the tour gives for the demo upstream.
fn upstream_of(tour: &str) -> SocketAddr {
    let line = tour.lines().find(|line| line.contains("   demo upstream: ")).expect("the tour names the upstream");
    let url = line.split_whitespace().next().expect("a URL");
    url.strip_prefix("http://").expect("an http URL").parse().expect("an address")
}

async fn get(daemon: &Daemon, credential: &str) -> Token {
    daemon.client().get_token(GetToken::of(credential)).await.expect("an answer").token.expect("a token")
}

/// The status of the demo API's answer to a token.
async fn call(upstream: SocketAddr, token: &Token) -> u16 {
    let request = http_client().get(format!("http://{upstream}/api/hello"));
    let answer = request.header("authorization", token.authorization().expose()).send().await.expect("an answer");
    answer.status().as_u16()
}

#[tokio::test]
async fn the_tour_names_what_listens_and_works_as_told() {
    let directory = TempDir::new().expect("a directory");
    let daemon = Daemon::start(command(directory.path(), "127.0.0.1:0")).await;
    let tour = daemon.stdout();
    for address in [daemon.client_address(), daemon.metrics_address().expect("it listens")] {
        assert!(tour.contains(&format!("  http://{address} ")), "{address}: {tour}");
    }
    let upstream = upstream_of(&tour);
    for credential in CREDENTIALS {
        assert_eq!(call(upstream, &get(&daemon, credential).await).await, 200, "{credential}");
    }

    let mut watch = daemon.client().watch(["demo"]).await.expect("a stream");
    let dead = get(&daemon, "demo").await;
    let revoke = format!("http://{upstream}/demo/revoke?fingerprint={}", dead.fingerprint);
    assert_eq!(http_client().post(revoke).send().await.expect("an answer").status(), 200);
    assert_eq!(call(upstream, &dead).await, 401);

    let report = Rejection::of_fingerprint("demo", &dead.fingerprint).http_status(401).error("invalid_token");
    let reported = daemon.client().invalidate(report.clone()).await.expect("an answer");
    assert!(reported.invalidated && reported.min_generation > dead.generation, "{reported:?}");
    assert!(!daemon.client().invalidate(report).await.expect("an answer").invalidated, "it is known already");
    let replacement = get(&daemon, "demo").await;
    assert!(replacement.generation > dead.generation);
    assert_eq!(call(upstream, &replacement).await, 200);

    let mut seen = Vec::new();
    while seen.last() != Some(&Some(replacement.fingerprint.clone())) {
        let event = watch.next().await.expect("the stream goes on").expect("no error");
        seen.push(match event.update {
            TokenUpdate::Token(token) => Some(token.fingerprint),
            _ => None,
        });
    }
    assert_eq!(seen, [Some(dead.fingerprint), None, Some(replacement.fingerprint)]);
    drop(watch);

    let described = daemon.admin().describe_credential("demo").await.expect("an answer");
    assert_eq!(described.tokens.len(), 1);
    assert_eq!(daemon.admin().list_credentials(0, "").await.expect("an answer").credentials.len(), CREDENTIALS.len());
    assert_eq!(daemon.stop().await.code(), Some(0));
}

#[tokio::test]
async fn a_second_run_serves_the_tokens_of_the_first_without_an_upstream_call() {
    let directory = TempDir::new().expect("a directory");
    let first = Daemon::start(command(directory.path(), "127.0.0.1:0")).await;
    let upstream = upstream_of(&first.stdout());
    let mut served = BTreeMap::new();
    for credential in CREDENTIALS {
        served.insert(credential, get(&first, credential).await.fingerprint);
    }
    assert!(first.metrics().await.contains("tokencache_attempts_total{"), "attempts are counted");
    assert_eq!(first.stop().await.code(), Some(0));

    let second = Daemon::start(command(directory.path(), &upstream.to_string())).await;
    for (credential, fingerprint) in served {
        let token = get(&second, credential).await;
        assert_eq!(token.fingerprint, fingerprint, "{credential}");
        assert_eq!(call(upstream, &token).await, 200, "{credential}");
    }
    assert!(!second.metrics().await.contains("tokencache_attempts_total{"), "{}", second.metrics().await);
    let ended = second.stop().await;
    assert_eq!(ended.code(), Some(0));
    assert!(!ended.stderr.contains("\"ERROR\"") && !ended.stderr.contains("\"WARN\""), "{}", ended.stderr);
}

#[tokio::test]
async fn what_dev_mode_writes_is_for_its_owner_alone() {
    let directory = TempDir::new().expect("a directory");
    let daemon = Daemon::start(command(directory.path(), "127.0.0.1:0")).await;
    get(&daemon, "demo").await;
    let home = directory.path().join(".tokencache");
    let mode = |path: &Path| path.metadata().expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(&home), 0o700);
    let files: Vec<_> = home.read_dir().expect("a directory").map(|entry| entry.expect("an entry").path()).collect();
    assert!(files.iter().any(|file| file.ends_with("tokencache.db")), "{files:?}");
    for file in files {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
    assert_eq!(directory.path().read_dir().expect("a directory").count(), 1, "nothing else is written");
}

#[test]
fn dev_mode_refuses_every_address_but_loopback() {
    for option in ["--listen", "--metrics-listen", "--upstream-listen"] {
        for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
            let directory = TempDir::new().expect("a directory");
            let arguments = ["serve", "--dev", option, address];
            let outcome = Outcome::of(tokencached().current_dir(directory.path()).args(arguments));
            assert_eq!((outcome.code(), outcome.stdout.as_str()), (Some(1), ""), "{outcome:?}");
            let expected = format!("listens on loopback only, not on {address}\n");
            assert!(outcome.stderr.ends_with(&expected), "{outcome:?}");
            assert_eq!(directory.path().read_dir().expect("a directory").count(), 0, "nothing was begun");
        }
    }
}
