//! The breaker as a pure function.

use proptest::prelude::*;

use super::*;
use crate::types::ReplicaId;

const RULE: BreakerRule = BreakerRule { failures_to_open: 3, jitter: 1000 };
const FAILED: CallOutcome = CallOutcome::Failed(None);

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn owner(nonce: u64) -> LeaseOwner {
    LeaseOwner { replica: ReplicaId::new("r"), nonce }
}

fn failed(times: u32) -> EndpointState {
    (0..times).fold(EndpointState::default(), |state, i| state.after(FAILED, &owner(u64::from(i)), RULE))
}

/// The same, with a probe by `nonce` under way once it is half open.
fn probed(state: &EndpointState, nonce: u64) -> EndpointState {
    let state = state.aged(secs(3600));
    assert_eq!(state.gate(), Gate::Probe);
    EndpointState { probe: Some(Holder { owner: owner(nonce).to_string(), remaining: secs(5) }), ..state }
}

#[test]
fn it_opens_at_the_last_of_so_many_failures_in_a_row() {
    assert_eq!(failed(2).gate(), Gate::Free);
    assert_eq!((failed(3).gate(), failed(3).openings), (Gate::Shut(secs(5)), 1));
    assert_eq!(failed(2).after(CallOutcome::Succeeded, &owner(9), RULE), EndpointState::default());
}

#[test]
fn calls_that_were_under_way_when_it_opened_do_not_open_it_further() {
    let late = failed(32);
    assert_eq!((late.openings, late.gate()), (1, Gate::Shut(secs(5))));
    let half_open = failed(3).aged(secs(60)).after(FAILED, &owner(99), RULE);
    assert_eq!(half_open.gate(), Gate::Probe, "only the probe decides");
}

#[test]
fn each_failed_probe_doubles_the_time_up_to_a_minute() {
    let mut state = failed(3);
    for expected in [10, 20, 40, 60, 60] {
        state = probed(&state, 7).after(FAILED, &owner(7), RULE);
        assert_eq!((state.gate(), state.probe.clone()), (Gate::Shut(secs(expected)), None));
    }
    assert_eq!(probed(&state, 7).after(CallOutcome::Succeeded, &owner(7), RULE), EndpointState::default());
}

#[test]
fn one_flight_probes_and_another_takes_over_when_its_claim_has_lapsed() {
    let state = probed(&failed(3), 7);
    assert_eq!(state.gate(), Gate::Shut(secs(5)));
    assert_eq!(state.aged(secs(5)).gate(), Gate::Probe);
    let gave_up = state.after(CallOutcome::Unknown, &owner(7), RULE);
    assert_eq!(gave_up.gate(), Gate::Probe, "a probe that learned nothing leaves it to the next");
    assert_eq!(state.after(FAILED, &owner(8), RULE).gate(), state.gate(), "a stranger's failure is not the probe's");
}

#[test]
fn what_says_nothing_of_the_endpoint_changes_nothing() {
    for state in [EndpointState::default(), failed(2), failed(3)] {
        assert_eq!(state.after(CallOutcome::Unknown, &owner(9), RULE), state);
    }
}

#[test]
fn a_429_shuts_it_for_30_s_at_most_and_a_503_for_as_long_as_it_says() {
    let start = EndpointState::default();
    let throttled = start.after(CallOutcome::Throttled(Some(secs(600))), &owner(1), RULE);
    assert_eq!((throttled.gate(), throttled.failures, throttled.throttled), (Gate::Shut(secs(30)), 0, true));
    assert_eq!(start.after(CallOutcome::Throttled(None), &owner(1), RULE), start);
    for (asked, shut) in [(0, 1), (600, 600), (86_400, 3600)] {
        let down = start.after(CallOutcome::Failed(Some(secs(asked))), &owner(1), RULE);
        assert_eq!((down.gate(), down.throttled), (Gate::Shut(secs(shut)), false));
    }
    let longer = throttled.after(CallOutcome::Failed(Some(secs(60))), &owner(2), RULE);
    let shorter = longer.after(CallOutcome::Throttled(Some(secs(5))), &owner(3), RULE);
    assert_eq!((shorter.gate(), shorter.throttled), (Gate::Shut(secs(60)), false), "the longest counts");
    assert_eq!(shorter.after(CallOutcome::Succeeded, &owner(4), RULE), start, "a success ends it");
}

#[test]
fn a_probe_that_is_told_429_closes_the_breaker_and_waits() {
    let state = probed(&failed(3), 7).after(CallOutcome::Throttled(Some(secs(9))), &owner(7), RULE);
    assert_eq!((state.gate(), state.open_for, state.failures), (Gate::Shut(secs(9)), None, 0));
    assert_eq!(state.aged(secs(9)).gate(), Gate::Free);
}

fn outcome() -> impl Strategy<Value = CallOutcome> {
    let asked = || prop::option::of((0..10_000_u64).prop_map(Duration::from_secs));
    prop_oneof![
        Just(CallOutcome::Unknown),
        Just(CallOutcome::Succeeded),
        asked().prop_map(CallOutcome::Throttled),
        asked().prop_map(CallOutcome::Failed),
    ]
}

proptest! {
    #[test]
    fn it_is_never_shut_for_longer_than_an_hour_and_always_comes_back(
        calls in prop::collection::vec((outcome(), 0..4_u64, 0..=1000_u16, 0..120_u64), 0..200),
        failures_to_open in 1..8_u32,
    ) {
        let mut state = EndpointState::default();
        for (outcome, nonce, jitter, pause) in calls {
            if state.gate() == Gate::Probe {
                state.probe = Some(Holder { owner: owner(nonce).to_string(), remaining: secs(5) });
            }
            state = state.after(outcome, &owner(nonce), BreakerRule { failures_to_open, jitter }).aged(secs(pause));
            let left = match state.gate() { Gate::Shut(left) => left, _ => Duration::ZERO };
            prop_assert!(left <= secs(3600), "{state:?}");
            prop_assert!(state.open_for.unwrap_or_default() <= secs(60), "{state:?}");
            prop_assert_eq!(state.open_for.is_some(), state.openings > 0);
            prop_assert!(!matches!(state.aged(secs(3600)).gate(), Gate::Shut(_)), "{state:?}");
        }
    }

    #[test]
    fn jitter_is_drawn_over_the_upper_half(number in 1..40_u32, jitter in 0..=1000_u16) {
        let whole = opening(number, 1000);
        let time = opening(number, jitter);
        prop_assert!(whole / 2 <= time && time <= whole && whole <= secs(60), "{time:?} of {whole:?}");
    }
}
