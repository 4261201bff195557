//! Unix sockets and files: who may use them, and what becomes of those that a crash left behind.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use tempfile::TempDir;
use tokencache_client::{Client, GetToken};

use super::{Daemon, Outcome};

const CONFIGURATION: &str = r#"[server]
listen = "unix:api.sock"
admin_listen = "unix:admin.sock"
metrics_listen = "127.0.0.1:0"
insecure_allow_any_caller = true

[store]
url = "sqlite:data/tokens.db"

[credentials.static]
provider = "fixed"
token = { command = ["echo", "t0k3n"] }
"#;

fn mode(path: &Path) -> u32 {
    path.metadata().expect("it is there").permissions().mode() & 0o777
}

async fn get(directory: &TempDir) -> String {
    let endpoint = format!("unix:{}", directory.path().join("api.sock").display());
    let client = Client::builder().endpoint(endpoint).build().expect("a valid endpoint");
    let token = client.get_token(GetToken::of("static")).await.expect("an answer").token.expect("a token");
    token.access_token.expose().to_owned()
}

#[tokio::test]
async fn a_socket_is_for_its_owner_and_group_and_the_database_for_its_owner() {
    let directory = TempDir::new().expect("a directory");
    let daemon = Daemon::serve(directory.path(), CONFIGURATION).await;
    assert_eq!(get(&directory).await, "t0k3n");
    for socket in ["api.sock", "admin.sock"] {
        assert_eq!(mode(&directory.path().join(socket)), 0o660, "{socket}");
    }
    let data = directory.path().join("data");
    assert_eq!(mode(&data), 0o700);
    for file in fs::read_dir(&data).expect("a directory") {
        let file = file.expect("an entry").path();
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
    assert_eq!(daemon.stop().await.code(), Some(0));
}

#[tokio::test]
async fn a_user_of_this_machine_has_what_its_grant_says() {
    let directory = TempDir::new().expect("a directory");
    let uid =
        fs::metadata(directory.path()).map(|made| std::os::unix::fs::MetadataExt::uid(&made)).expect("a directory");
    let known = CONFIGURATION.replace("insecure_allow_any_caller = true\n", "");
    let grant = |uid: u32| {
        format!(
            "{known}[authn]\nunix_users = true\n[grants.a]\nsubjects = [\"uid:{uid}\"]\ncredentials = [\"static\"]\n\
             actions = [\"get\"]\n"
        )
    };
    let daemon = Daemon::serve(directory.path(), &grant(uid)).await;
    assert_eq!(get(&directory).await, "t0k3n");
    assert_eq!(daemon.stop().await.code(), Some(0));
    let daemon = Daemon::serve(directory.path(), &grant(uid + 1)).await;
    let endpoint = format!("unix:{}", directory.path().join("api.sock").display());
    let client = Client::builder().endpoint(endpoint).build().expect("a valid endpoint");
    let refused = client.get_token(GetToken::of("static")).await.expect_err("another user's grant");
    assert_eq!(refused.reason(), Some("NOT_ALLOWED"), "{refused}");
    assert_eq!(daemon.stop().await.code(), Some(0));
}

#[tokio::test]
async fn a_socket_that_a_crash_left_behind_is_replaced() {
    let directory = TempDir::new().expect("a directory");
    let daemon = Daemon::serve(directory.path(), CONFIGURATION).await;
    assert_eq!(daemon.kill().code(), None, "killed by a signal");
    assert!(directory.path().join("api.sock").exists());
    let daemon = Daemon::serve(directory.path(), CONFIGURATION).await;
    assert_eq!(get(&directory).await, "t0k3n");
    assert_eq!(daemon.stop().await.code(), Some(0));
}

#[tokio::test]
async fn a_socket_in_use_is_not_taken_over() {
    let directory = TempDir::new().expect("a directory");
    let _first = Daemon::serve(directory.path(), CONFIGURATION).await;
    let second = Outcome::of(&mut Daemon::command(directory.path(), CONFIGURATION));
    assert_eq!(second.code(), Some(1), "{second:?}");
    assert!(second.stderr.contains("api.sock: Address already in use"), "{second:?}");
    assert_eq!(get(&directory).await, "t0k3n", "the first one serves on");
}

#[tokio::test]
async fn a_file_that_is_no_socket_is_not_replaced() {
    let directory = TempDir::new().expect("a directory");
    fs::write(directory.path().join("api.sock"), "precious").expect("a file");
    let outcome = Outcome::of(&mut Daemon::command(directory.path(), CONFIGURATION));
    assert_eq!(outcome.code(), Some(1), "{outcome:?}");
    assert_eq!(fs::read_to_string(directory.path().join("api.sock")).expect("a file"), "precious");
}
