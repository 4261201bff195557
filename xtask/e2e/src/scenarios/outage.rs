//! A provider that fails.

use anyhow::{Result, ensure};

use crate::stage::Stage;

/// A forced refresh meets 503: it fails with the code for "try again", and the valid token stays.
pub(super) async fn a_valid_token_is_served_while_the_provider_is_down(stage: &Stage) -> Result<String> {
    let old = stage.token("ci").await?;
    stage.idp.break_requests("ci", u32::MAX, 503).await?;
    let failed = stage.cli.run(&["refresh", "ci"]).await?;
    ensure!(failed.code == 4, "the refresh ended with {}: {}", failed.code, failed.complaint);
    let still = stage.token("ci").await?;
    ensure!(still.access_token == old.access_token, "the failed refresh displaced the valid token");
    stage.idp.break_requests("ci", 0, 503).await?;
    Ok(format!("refresh ends with code 4 ({}); the old token is served", failed.complaint))
}
