use super::*;
use crate::{Explored, explore};

const WHOLE: Rejection<1> = Rejection { others: 1, mints: true, restarts: true, forgetful_client: false, bug: None };

#[expect(clippy::print_stdout, reason = "how much was explored is what a reader of the test's output wants to know")]
fn holds(name: &str, explored: &Explored) {
    println!("{name}: {} states, depth {}", explored.states, explored.depth);
    assert_eq!(explored.broken, vec![], "{name}");
    assert_eq!(explored.unreached, Vec::<&str>::new(), "{name}");
}

#[test]
fn the_protocol_holds() {
    holds("rejection", &explore(WHOLE));
}

#[test]
fn the_protocol_holds_with_two_peers() {
    let model = Rejection::<3> { others: 1, mints: false, restarts: false, forgetful_client: false, bug: None };
    holds("rejection, 3 replicas", &explore(model));
}

#[test]
fn to_look_at_the_lease_before_the_entry_is_read_is_enough() {
    holds("rejection, one look", &explore(Rejection { others: 0, bug: Some(Bug::FreshnessReadEarly), ..WHOLE }));
}

/// A limit of the protocol: replicas learn of generation 2 one after another. A client must keep the highest generation
/// that it has seen and drop older answers, or stay with one replica.
#[test]
fn a_client_that_remembers_nothing_can_see_a_generation_go_back() {
    let explored = explore(Rejection::<1> { forgetful_client: true, ..WHOLE });
    assert!(explored.broken.iter().any(|(property, _)| property.starts_with("I1")), "{explored:?}");
}

#[expect(clippy::print_stdout, reason = "the steps to the failure are the explanation of the rule")]
fn breaks(bug: Bug) {
    let explored = explore(Rejection { bug: Some(bug), ..WHOLE });
    let (property, steps) = explored.broken.first().unwrap_or_else(|| panic!("nothing misses {bug:?}: {explored:?}"));
    println!("{bug:?} breaks \"{property}\": {}", steps.join(", "));
}

#[test]
fn the_acknowledgement_follows_the_commit() {
    breaks(Bug::AckBeforeCommit);
}

#[test]
fn the_acknowledgement_waits_for_live_replicas() {
    breaks(Bug::AckWithoutWaiting);
}

#[test]
fn a_report_on_a_replaced_generation_waits_too() {
    breaks(Bug::OldReportAnsweredAtOnce);
}

#[test]
fn leases_end_by_the_clock_of_the_database() {
    breaks(Bug::LeaseOnReplicaClock);
}

#[test]
fn a_lease_is_counted_from_before_its_heartbeat() {
    breaks(Bug::LeaseFromAnswer);
}

#[test]
fn the_clock_of_a_lease_goes_on_while_the_machine_sleeps() {
    breaks(Bug::ClockStandsStill);
}

#[test]
fn a_lease_renewed_after_a_lapse_counts_only_after_catching_up() {
    breaks(Bug::NoCatchUp);
}

#[test]
fn missing_ids_are_waited_for() {
    breaks(Bug::GapsIgnored);
}

#[test]
fn an_event_that_comes_too_late_is_appended_again() {
    breaks(Bug::LateEventNotRepeated);
}

#[test]
fn a_replica_that_starts_expects_missing_ids() {
    breaks(Bug::GapsUnknownAtStart);
}

#[test]
fn the_floor_outlives_the_entry() {
    breaks(Bug::FloorEvicted);
}

#[test]
fn the_lease_is_looked_at_before_the_entry_is_read() {
    breaks(Bug::FreshnessReadLate);
}

#[test]
fn what_a_flight_loaded_is_held_against_the_floor() {
    breaks(Bug::FlightPastFloor);
}
