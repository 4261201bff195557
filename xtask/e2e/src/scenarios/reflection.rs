//! A client that has no `.proto` file.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tokio::process::Command;

use crate::{cli, stage::Stage};

/// The two versions of the protocol that clients in the field speak.
const PROTOCOLS: [&str; 2] = ["grpc-v1", "grpc-v1alpha"];

/// Lists the services and calls `AdminService`, whose answers carry no token.
pub(super) async fn a_reflection_client_lists_and_calls_the_admin_service(stage: &Stage) -> Result<String> {
    for protocol in PROTOCOLS {
        let services = curl(stage, protocol, "", &["--list-services"]).await?;
        ensure!(services.contains("tokencache.v1.AdminService"), "{protocol} lists: {services}");
        let listed = curl(stage, protocol, "/tokencache.v1.AdminService/ListCredentials", &["--data", "{}"]).await?;
        let listed: Value = serde_json::from_str(&listed)?;
        let names: Vec<&str> = listed["credentials"]
            .as_array()
            .context("no credentials")?
            .iter()
            .filter_map(|credential| credential["name"].as_str())
            .collect();
        ensure!(names == ["ci", "ci-post", "crm/prod", "short"], "{protocol} lists: {names:?}");
    }
    let method = "/tokencache.v1.AdminService/DescribeCredential";
    let described = curl(stage, PROTOCOLS[0], method, &["--data", r#"{"name": "ci"}"#]).await?;
    let told = stage.seen().into_iter().find(|token| described.contains(token.as_str()));
    ensure!(told.is_none(), "an answer of the admin service carries a token");
    let described: Value = serde_json::from_str(&described)?;
    // An earlier scenario asked for a resource that the provider does not know: the worst state is the credential's.
    let state = described["credential"]["state"].as_str().unwrap_or_default();
    ensure!(state == "CREDENTIAL_STATE_MISCONFIGURED", "the state of ci is {state:?}");
    let tokens = described["tokens"].as_array().context("no tokens")?;
    let plain = tokens.iter().find(|token| token["selector"]["resources"].is_null()).context("no plain token")?;
    ensure!(plain["state"] == "CREDENTIAL_STATE_VALID", "the state of its token is {}", plain["state"]);
    Ok(format!("by {}: 4 credentials listed, ci is {state}, no token told", PROTOCOLS.join(" and ")))
}

async fn curl(stage: &Stage, reflection: &str, path: &str, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(&stage.buf);
    command.args(["curl", "--protocol", "grpc", "--http2-prior-knowledge", "--reflect-protocol", reflection]);
    command.args(arguments).arg(format!("{}{path}", stage.broker.admin_addr()));
    let printed = cli::output(command).await?;
    ensure!(printed.code == 0, "buf curl ended with {}: {}", printed.code, printed.complaint);
    Ok(printed.text)
}
