use super::*;
use crate::{Explored, explore};

fn run<const N: usize>(rotation: Rotation, generations: u8, refresh_tokens: u8, bug: Option<Bug>) -> Explored {
    explore(Refresh::<N> { rotation, generations, refresh_tokens, bug })
}

#[expect(clippy::print_stdout, reason = "how much was explored is what a reader of the test's output wants to know")]
fn holds(name: &str, explored: &Explored) {
    println!("{name}: {} states, depth {}", explored.states, explored.depth);
    assert_eq!(explored.broken, vec![], "{name}");
    assert_eq!(explored.unreached, Vec::<&str>::new(), "{name}");
}

#[test]
fn the_protocol_holds_with_refresh_tokens_that_do_not_rotate() {
    holds("none, 3 replicas", &run::<3>(Rotation::None, 3, 2, None));
}

#[test]
fn the_protocol_holds_at_an_upstream_that_forgives_replays() {
    holds("grace, 2 replicas", &run::<2>(Rotation::Grace, 2, 4, None));
    holds("grace, 3 replicas", &run::<3>(Rotation::Grace, 1, 3, None));
}

#[test]
fn the_protocol_holds_at_a_strict_upstream() {
    holds("strict, 2 replicas", &run::<2>(Rotation::Strict, 4, 6, None));
    holds("strict, 3 replicas", &run::<3>(Rotation::Strict, 2, 4, None));
}

/// What the checker finds when this rule is broken, at the first upstream where it matters.
fn breaks(bug: Bug, rotation: Rotation) {
    let explored = run::<2>(rotation, 2, 5, Some(bug));
    let (property, steps) = explored.broken.first().unwrap_or_else(|| panic!("nothing misses {bug:?}: {explored:?}"));
    narrate(bug, property, steps);
}

#[expect(clippy::print_stdout, reason = "the steps to the failure are the explanation of the rule")]
fn narrate(bug: Bug, property: &str, steps: &[String]) {
    println!("{bug:?} breaks \"{property}\": {}", steps.join(", "));
}

#[test]
fn the_generation_is_the_fence() {
    breaks(Bug::NoFence, Rotation::None);
}

#[test]
fn the_intent_is_committed_before_the_post() {
    breaks(Bug::IntentAfterPost, Rotation::Strict);
}

#[test]
fn an_intent_is_not_overwritten_unseen() {
    breaks(Bug::IntentFencedOnVersionAlone, Rotation::Strict);
}

#[test]
fn a_strict_takeover_waits() {
    breaks(Bug::TakeoverWithoutWaiting, Rotation::Strict);
}

#[test]
fn an_intent_is_timed_by_the_clock_of_the_database() {
    breaks(Bug::IntentOnReplicaClock, Rotation::Strict);
}

#[test]
fn a_flight_that_is_too_late_does_not_send() {
    breaks(Bug::LatePost, Rotation::Strict);
    breaks(Bug::LatePost, Rotation::Grace);
}

#[test]
fn the_deadline_is_counted_from_before_the_intent() {
    breaks(Bug::DeadlineFromPost, Rotation::Strict);
}

#[test]
fn invalid_grant_is_not_believed_once_the_version_has_moved() {
    breaks(Bug::InvalidGrantAlwaysBelieved, Rotation::Grace);
}

#[test]
fn candidates_are_tried_before_a_grant_is_given_up() {
    breaks(Bug::CandidatesNotTried, Rotation::Grace);
}

#[test]
fn a_late_refresh_token_is_kept() {
    breaks(Bug::CandidateDropped, Rotation::Grace);
}

#[test]
fn a_loss_stays_until_a_refresh_begun_after_it_has_succeeded() {
    breaks(Bug::LossForgotten, Rotation::Strict);
}

#[test]
fn the_refresh_token_before_is_kept() {
    breaks(Bug::PreviousDropped, Rotation::Grace);
}

#[test]
fn the_refresh_token_that_was_sent_is_the_one_before() {
    breaks(Bug::PreviousNotTheOneSent, Rotation::Grace);
}

#[test]
fn a_doubt_stays_with_its_flight() {
    breaks(Bug::DoubtForgotten, Rotation::Strict);
}

#[test]
fn a_commit_leaves_the_intent_of_a_successor_open() {
    breaks(Bug::ForeignIntentEnded, Rotation::Strict);
}

#[test]
fn the_next_refresh_token_waits_for_stray_calls_with_the_one_before() {
    breaks(Bug::StrayCallForgotten, Rotation::Grace);
}

#[test]
fn nobody_sees_a_token_before_it_is_stored() {
    breaks(Bug::ServedBeforeCommit, Rotation::Grace);
}
