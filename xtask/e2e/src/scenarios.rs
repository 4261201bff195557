//! The scenarios in the order in which they are played; each returns the figures that it saw.

mod caching;
mod outage;
mod reflection;
mod refresh;
mod rejection;
mod restart;
mod secrecy;

use anyhow::{Context as _, Result};

use crate::stage::Stage;

/// Plays one scenario, with its function's name as its sentence.
macro_rules! scenario {
    ($module:ident :: $name:ident, $stage:expr) => {{
        let sentence = stringify!($name).replace('_', " ");
        let figures = $module::$name($stage).await.with_context(|| sentence.clone())?;
        println!("ok  {sentence}\n      {figures}");
        Result::<()>::Ok(())
    }};
}

/// Plays all of them on one stage.
pub(crate) async fn play(stage: &mut Stage) -> Result<()> {
    scenario!(caching::a_cold_fetch_costs_one_upstream_call, stage)?;
    scenario!(caching::hits_cost_no_upstream_call, stage)?;
    scenario!(caching::a_herd_at_a_cold_key_costs_one_upstream_call, stage)?;
    scenario!(caching::a_resource_indicator_reaches_the_provider, stage)?;
    scenario!(caching::a_client_secret_may_travel_in_the_body, stage)?;
    scenario!(rejection::a_revoked_token_is_replaced_once_however_many_report_it, stage)?;
    scenario!(rejection::a_report_by_the_command_line_brings_a_new_token, stage)?;
    // Side by side, for both mostly wait.
    let (ahead, rotated) = tokio::join!(
        async { scenario!(refresh::tokens_are_replaced_ahead_of_expiry_for_five_lifetimes, stage) },
        async { scenario!(refresh::twenty_rotations_reuse_no_refresh_token, stage) },
    );
    ahead.and(rotated)?;
    scenario!(reflection::a_reflection_client_lists_and_calls_the_admin_service, stage)?;
    scenario!(outage::a_valid_token_is_served_while_the_provider_is_down, stage)?;
    scenario!(restart::a_restart_finds_the_tokens_again, stage)?;
    scenario!(restart::a_killed_broker_finds_tokens_and_grant_again, stage)?;
    scenario!(secrecy::no_token_and_no_secret_is_in_the_log, stage)
}
