//! The helper of docker-credential-helpers: JSON on the standard output, errors there as well.

use std::process::ExitCode;

use serde_json::{Value, json};
use tokencache_client::ErrorKind;

use super::{question, secret, token};
use crate::{
    args::{Action, Docker},
    broker::Broker,
    failure::Failure,
    output::Output,
};

/// By this text docker knows that it may go on without.
const NOT_FOUND: &str = "credentials not found in native keychain";

pub(super) async fn run(
    broker: impl FnOnce() -> Result<Broker, Failure>,
    docker: &Docker,
    output: &mut Output,
) -> Result<ExitCode, Failure> {
    let answer = match answer(broker, docker).await {
        Ok(answer) => answer,
        Err(failure) => {
            let text = match &failure {
                Failure::Broker { error, .. } if error.kind() == ErrorKind::NotFound => NOT_FOUND.to_owned(),
                _ => failure.to_string(),
            };
            output.write(&format!("{text}\n"))?;
            return Ok(ExitCode::FAILURE);
        }
    };
    if let Some(value) = answer {
        output.write(secret(format!("{value}\n")).expose())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `None`: nothing is to be said.
async fn answer(broker: impl FnOnce() -> Result<Broker, Failure>, docker: &Docker) -> Result<Option<Value>, Failure> {
    match docker.action {
        Action::Get => {
            let text = question()?;
            let server = text.trim();
            if server.is_empty() {
                return Err(Failure::Usage("no credentials server URL".into()));
            }
            if !is_ours(docker, server) {
                return Err(Failure::Other(NOT_FOUND.into(), 1));
            }
            let token = token(&broker()?, &docker.whose).await?;
            let secret = token.access_token.expose();
            Ok(Some(json!({ "ServerURL": server, "Username": docker.username, "Secret": secret })))
        }
        // Which registries there are is known to docker's configuration alone.
        Action::List => Ok(Some(json!({}))),
        // A logout says which registry, not which token.
        Action::Store | Action::Erase => question().map(|_| None),
        Action::Unknown => {
            Err(Failure::Usage("unknown credential action; docker asks for get, store, erase or list".into()))
        }
    }
}

/// Compares hosts: docker writes `registry.example`, `https://registry.example` and `https://registry.example/v2/`.
fn is_ours(docker: &Docker, server: &str) -> bool {
    let host = |text: &str| {
        let text = text.split_once("://").map_or(text, |(_, rest)| rest);
        text.split('/').next().unwrap_or_default().to_ascii_lowercase()
    };
    docker.registries.is_empty() || docker.registries.iter().any(|ours| host(ours) == host(server))
}
