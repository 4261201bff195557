//! Where the defaults come from.

use std::fs;

use crate::fake::{SECRET, command, serve};

#[tokio::test]
async fn a_file_says_where_the_broker_is_unless_the_environment_or_a_flag_does() {
    let (_, endpoint) = serve().await;
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path().join("tokencache");
    fs::create_dir(&home).unwrap();
    fs::write(home.join("config.toml"), format!("addr = '{endpoint}'\n")).unwrap();
    let output = command(&["get", "demo"]).env("XDG_CONFIG_HOME", directory.path()).output().await.unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{SECRET}\n"));

    let file = directory.path().join("other.toml");
    fs::write(&file, "addr = 'nowhere'\n").unwrap();
    let run = |arguments: &'static [&'static str], variable: &str| {
        let mut command = command(arguments);
        command.env("TOKENCACHE_CONFIG", &file).env("TOKENCACHE_ADDR", variable).output()
    };
    assert_eq!(run(&["get", "demo"], "").await.unwrap().status.code(), Some(2));
    assert!(run(&["get", "demo"], &endpoint).await.unwrap().status.success());
    let output = run(&["get", "demo", "--addr", "elsewhere"], &endpoint).await.unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("\"elsewhere\" is no endpoint"));
}

#[tokio::test]
async fn a_mistake_names_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.toml");
    let path = file.to_str().unwrap();
    let run = async || {
        let output = command(&["--config", path, "get", "demo"]).output().await.unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, message) = run().await;
    assert_eq!(
        (code, message),
        (Some(2), format!("error: the configuration file {path}: there is no such file; see --config\n"))
    );
    fs::write(&file, "adr = 'x'").unwrap();
    let (code, message) = run().await;
    assert_eq!(code, Some(2));
    assert!(message.contains(path) && message.contains("unknown field `adr`"), "{message}");
    fs::write(&file, "cert_file = 'c.pem'").unwrap();
    assert!(run().await.1.contains("say both --cert-file and --key-file"));
}

#[tokio::test]
async fn of_several_replicas_one_that_is_away_does_not_matter() {
    let (_, endpoint) = serve().await;
    for addresses in [format!("http://127.0.0.1:1,{endpoint}"), format!("{endpoint}, http://127.0.0.1:1")] {
        let output = command(&["--addr", &addresses, "get", "demo"]).output().await.unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{SECRET}\n"), "{addresses}");
    }
}

#[tokio::test]
async fn an_identity_is_not_sent_in_the_clear() {
    let output =
        command(&["--addr", "http://broker.example:1", "--token-file", "k", "get", "demo"]).output().await.unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("would show the bearer token to the network"));
}
