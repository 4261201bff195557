//! Endpoints: places among the calls, and whether calls are admitted at all.

use std::{collections::BTreeSet, time::Duration};

use futures::future::join_all;

use super::samples::*;
use crate::{
    store::{
        Admission, BreakerRule, CallOutcome, Departure, EndpointClaim, EndpointState, EndpointView, Gate, LeaseOwner,
        LeaseScope, Pass, SharedStore, Turned,
    },
    types::Origin,
};

const FAILED: CallOutcome = CallOutcome::Failed(None);

fn origin(name: &str) -> Origin {
    Origin::parse(&format!("https://{name}.example")).expect("an origin")
}

/// A claim of the flight `nonce`, which has a key of its own, of one of `max_concurrent` places.
fn claim(nonce: u64, max_concurrent: u32) -> EndpointClaim {
    let scope = LeaseScope::Token(key(&format!("k{nonce}")).hash());
    let owner = owner("one", nonce);
    EndpointClaim { scope, owner, ttl: MINUTE, endpoint: origin("a"), max_concurrent, early: false }
}

async fn admit(store: &SharedStore, claim: EndpointClaim) -> Admission {
    store.admit(claim).await.expect("the store answers")
}

async fn admitted(store: &SharedStore, claim: EndpointClaim) -> Pass {
    match admit(store, claim).await {
        Admission::Granted(pass) => pass,
        other => panic!("there is a place, but the claim got {other:?}"),
    }
}

async fn depart(store: &SharedStore, pass: Pass, outcome: CallOutcome) -> Turned {
    let rule = BreakerRule { failures_to_open: 2, jitter: 0 };
    store.depart(Departure { pass, outcome, rule }).await.expect("the store answers")
}

async fn view(store: &SharedStore) -> EndpointView {
    store.endpoint(origin("a")).await.expect("the store answers")
}

/// Opens the endpoint by two failures in a row; what was noted.
async fn open(store: &SharedStore) -> EndpointState {
    for nonce in [101, 102] {
        let pass = admitted(store, claim(nonce, 9)).await;
        depart(store, pass, FAILED).await;
    }
    view(store).await.state
}

/// Waits until the store's clock has passed the time for which the endpoint is shut: 2.5 s at first.
async fn until_it_may_be_probed(store: &SharedStore) {
    while view(store).await.state.gate() != Gate::Probe {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(super) async fn no_more_are_admitted_than_there_are_places(store: SharedStore) {
    let claims = (0..40).map(|nonce| {
        let store = store.clone();
        tokio::spawn(async move { store.admit(claim(nonce, 5)).await })
    });
    let mut slots = BTreeSet::new();
    let mut passes = vec![];
    for answer in join_all(claims).await {
        match answer.expect("no panic").expect("the store answers") {
            Admission::Granted(pass) => {
                assert!(pass.slot < 5 && slots.insert(pass.slot) && !pass.probe, "{pass:?}");
                passes.push(pass);
            }
            other => assert_eq!(other, Admission::Full),
        }
    }
    // A claim passes over a place that another one is just at: that all are taken at the first go is not promised.
    for nonce in 100..105 {
        if passes.len() < 5 {
            passes.push(admitted(&store, claim(nonce, 5)).await);
        }
    }
    assert_eq!((passes.len(), view(&store).await.calls), (5, 5));
    assert_eq!(admit(&store, claim(200, 5)).await, Admission::Full);
    let freed = passes.pop().expect("five").clone();
    depart(&store, freed.clone(), CallOutcome::Succeeded).await;
    assert_eq!(admitted(&store, claim(200, 5)).await.slot, freed.slot);
}

pub(super) async fn who_is_not_admitted_holds_neither_lease_nor_place(store: SharedStore) {
    let pass = admitted(&store, claim(1, 1)).await;
    assert_eq!(admit(&store, claim(2, 1)).await, Admission::Full);
    assert_eq!(store.holder(claim(2, 1).scope).await, Ok(None));
    let rival = EndpointClaim { owner: owner("two", 1), ..claim(1, 9) };
    assert!(
        matches!(admit(&store, rival).await, Admission::Held(holder) if holder.owner == pass.lease.owner.to_string())
    );
    assert_eq!(view(&store).await.calls, 1);
    assert!(matches!(store.holder(claim(1, 1).scope).await, Ok(Some(holder)) if holder.remaining <= MINUTE));
}

pub(super) async fn a_claim_repeated_by_its_owner_takes_one_place(store: SharedStore) {
    let first = admitted(&store, claim(1, 3)).await;
    assert_eq!(admitted(&store, claim(1, 3)).await, first);
    assert_eq!(view(&store).await.calls, 1);
}

pub(super) async fn a_lease_excludes_whoever_has_a_place_and_the_other_way_round(store: SharedStore) {
    let lease = granted(&store, claim(1, 1).scope, owner("two", 7), MINUTE).await;
    assert!(matches!(admit(&store, claim(1, 1)).await, Admission::Held(_)));
    assert_eq!(view(&store).await.calls, 0);
    assert_eq!(store.release(lease).await, Ok(()));
    admitted(&store, claim(1, 1)).await;
    assert!(is_held(&store, claim(1, 1).scope, owner("two", 8)).await);
}

pub(super) async fn endpoints_do_not_share_places(store: SharedStore) {
    admitted(&store, claim(1, 1)).await;
    assert_eq!(admit(&store, claim(2, 1)).await, Admission::Full);
    admitted(&store, EndpointClaim { endpoint: origin("b"), ..claim(2, 1) }).await;
}

pub(super) async fn fewer_places_count_at_once_and_more_are_made(store: SharedStore) {
    for nonce in 0..4 {
        admitted(&store, claim(nonce, 4)).await;
    }
    assert_eq!(admit(&store, claim(10, 2)).await, Admission::Full);
    assert_eq!(admitted(&store, claim(11, 1024)).await.slot, 4);
}

pub(super) async fn the_place_of_a_dead_holder_lapses(store: SharedStore) {
    let dead = admitted(&store, EndpointClaim { ttl: Duration::from_millis(20), ..claim(1, 1) }).await;
    while view(&store).await.calls > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let heir = admitted(&store, claim(2, 1)).await;
    assert_eq!(heir.slot, dead.slot);
    assert_eq!(store.renew_pass(dead.clone(), MINUTE).await, Ok(false), "it is somebody else's");
    depart(&store, dead, CallOutcome::Unknown).await;
    assert_eq!(view(&store).await.calls, 1, "a late departure frees nobody else's place");
    assert_eq!(admit(&store, claim(3, 1)).await, Admission::Full);
}

pub(super) async fn a_place_is_renewed_with_its_lease(store: SharedStore) {
    let pass = admitted(&store, EndpointClaim { ttl: Duration::ZERO, ..claim(1, 1) }).await;
    assert_eq!(view(&store).await.calls, 0);
    assert_eq!(store.renew_pass(pass.clone(), MINUTE).await, Ok(true));
    assert_eq!(view(&store).await.calls, 1);
    assert!(is_held(&store, pass.lease.scope.clone(), owner("two", 2)).await);
    depart(&store, pass.clone(), CallOutcome::Unknown).await;
    assert_eq!(store.renew_pass(pass, MINUTE).await, Ok(false), "a late renewal revives nothing");
    assert_eq!(view(&store).await, EndpointView::default());
}

pub(super) async fn failures_in_a_row_shut_an_endpoint_for_all(store: SharedStore) {
    let first = admitted(&store, claim(1, 9)).await;
    let turned = depart(&store, first, FAILED).await;
    assert_eq!((turned.before.failures, turned.after.failures, turned.after.open_for), (0, 1, None));
    let second = admitted(&store, claim(2, 9)).await;
    let turned = depart(&store, second, FAILED).await;
    let half_of_five = Duration::from_millis(2500);
    assert_eq!((turned.before.failures, turned.after.gate()), (1, Gate::Shut(half_of_five)));
    match admit(&store, claim(3, 9)).await {
        Admission::Shut(state) => {
            assert_eq!((state.failures, state.openings), (2, 1));
            assert!(state.open_for.is_some_and(|left| left <= half_of_five && !left.is_zero()), "{state:?}");
        }
        other => panic!("the endpoint is shut, but the claim got {other:?}"),
    }
    assert_eq!(store.holder(claim(3, 9).scope).await, Ok(None));
    admitted(&store, EndpointClaim { endpoint: origin("b"), ..claim(3, 9) }).await;
}

pub(super) async fn of_failures_at_once_each_counts(store: SharedStore) {
    let mut passes = vec![];
    for nonce in 0..8 {
        passes.push(admitted(&store, claim(nonce, 9)).await);
    }
    let rule = BreakerRule { failures_to_open: 8, jitter: 0 };
    let departures = passes.into_iter().map(|pass| {
        let store = store.clone();
        tokio::spawn(async move { store.depart(Departure { pass, outcome: FAILED, rule }).await })
    });
    for turned in join_all(departures).await {
        turned.expect("no panic").expect("the store answers");
    }
    let state = view(&store).await.state;
    assert_eq!((state.failures, state.openings), (8, 1));
}

pub(super) async fn a_success_ends_what_was_held_against_an_endpoint(store: SharedStore) {
    let under_way = admitted(&store, claim(1, 9)).await;
    open(&store).await;
    let turned = depart(&store, under_way, CallOutcome::Succeeded).await;
    assert_eq!((turned.before.openings, turned.after), (1, EndpointState::default()));
    assert_eq!(view(&store).await, EndpointView::default());
    let next = admitted(&store, claim(2, 9)).await;
    assert_eq!(depart(&store, next, CallOutcome::Succeeded).await, Turned::default());
}

pub(super) async fn what_an_endpoint_asks_for_is_honoured_by_all(store: SharedStore) {
    let (asking, other) = (admitted(&store, claim(1, 9)).await, admitted(&store, claim(2, 9)).await);
    depart(&store, asking, CallOutcome::Failed(Some(MINUTE))).await;
    for nonce in [3, 4] {
        let Admission::Shut(state) = admit(&store, claim(nonce, 9)).await else { panic!("it asked for a minute") };
        assert!(state.wait <= MINUTE && state.wait > MINUTE / 2 && !state.throttled, "{state:?}");
    }
    depart(&store, other, CallOutcome::Succeeded).await;
    let throttled = admitted(&store, claim(3, 9)).await;
    depart(&store, throttled, CallOutcome::Throttled(Some(MINUTE))).await;
    let Admission::Shut(state) = admit(&store, claim(4, 9)).await else { panic!("it asked for fewer calls") };
    assert!(state.wait <= MINUTE / 2 && state.throttled && state.failures == 0, "{state:?}");
}

pub(super) async fn a_call_that_says_nothing_changes_nothing(store: SharedStore) {
    let pass = admitted(&store, claim(1, 9)).await;
    assert_eq!(depart(&store, pass, CallOutcome::Unknown).await.after.failures, 0);
    let pass = admitted(&store, claim(1, 9)).await;
    depart(&store, pass, FAILED).await;
    let pass = admitted(&store, claim(1, 9)).await;
    depart(&store, pass, CallOutcome::Unknown).await;
    assert_eq!(view(&store).await.state.failures, 1);
}

pub(super) async fn exactly_one_of_many_probes_an_endpoint_that_may_work_again(store: SharedStore) {
    open(&store).await;
    until_it_may_be_probed(&store).await;
    let claims = (0..30).map(|nonce| {
        let store = store.clone();
        tokio::spawn(async move { store.admit(claim(nonce, 9)).await })
    });
    let mut probes = vec![];
    for answer in join_all(claims).await {
        match answer.expect("no panic").expect("the store answers") {
            Admission::Granted(pass) if pass.probe => probes.push(pass),
            Admission::Shut(_) => {}
            other => panic!("a half open endpoint let through {other:?}"),
        }
    }
    assert_eq!((probes.len(), view(&store).await.calls), (1, 1));
    let pass = probes.remove(0);
    assert_eq!(store.renew_pass(pass.clone(), MINUTE).await, Ok(true));
    let prober = view(&store).await.state.probe.expect("somebody probes");
    assert_eq!(prober.owner, pass.lease.owner.to_string());
    let turned = depart(&store, pass, FAILED).await;
    assert_eq!((turned.after.openings, turned.after.gate()), (2, Gate::Shut(Duration::from_secs(5))));
    assert!(matches!(admit(&store, claim(50, 9)).await, Admission::Shut(state) if state.probe.is_none()));
}

pub(super) async fn the_probe_of_a_dead_flight_is_another_ones(store: SharedStore) {
    open(&store).await;
    let early = |nonce, ttl| EndpointClaim { early: true, ttl, ..claim(nonce, 9) };
    let dead = admitted(&store, early(1, Duration::from_millis(20))).await;
    assert!(dead.probe, "an operator may probe before its time");
    while view(&store).await.state.is_probed() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let heir = admitted(&store, early(2, MINUTE)).await;
    assert!(heir.probe);
    assert!(matches!(admit(&store, early(3, MINUTE)).await, Admission::Shut(_)), "one at a time");
    let before = view(&store).await.state.openings;
    depart(&store, dead, FAILED).await;
    let state = view(&store).await.state;
    assert_eq!((state.openings, state.is_probed()), (before, true), "a late failure is not the probe's");
    depart(&store, heir, CallOutcome::Succeeded).await;
    assert_eq!(view(&store).await.state, EndpointState::default());
}

pub(super) async fn a_probe_that_learned_nothing_leaves_it_to_the_next(store: SharedStore) {
    open(&store).await;
    let early = |nonce| EndpointClaim { early: true, ..claim(nonce, 9) };
    let pass = admitted(&store, early(1)).await;
    depart(&store, pass, CallOutcome::Unknown).await;
    assert!(admitted(&store, early(2)).await.probe);
}

pub(super) async fn a_probe_without_a_place_or_a_lease_is_no_probe(store: SharedStore) {
    let under_way = admitted(&store, claim(1, 9)).await;
    open(&store).await;
    let early = |owner: LeaseOwner, nonce| EndpointClaim { early: true, owner, ..claim(nonce, 1) };
    assert_eq!(admit(&store, early(owner("one", 2), 2)).await, Admission::Full);
    assert!(matches!(admit(&store, early(owner("one", 3), 1)).await, Admission::Held(_)));
    assert!(!view(&store).await.state.is_probed());
    depart(&store, under_way, CallOutcome::Unknown).await;
    assert!(admitted(&store, early(owner("one", 2), 2)).await.probe);
}
