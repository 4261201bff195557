//! What outlives the process.

use anyhow::{Result, ensure};

use crate::stage::Stage;

/// An orderly end and a new start: the same tokens, without one upstream call for them.
pub(super) async fn a_restart_finds_the_tokens_again(stage: &mut Stage) -> Result<String> {
    let before = [stage.token("ci").await?, stage.token("crm/prod").await?];
    let counts = counts(stage).await?;
    stage.broker.stop().await?;
    stage.broker.start().await?;
    let after = [stage.token("ci").await?, stage.token("crm/prod").await?];
    for (old, new) in before.iter().zip(&after) {
        ensure!((old.generation, &old.access_token) == (new.generation, &new.access_token), "another token");
    }
    ensure!(self::counts(stage).await? == counts, "upstream calls after the restart");
    Ok("SIGTERM, exit code 0, start: 2 tokens found again, 0 upstream calls".into())
}

/// A crash: the tokens are there, and so is the refresh token that the last rotation gave.
pub(super) async fn a_killed_broker_finds_tokens_and_grant_again(stage: &mut Stage) -> Result<String> {
    let old = stage.token("crm/prod").await?;
    stage.broker.kill().await?;
    stage.broker.start().await?;
    let found = stage.token("crm/prod").await?;
    ensure!(found.access_token == old.access_token, "another token");
    stage.cli.succeed(&["refresh", "crm/prod"]).await?;
    let new = stage.token("crm/prod").await?;
    ensure!(new.generation == old.generation + 1, "generation {} after {}", new.generation, old.generation);
    ensure!(stage.idp.call_api(&new.access_token).await? == 200, "the API refuses the new token");
    let reuses = stage.idp.stats().await?.reuse_detected();
    ensure!(reuses == 0, "the provider saw {reuses} reuses");
    Ok("SIGKILL, start: token found again; one more rotation, 0 reuses seen by the provider".into())
}

/// The credential with short tokens goes on being refreshed, so the counts of the others are what tells.
async fn counts(stage: &Stage) -> Result<[u64; 2]> {
    let stats = stage.idp.stats().await?;
    Ok([stats.minted("ci", "client_credentials"), stats.minted("crm", "refresh_token")])
}
