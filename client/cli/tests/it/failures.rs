//! What each failure says, and its exit code.

use tokio::net::TcpListener;

use crate::fake::{command, run, serve};

#[tokio::test]
async fn each_error_says_what_to_do_and_has_its_exit_code() {
    let cases = [
        ("bad-name", 2, "it failed (BAD_NAME)"),
        ("no-such-credential", 3, "it failed (NO_SUCH_CREDENTIAL); `tokencache list` shows what is configured"),
        ("upstream-down", 4, "it failed (UPSTREAM_DOWN); retry in 1m 30s"),
        ("upstream-slow", 4, "it failed (UPSTREAM_SLOW); retry later"),
        ("needs-reauth", 5, "it failed (NEEDS_REAUTH); log in again and give the broker the new grant"),
        ("misconfigured", 5, "it failed (MISCONFIGURED); correct the credential's configuration"),
        ("key-missing", 5, "it failed (KEY_MISSING); give the broker its encryption key back"),
        (
            "config-tampered",
            5,
            "it failed (CONFIG_TAMPERED); restore the credential's configuration, or configure a new refresh token",
        ),
        ("not-allowed", 6, "it failed (NOT_ALLOWED); ask the broker's operator for access"),
        ("too-many-requests", 6, "it failed (TOO_MANY_REQUESTS); retry in 1m 30s"),
        (
            "too-many-invalidations",
            6,
            "it failed (TOO_MANY_INVALIDATIONS); the upstream refuses fresh tokens too: check the permissions there, \
             then retry in 1m 30s",
        ),
        ("bug", 1, "it failed (BUG); the broker's log tells more"),
    ];
    for (name, code, message) in cases {
        for command in [&["get", name][..], &["describe", name], &["watch", name], &["refresh", name]] {
            let (_, output) = run(command).await;
            assert_eq!(String::from_utf8_lossy(&output.stderr), format!("error: {message}\n"), "{command:?}");
            assert_eq!(output.status.code(), Some(code), "{command:?}");
            assert!(output.stdout.is_empty());
        }
    }
}

#[tokio::test]
async fn a_port_that_does_not_serve_the_call_is_named() {
    let (_, endpoint) = serve().await;
    let output = command(&["--admin-addr", &endpoint, "describe", "unimplemented"]).output().await.unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains(&format!("{endpoint} does not serve this")), "{message}");
    assert_eq!(output.status.code(), Some(1));
}

#[tokio::test]
async fn a_broker_that_does_not_run_is_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let output = command(&["--addr", &endpoint, "get", "demo"]).output().await.unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains(&format!("is tokencached listening on {endpoint}?")), "{message}");
    assert_eq!(output.status.code(), Some(4));
}

#[tokio::test]
async fn wrong_usage_is_told_before_any_call() {
    for arguments in [&["get"][..], &["invalidate", "x"], &["get", "x", "--output", "xml"], &["nonsense"]] {
        let output = command(arguments).output().await.unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("--help"), "{arguments:?}");
    }
    let output = command(&["--addr", "127.0.0.1:50051", "get", "x"]).output().await.unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("write http://host:port, https://host:port or unix:PATH"));
}

#[tokio::test]
async fn the_help_lists_the_exit_codes() {
    let output = command(&["--help"]).output().await.unwrap();
    let help = String::from_utf8_lossy(&output.stdout);
    for line in ["0  done", "3  there is no such credential", "6  refused"] {
        assert!(help.contains(line), "{help}");
    }
}
