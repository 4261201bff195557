//! Commands that run with a token.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    process::{Output, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

use crate::{fake::command, minting::MintingBroker};

async fn exec(endpoint: &str, arguments: &[&str]) -> Output {
    let mut all = vec!["--addr", endpoint, "exec"];
    all.extend(arguments);
    command(&all).output().await.unwrap()
}

fn stdout(output: &Output) -> &str {
    assert!(output.stderr.is_empty(), "{output:?}");
    std::str::from_utf8(&output.stdout).unwrap()
}

#[tokio::test]
async fn a_command_finds_the_tokens_in_its_environment() {
    let (_, endpoint) = MintingBroker::serve().await;
    let output =
        exec(&endpoint, &["crm/prod-1", "--", "sh", "-c", "echo $TOKENCACHE_TOKEN $TOKENCACHE_TOKEN_CRM_PROD_1"]);
    assert_eq!(stdout(&output.await), "token-1 token-1\n");
    let output = exec(
        &endpoint,
        &["a", "b", "--", "sh", "-c", "echo ${TOKENCACHE_TOKEN-none} $TOKENCACHE_TOKEN_A $TOKENCACHE_TOKEN_B"],
    );
    assert_eq!(stdout(&output.await), "none token-1 token-1\n");
    let output = exec(&endpoint, &["--env", "GH=a", "--", "sh", "-c", "echo ${TOKENCACHE_TOKEN-none} $GH"]);
    assert_eq!(stdout(&output.await), "none token-1\n");
}

#[tokio::test]
async fn two_names_for_one_variable_are_a_mistake() {
    let (_, endpoint) = MintingBroker::serve().await;
    let output = exec(&endpoint, &["a-b", "a_b", "--", "true"]).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("TOKENCACHE_TOKEN_A_B would be the token of both"));
}

#[tokio::test]
async fn a_token_is_not_put_where_this_program_expects_a_file() {
    let (_, endpoint) = MintingBroker::serve().await;
    let output = exec(&endpoint, &["file", "--", "true"]).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("choose another with --env VAR=file"));
    assert!(exec(&endpoint, &["file", "--env", "VAR=file", "--", "true"]).await.status.success());
}

#[tokio::test]
async fn the_exit_code_is_the_commands() {
    let (_, endpoint) = MintingBroker::serve().await;
    let directory = tempfile::tempdir().unwrap();
    let file = format!("a={}", directory.path().join("token").display());
    for extra in [&["a"][..], &["--refresh-file", &file]] {
        let run = async |command: &[&str]| exec(&endpoint, &[extra, &["--"], command].concat()).await.status;
        assert_eq!(run(&["sh", "-c", "exit 42"]).await.code(), Some(42));
        assert_eq!(run(&["true"]).await.code(), Some(0));
        assert_eq!(run(&["no-such-program"]).await.code(), Some(127));
        assert_eq!(run(&["/"]).await.code(), Some(126));
    }
    let killed = exec(&endpoint, &["--refresh-file", &file, "--", "sh", "-c", "kill -KILL $$"]).await.status;
    assert_eq!(killed.code(), Some(128 + 9));
}

#[tokio::test]
async fn without_a_token_no_command_runs() {
    let (_, endpoint) = MintingBroker::serve().await;
    let output = exec(&endpoint, &["away", "--", "echo", "ran"]).await;
    assert_eq!((output.status.code(), output.stdout.len()), (Some(4), 0));
}

#[tokio::test]
async fn a_file_is_kept_fresh_while_the_command_runs() {
    let (broker, endpoint) = MintingBroker::serve().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    let file = format!("a={}", path.display());
    let mut child = command(&[
        "--addr",
        &endpoint,
        "exec",
        "--refresh-file",
        &file,
        "--",
        "sh",
        "-c",
        "echo begun; read line; exit 7",
    ])
    .stdin(Stdio::piped())
    .stdout(Stdio::piped())
    .spawn()
    .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next_line().await.unwrap().unwrap(), "begun");
    assert_eq!(fs::read_to_string(&path).unwrap(), "token-1");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let argv = fs::read_to_string(format!("/proc/{}/cmdline", child.id().unwrap())).unwrap_or_default();
    assert!(!argv.contains("token-1"), "{argv}");
    broker.refresh();
    while fs::read_to_string(&path).unwrap() != "token-2" {
        tokio::task::yield_now().await;
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    child.stdin.take().unwrap().write_all(b"\n").await.unwrap();
    assert_eq!(child.wait().await.unwrap().code(), Some(7));
    assert!(!path.exists());
}

#[tokio::test]
async fn signals_go_on_to_the_command() {
    let (_, endpoint) = MintingBroker::serve().await;
    let directory = tempfile::tempdir().unwrap();
    let file = format!("a={}", directory.path().join("token").display());
    for (signal, name) in [(Signal::INT, "INT"), (Signal::TERM, "TERM"), (Signal::HUP, "HUP")] {
        let script = format!("trap 'echo got; exit 3' {name}; echo begun; while :; do sleep 0.01; done");
        let mut child = command(&["--addr", &endpoint, "exec", "--refresh-file", &file, "--", "sh", "-c", &script])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next_line().await.unwrap().unwrap(), "begun");
        let pid = Pid::from_raw(child.id().unwrap().cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
        assert_eq!(lines.next_line().await.unwrap().unwrap(), "got");
        assert_eq!(child.wait().await.unwrap().code(), Some(3));
    }
}
