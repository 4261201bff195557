//! Replacement ahead of expiry, and refresh tokens that rotate.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use prost_types::Timestamp;
use tokio::time::{Instant, sleep};

use crate::stage::{SHORT_TTL, Stage, plain};

/// How often the token is asked for.
const PAUSE: Duration = Duration::from_millis(40);

/// Clients ask without a break for five lifetimes: no call fails, no token is expired, the API refuses none.
pub(super) async fn tokens_are_replaced_ahead_of_expiry_for_five_lifetimes(stage: &Stage) -> Result<String> {
    const LIFETIMES: u32 = 5;
    let (first, minted_before) = settled(stage).await?;
    let end = Instant::now() + SHORT_TTL * LIFETIMES;
    let (mut calls, mut least) = (0_u32, i64::MAX);
    while Instant::now() < end {
        let answer = stage.ask(plain("short")).await?;
        let token = answer.token.context("an answer without a token")?;
        let expires_at = token.expires_at.context("a token without its expiry")?;
        let left = millis(expires_at) - millis(answer.server_time.context("an answer without the time")?);
        ensure!(left > 0, "a token that expired {left} ms ago");
        least = least.min(left);
        let status = stage.idp.call_api(&token.access_token).await?;
        ensure!(status == 200, "the API answers {status} to generation {} with {left} ms left", token.generation);
        calls += 1;
        sleep(PAUSE).await;
    }
    let (last, minted_after) = settled(stage).await?;
    let (generations, minted) = (last - first, minted_after - minted_before);
    ensure!(generations >= u64::from(LIFETIMES), "only {generations} replacements in {LIFETIMES} lifetimes");
    ensure!(generations == minted, "{generations} replacements, but {minted} upstream calls");
    Ok(format!(
        "{calls} calls and {calls} uses over {LIFETIMES} lifetimes of {SHORT_TTL:?}, 0 failed; {generations} replacements, \
         {minted} upstream calls; never less than {least} ms left"
    ))
}

/// The provider replaces the refresh token at each use and would end the whole family at the first reuse.
pub(super) async fn twenty_rotations_reuse_no_refresh_token(stage: &Stage) -> Result<String> {
    const ROTATIONS: u64 = 20;
    let before = stage.minted("crm", "refresh_token").await?;
    let mut generation = stage.token("crm/prod").await?.generation;
    for _ in 0..ROTATIONS {
        // No key is tried more than once a second, by whatever path.
        sleep(Duration::from_millis(1_100)).await;
        stage.cli.succeed(&["refresh", "crm/prod"]).await?;
        let token = stage.token("crm/prod").await?;
        ensure!(token.generation == generation + 1, "generation {} after {generation}", token.generation);
        generation = token.generation;
        ensure!(stage.idp.call_api(&token.access_token).await? == 200, "the API refuses generation {generation}");
    }
    let stats = stage.idp.stats().await?;
    let calls = stats.minted("crm", "refresh_token") - before;
    ensure!(calls == ROTATIONS + 1, "{calls} upstream calls");
    ensure!(stats.reuse_detected() == 0, "the provider saw {} reuses", stats.reuse_detected());
    Ok(format!(
        "{ROTATIONS} forced rotations after the first fetch, {calls} upstream calls, 0 reuses seen by the provider"
    ))
}

/// The generation and the provider's count at one moment: neither moved while both were read.
async fn settled(stage: &Stage) -> Result<(u64, u64)> {
    loop {
        let before = stage.minted("short", "client_credentials").await?;
        let generation = stage.token("short").await?.generation;
        let again = stage.token("short").await?.generation;
        if generation == again && stage.minted("short", "client_credentials").await? == before {
            return Ok((generation, before));
        }
    }
}

fn millis(time: Timestamp) -> i64 {
    time.seconds * 1_000 + i64::from(time.nanos) / 1_000_000
}
