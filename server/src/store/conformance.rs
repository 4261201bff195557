//! What every [`TokenStore`](super::TokenStore) must do, as tests that a plug-in of a third party can run too.
//!
//! Each property gets an empty store of its own and panics where the store breaks it. Nothing here depends on how fast
//! the store is; a store whose clock stands still fails the tests that wait for something to lapse.

mod audit;
mod endpoints;
mod events;
mod fleet;
mod grants;
mod journal;
mod leases;
pub(crate) mod samples;
mod secrets;
mod tokens;

use super::SharedStore;

/// Runs all properties, each on an empty store that `make` opens; the store is prepared here and closed afterwards.
///
/// # Panics
///
/// If the store breaks a property; the place of the panic names it.
pub async fn run(make: impl AsyncFn() -> SharedStore) {
    run_without_hints(&make).await;
    let store = new(&make).await;
    fleet::a_change_is_hinted_to_who_listens(store.clone()).await;
    store.close().await;
}

async fn new(make: impl AsyncFn() -> SharedStore) -> SharedStore {
    let store = make().await;
    store.prepare().await.expect("a new store can be prepared");
    store
}

/// The same where hints are known to be lost, as behind a pooler: all properties but that they come.
///
/// # Panics
///
/// As [`run`].
pub async fn run_without_hints(make: impl AsyncFn() -> SharedStore) {
    macro_rules! properties {
        ($($module:ident: $($property:ident),* ;)*) => {$($(
            let store = new(&make).await;
            $module::$property(store.clone()).await;
            store.close().await;
        )*)*};
    }
    properties! {
        tokens:
            an_unknown_key_has_no_row,
            a_token_reloads_equal_to_the_byte,
            extreme_values_reload_equal,
            a_commit_is_fenced_on_the_generation_before_it,
            a_token_that_was_served_unstored_passes_over_lower_generations_alone,
            a_generation_beyond_the_range_of_the_store_does_not_wrap,
            a_repeated_commit_counts_as_stored,
            of_racing_commits_exactly_one_wins,
            a_failure_is_recorded_and_ended_by_a_commit,
            a_late_failure_is_not_recorded,
            a_failure_leaves_the_token_to_the_configuration_that_minted_it,
            rows_that_never_had_a_token_are_pruned_when_they_are_old,
            use_never_goes_back,
            scanning_by_pages_sees_each_row_once,
            rows_are_found_by_credential,
            a_store_may_be_prepared_again,
            a_closed_store_fails;
        grants:
            a_planted_grant_reloads_equal,
            a_grant_is_planted_only_over_the_expected_version,
            of_racing_plantings_exactly_one_wins,
            a_commit_replaces_the_grant_and_keeps_the_one_that_was_sent,
            a_grant_that_comes_back_unchanged_keeps_the_one_before,
            a_commit_may_bring_the_first_grant,
            a_superseded_commit_still_replaces_an_unmoved_grant,
            a_late_refresh_token_is_kept_as_a_candidate,
            a_refresh_token_is_a_candidate_once,
            a_refresh_token_that_comes_alone_is_kept_as_one_that_comes_with_a_token,
            a_candidate_that_was_taken_is_the_grants_and_those_refused_before_it_are_dropped,
            of_racing_refresh_tokens_none_is_lost;
        journal:
            an_intent_is_journalled_only_for_the_current_version,
            an_intent_is_journalled_only_if_there_was_no_other_entry_since,
            of_racing_intents_exactly_one_is_journalled,
            an_intent_ages_by_the_clock_of_the_store,
            an_intent_that_is_overtaken_is_remembered_as_a_stray,
            an_intent_is_abandoned_by_its_owner_alone,
            a_new_refresh_token_ends_its_own_intent_and_no_other,
            a_grant_is_lost_only_at_the_version_that_was_tried,
            a_loss_ends_its_own_intent_and_no_other,
            a_loss_ends_with_a_refresh_that_was_begun_after_it,
            a_candidate_that_comes_after_the_loss_deserves_a_try;
        leases:
            a_lease_is_exclusive,
            of_many_concurrent_claims_one_is_granted,
            a_claim_may_be_repeated_by_its_owner,
            another_nonce_is_another_owner,
            a_lapsed_lease_can_be_claimed,
            a_lease_lapses_by_itself,
            a_lapsed_lease_that_nobody_took_is_renewed,
            a_lost_lease_is_not_renewed,
            a_released_lease_is_not_renewed,
            a_lease_is_released_by_its_owner_alone,
            scopes_do_not_exclude_one_another,
            a_lease_lasts_a_day_at_most;
        endpoints:
            no_more_are_admitted_than_there_are_places,
            who_is_not_admitted_holds_neither_lease_nor_place,
            a_claim_repeated_by_its_owner_takes_one_place,
            a_lease_excludes_whoever_has_a_place_and_the_other_way_round,
            endpoints_do_not_share_places,
            fewer_places_count_at_once_and_more_are_made,
            the_place_of_a_dead_holder_lapses,
            a_place_is_renewed_with_its_lease,
            failures_in_a_row_shut_an_endpoint_for_all,
            of_failures_at_once_each_counts,
            a_success_ends_what_was_held_against_an_endpoint,
            what_an_endpoint_asks_for_is_honoured_by_all,
            a_call_that_says_nothing_changes_nothing,
            exactly_one_of_many_probes_an_endpoint_that_may_work_again,
            the_probe_of_a_dead_flight_is_another_ones,
            a_probe_that_learned_nothing_leaves_it_to_the_next,
            a_probe_without_a_place_or_a_lease_is_no_probe;
        events:
            a_rejection_raises_the_floor_once,
            every_report_is_told_the_event_of_the_last_rejection,
            a_floor_never_goes_back,
            an_unknown_generation_is_not_rejected,
            of_racing_rejections_exactly_one_counts,
            a_commit_leaves_the_floor_where_it_is,
            each_change_appends_an_event_in_order,
            a_lost_grant_is_an_event_of_its_credential,
            what_changes_nothing_appends_no_event,
            events_are_paged,
            old_events_are_pruned;
        audit:
            audit_events_reload_equal_in_their_order,
            an_audit_event_is_kept_once,
            audit_events_are_found_by_what_they_are,
            audit_events_are_paged,
            old_audit_events_are_pruned;
        secrets:
            each_row_with_secrets_is_seen_once,
            what_is_kept_anew_is_the_same_secret,
            a_row_that_has_changed_since_is_left_as_it_is;
        fleet:
            a_replica_is_seen_with_what_it_has_applied,
            what_a_replica_has_applied_is_told_apart_from_its_lease,
            a_replica_that_is_silent_lapses_by_the_clock_of_the_store,
            a_replica_that_leaves_is_forgotten,
            the_horizon_lies_before_every_young_event;
    }
}
