//! What must not be written down.

use anyhow::{Result, ensure};

use crate::{broker::SECRETS, stage::Stage};

/// The log of all of the broker's lives, at the level of debugging, has neither a token nor a client secret.
pub(super) async fn no_token_and_no_secret_is_in_the_log(stage: &mut Stage) -> Result<String> {
    stage.broker.stop().await?;
    let log = stage.broker.log()?;
    ensure!(!log.is_empty(), "the log is empty, so that nothing can be said of it");
    let seen = stage.seen();
    ensure!(!seen.iter().any(|token| log.contains(token.as_str())), "a token is in the log");
    let told = SECRETS.iter().find(|(_, secret)| log.contains(secret));
    ensure!(told.is_none(), "a client secret is in the log: {}", told.map_or("", |(name, _)| name));
    let refused = stage.idp.stats().await?;
    Ok(format!(
        "{} tokens and {} secrets looked for in {} lines; refused by the provider in the whole run: {}",
        seen.len(),
        SECRETS.len(),
        log.lines().count(),
        refused.refused()
    ))
}
