//! The documents that other programs ask for.

use std::process::{Output, Stdio};

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use crate::{fake::command, minting::MintingBroker, upstream::Upstream};

/// The fingerprint of `token-1`, by `printf token-1 | sha256sum`.
const FINGERPRINT: &str = "3f08aace122ee236";

async fn ask(endpoint: &str, arguments: &[&str], question: &str) -> Output {
    let mut all = vec!["--addr", endpoint, "credential-helper"];
    all.extend(arguments);
    talk(command(&all), question).await
}

async fn talk(mut command: tokio::process::Command, question: &str) -> Output {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // One that needs no question may have ended.
    let _ = child.stdin.take().unwrap().write_all(question.as_bytes()).await;
    child.wait_with_output().await.unwrap()
}

fn stdout(output: &Output) -> &str {
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    std::str::from_utf8(&output.stdout).unwrap()
}

fn expiry() -> i64 {
    MintingBroker::expires_at().as_second()
}

#[tokio::test]
async fn git_gets_a_user_and_a_password() {
    let (_, endpoint) = MintingBroker::serve().await;
    let expected = format!("username=x-access-token\npassword=token-1\npassword_expiry_utc={}\n", expiry());
    let git = ["git", "--credential", "a", "get"];
    let output = ask(&endpoint, &git, "capability[]=authtype\nprotocol=https\nhost=git.example\n\n").await;
    assert_eq!(stdout(&output), expected);
    let output = ask(&endpoint, &git, "protocol=https\nhost=git.example\nusername=me\n").await;
    assert!(stdout(&output).starts_with("username=me\npassword=token-1\n"));
}

#[tokio::test]
async fn git_gets_a_scheme_only_where_it_offers_that() {
    let (_, endpoint) = MintingBroker::serve().await;
    let git = ["git", "--credential", "a", "--authtype", "Bearer", "get"];
    let output = ask(&endpoint, &git, "capability[]=authtype\ncapability[]=state\nprotocol=https\nhost=h\n").await;
    let expected = format!(
        "capability[]=authtype\nauthtype=Bearer\ncredential=token-1\nephemeral=1\npassword_expiry_utc={}\n",
        expiry()
    );
    assert_eq!(stdout(&output), expected);
    let output = ask(&endpoint, &git, "protocol=https\nhost=h\n").await;
    assert!(stdout(&output).contains("password=token-1\n"));
}

#[tokio::test]
async fn git_reports_a_refused_password_by_its_fingerprint() {
    let (broker, endpoint) = MintingBroker::serve().await;
    for action in ["store", "erase", "get-it-later"] {
        let question = "protocol=https\nhost=h\nusername=u\npassword=token-1\n";
        let output = ask(&endpoint, &["git", "--credential", "a", action], question).await;
        assert_eq!(stdout(&output), "");
    }
    assert_eq!(broker.reports(), [FINGERPRINT]);
    assert_eq!(stdout(&ask(&endpoint, &["git", "--credential", "a", "erase"], "host=h\n").await), "");
    assert_eq!(broker.reports().len(), 1);
}

#[tokio::test]
async fn git_gets_nothing_for_another_host() {
    let (broker, endpoint) = MintingBroker::serve().await;
    for action in ["get", "erase"] {
        let git = ["git", "--credential", "a", "--host", "git.example", action];
        let output = ask(&endpoint, &git, "protocol=https\nhost=evil.example\npassword=token-1\n").await;
        assert_eq!(stdout(&output), "");
    }
    assert!(broker.reports().is_empty());
}

#[tokio::test]
async fn the_real_git_takes_the_answer() {
    let (broker, endpoint) = MintingBroker::serve().await;
    let helper = format!(
        "credential.helper=!'{}' --addr {endpoint} credential-helper git --credential a --authtype Bearer",
        env!("CARGO_BIN_EXE_tokencache")
    );
    let git = |action: &str| {
        let mut git = tokio::process::Command::new("git");
        git.args(["-c", "credential.helper=", "-c", &helper, "credential", action]);
        git.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_TERMINAL_PROMPT", "0").env("HOME", "/nonexistent");
        git.env("XDG_CONFIG_HOME", "/nonexistent");
        git
    };
    let question = "protocol=https\nhost=git.example\n\n";
    let output = talk(git("fill"), question).await;
    let text = stdout(&output);
    assert!(text.contains("username=x-access-token\n") && text.contains("password=token-1\n"), "{text}");
    assert!(text.contains(&format!("password_expiry_utc={}\n", expiry())), "{text}");
    let output = talk(git("fill"), &format!("capability[]=authtype\n{question}")).await;
    let text = stdout(&output);
    assert!(text.contains("authtype=Bearer\n") && text.contains("credential=token-1\n"), "{text}");
    let output = talk(git("reject"), "protocol=https\nhost=git.example\nusername=u\npassword=token-1\n\n").await;
    assert_eq!(stdout(&output), "");
    assert_eq!(broker.reports(), [FINGERPRINT]);
}

#[tokio::test]
async fn docker_gets_its_document_or_its_error() {
    let (_, endpoint) = MintingBroker::serve().await;
    let docker = async |arguments: &[&str], question: &str| {
        ask(&endpoint, &[&["docker", "--credential"], arguments].concat(), question).await
    };
    let output = docker(&["a", "get"], "registry.example\n").await;
    let document: Value = serde_json::from_str(stdout(&output)).unwrap();
    let expected = json!({ "ServerURL": "registry.example", "Username": "oauth2accesstoken", "Secret": "token-1" });
    assert_eq!(document, expected);
    assert_eq!(stdout(&docker(&["a", "list"], "").await), "{}\n");
    assert_eq!(stdout(&docker(&["a", "store"], "{}").await), "");
    assert_eq!(stdout(&docker(&["a", "erase"], "registry.example").await), "");
    let ours = ["a", "--registry", "registry.example", "get"];
    assert!(stdout(&docker(&ours, "https://registry.example/v2/").await).contains("token-1"));
    let output = docker(&ours, "https://evil.example/registry.example").await;
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "credentials not found in native keychain\n");
    let output = docker(&["away", "get"], "registry.example").await;
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("UPSTREAM_DOWN"));
}

#[tokio::test]
async fn kubernetes_gets_the_version_that_it_asks_for() {
    let (_, endpoint) = MintingBroker::serve().await;
    let run = async |info: Option<&str>| {
        let mut command = command(&["--addr", &endpoint, "credential-helper", "kubernetes", "--credential", "a"]);
        command.env_remove("KUBERNETES_EXEC_INFO");
        if let Some(info) = info {
            command.env("KUBERNETES_EXEC_INFO", info);
        }
        command.output().await.unwrap()
    };
    let info = |version: &str| json!({ "apiVersion": version, "kind": "ExecCredential", "spec": {} }).to_string();
    let (v1, beta) = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1");
    for (asked, version) in [(None, v1), (Some(info(v1)), v1), (Some(info(beta)), beta)] {
        let document: Value = serde_json::from_str(stdout(&run(asked.as_deref()).await)).unwrap();
        let expiry = MintingBroker::expires_at().to_string();
        let status = json!({ "token": "token-1", "expirationTimestamp": expiry });
        assert_eq!(document, json!({ "apiVersion": version, "kind": "ExecCredential", "status": status }));
    }
    let output = run(Some(&info("client.authentication.k8s.io/v9"))).await;
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
    assert!(String::from_utf8_lossy(&output.stderr).contains("correct apiVersion in the kubeconfig"));
}

#[tokio::test]
async fn aws_gets_a_session_from_the_attributes() {
    let (broker, endpoint) = MintingBroker::serve().await;
    let output = ask(&endpoint, &["aws", "--credential", "a"], "").await;
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(5));
    assert!(message.contains("has no attribute access_key_id; add it"), "{message}");
    broker.set_attributes(&[("access_key_id", "AKIA"), ("secret_access_key", "sk")]);
    let output = ask(&endpoint, &["aws", "--credential", "a"], "").await;
    let document: Value = serde_json::from_str(stdout(&output)).unwrap();
    let expected = json!({
        "Version": 1, "AccessKeyId": "AKIA", "SecretAccessKey": "sk", "SessionToken": "token-1",
        "Expiration": MintingBroker::expires_at().to_string(),
    });
    assert_eq!(document, expected);
}

#[tokio::test]
#[ignore = "needs the AWS command line"]
async fn the_real_aws_takes_the_document() {
    let (broker, endpoint) = MintingBroker::serve().await;
    broker.set_attributes(&[("access_key_id", "AKIA"), ("secret_access_key", "sk")]);
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("config");
    let program = env!("CARGO_BIN_EXE_tokencache");
    let process = format!("{program} --addr {endpoint} credential-helper aws --credential a");
    std::fs::write(&config, format!("[default]\ncredential_process = {process}\n")).unwrap();
    let (upstream, url) = Upstream::serve(|_| true).await;
    let mut aws = tokio::process::Command::new("aws");
    aws.args(["sts", "get-caller-identity", "--region", "us-east-1", "--endpoint-url", &url]);
    aws.env("AWS_CONFIG_FILE", &config).env("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent").env("NO_PROXY", "*");
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"] {
        aws.env_remove(name);
    }
    // The upstream does not answer as AWS does, but sees who asks.
    let output = talk(aws, "").await;
    let seen = upstream.seen();
    let headers = &seen.first().unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output.stderr))).headers;
    assert_eq!(headers["x-amz-security-token"], "token-1");
    assert!(headers["authorization"].to_str().unwrap().contains("Credential=AKIA/"));
}
