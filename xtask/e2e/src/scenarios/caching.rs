//! Cold keys and hits.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use tokencache_proto::v1::GetTokenRequest;
use tokio::time::Instant;

use crate::stage::{Stage, plain};

const GRANT: &str = "client_credentials";

/// The first token of a credential, through the command line.
pub(super) async fn a_cold_fetch_costs_one_upstream_call(stage: &Stage) -> Result<String> {
    let before = stage.idp.stats().await?;
    let token = stage.cli.succeed(&["get", "ci"]).await?;
    stage.see(&token);
    let after = stage.idp.stats().await?;
    let calls = after.token_requests() - before.token_requests();
    ensure!(calls == 1, "{calls} token requests");
    let said = stage.idp.introspect(&token).await?;
    ensure!(said["active"] == true && said["client_id"] == "ci", "the provider does not know the token: {said}");
    ensure!(stage.idp.call_api(&token).await? == 200, "the protected API refuses the token");
    Ok("1 token request; introspection says active; the API says 200".into())
}

/// The same token again and again, one after the other and all at once.
pub(super) async fn hits_cost_no_upstream_call(stage: &Stage) -> Result<String> {
    const CALLS: usize = 2_000;
    let before = stage.minted("ci", GRANT).await?;
    let first = stage.token("ci").await?;
    let begun = Instant::now();
    for _ in 0..CALLS {
        let token = stage.token("ci").await?;
        ensure!(token.fingerprint == first.fingerprint, "the token changed");
    }
    let took: Duration = begun.elapsed();
    let together = try_join_all((0..CALLS).map(|_| stage.token("ci"))).await?;
    ensure!(together.iter().all(|token| token.generation == first.generation), "the generation changed");
    let calls = stage.minted("ci", GRANT).await? - before;
    ensure!(calls == 0, "{calls} upstream calls");
    Ok(format!("{} calls, 0 upstream calls; one after the other {:.0?} each (debug build)", 2 * CALLS, took / 2_000))
}

/// Many callers ask for a key that nobody asked for before.
pub(super) async fn a_herd_at_a_cold_key_costs_one_upstream_call(stage: &Stage) -> Result<String> {
    const CALLERS: usize = 500;
    let before = stage.minted("ci", GRANT).await?;
    let request = GetTokenRequest { scopes: vec!["api:write".into()], ..plain("ci") };
    let answers = try_join_all((0..CALLERS).map(|_| stage.ask(request.clone()))).await?;
    let generations: Vec<_> = answers.iter().filter_map(|answer| Some(answer.token.as_ref()?.generation)).collect();
    ensure!(generations == vec![1; CALLERS], "not everybody got the first generation");
    let calls = stage.minted("ci", GRANT).await? - before;
    ensure!(calls == 1, "{calls} upstream calls");
    Ok(format!("{CALLERS} callers at once, 1 upstream call"))
}

/// RFC 8707: the token is for the resource that was asked for, and is another one than the plain token.
pub(super) async fn a_resource_indicator_reaches_the_provider(stage: &Stage) -> Result<String> {
    const RESOURCE: &str = "https://api.example/opaque";
    let token = stage.cli.succeed(&["get", "ci", "--resource", RESOURCE]).await?;
    stage.see(&token);
    let said = stage.idp.introspect(&token).await?;
    ensure!(said["aud"] == RESOURCE, "the token is for {}", said["aud"]);
    let refused = stage.cli.run(&["get", "ci", "--resource", "https://elsewhere.example"]).await?;
    ensure!(refused.code == 5, "an unknown resource ended with {}: {}", refused.code, refused.complaint);
    ensure!(refused.text.is_empty(), "an unknown resource gave a token");
    Ok(format!("introspection says aud = {RESOURCE}; an unknown resource ends with code 5"))
}

/// `client_secret_post` and an explicit `token_url`, beside `client_secret_basic` and discovery.
pub(super) async fn a_client_secret_may_travel_in_the_body(stage: &Stage) -> Result<String> {
    let header = stage.cli.succeed(&["get", "ci-post", "--output", "header"]).await?;
    let token = header.strip_prefix("Authorization: Bearer ").context("not a header line")?;
    stage.see(token);
    let said = stage.idp.introspect(token).await?;
    ensure!(said["client_id"] == "ci-post", "the token belongs to {}", said["client_id"]);
    Ok("introspection says client_id = ci-post".into())
}
