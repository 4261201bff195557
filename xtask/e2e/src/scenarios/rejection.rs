//! A token that the upstream takes back before its time.

use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use tokencache_proto::v1::{GetTokenRequest, InvalidateTokenRequest, Token, invalidate_token_request::Rejected};

use crate::stage::{Stage, plain};

const GRANT: &str = "client_credentials";

/// Fifty clients see the 401 and report it, and fifty more ask for a replacement by `rejected_generation`.
pub(super) async fn a_revoked_token_is_replaced_once_however_many_report_it(stage: &Stage) -> Result<String> {
    const CLIENTS: usize = 50;
    let before = stage.minted("ci", GRANT).await?;
    let dead = revoked_token(stage).await?;

    let report = InvalidateTokenRequest {
        credential: "ci".into(),
        rejected: Some(Rejected::Generation(dead.generation)),
        http_status: 401,
        error: "invalid_token".into(),
        ..Default::default()
    };
    let reports = try_join_all((0..CLIENTS).map(|_| {
        let (mut client, report) = (stage.client.clone(), report.clone());
        async move { client.invalidate_token(report).await }
    }));
    let believed = reports.await?.iter().filter(|answer| answer.get_ref().invalidated).count();
    ensure!(believed == 1, "{believed} reports took the token out of service");

    let request = GetTokenRequest { rejected_generation: dead.generation, ..plain("ci") };
    let answers = try_join_all((0..CLIENTS).map(|_| stage.ask(request.clone()))).await?;
    for answer in answers {
        let token = answer.token.context("an answer without a token")?;
        ensure!(token.generation == dead.generation + 1, "generation {} after {}", token.generation, dead.generation);
        ensure!(token.fingerprint != dead.fingerprint, "the dead token came back");
    }
    let status = stage.idp.call_api(&stage.token("ci").await?.access_token).await?;
    ensure!(status == 200, "the API answers {status} to the new token");
    let calls = stage.minted("ci", GRANT).await? - before;
    ensure!(calls == 1, "{calls} upstream calls");
    Ok(format!("API 401; {CLIENTS} reports, 1 believed; {CLIENTS} replacements, 1 upstream call; API 200"))
}

/// The same by a person's hand.
pub(super) async fn a_report_by_the_command_line_brings_a_new_token(stage: &Stage) -> Result<String> {
    let before = stage.minted("ci", GRANT).await?;
    let dead = revoked_token(stage).await?;
    let generation = dead.generation.to_string();
    for _ in 0..2 {
        stage.cli.succeed(&["invalidate", "ci", "--generation", &generation]).await?;
    }
    let token = stage.cli.succeed(&["get", "ci"]).await?;
    stage.see(&token);
    ensure!(token != dead.access_token, "the dead token came back");
    ensure!(stage.idp.call_api(&token).await? == 200, "the API refuses the new token");
    let calls = stage.minted("ci", GRANT).await? - before;
    ensure!(calls == 1, "{calls} upstream calls");
    Ok(format!("generation {generation} reported twice, 1 upstream call; API 200"))
}

/// A token that the broker still holds for good and the provider does not.
async fn revoked_token(stage: &Stage) -> Result<Token> {
    let token = stage.token("ci").await?;
    ensure!(stage.idp.call_api(&token.access_token).await? == 200, "the API refuses a token that is not revoked");
    stage.idp.revoke(&token.access_token).await?;
    let said = stage.idp.introspect(&token.access_token).await?;
    ensure!(said["active"] == false, "the provider did not revoke the token: {said}");
    let status = stage.idp.call_api(&token.access_token).await?;
    ensure!(status == 401, "the API answers {status} to a revoked token");
    Ok(token)
}
