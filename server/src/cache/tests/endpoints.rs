//! Replicas that share the budget of a token endpoint.

use std::{collections::BTreeSet, sync::atomic::Ordering, time::Duration};

use futures::future::join_all;
use tokio::time::{Instant, sleep};

use super::world::{Plan, World, allowed, name, selector};
use crate::{
    cache::{entry::MIN_SPACING, memory::Entry},
    credential::{Endpoint, EndpointRules},
    error::{Error, ErrorKind, Result},
    policy::{Action, CredentialRequest, RefreshRequest},
    provider::MintFailure,
    store::{Admission, EndpointClaim, EndpointView, Gate, LeaseOwner, LeaseScope},
    types::{Origin, ReplicaId, TokenKey},
};

fn origin() -> Origin {
    Origin::parse("https://idp.example").expect("an origin")
}

async fn fleet(rules: EndpointRules) -> Vec<World> {
    World::fleet(3, &Plan { endpoint: Some(Endpoint { origin: origin(), rules }), ..Plan::default() }).await
}

fn rules(max_concurrent: u32, failures_to_open: u32) -> EndpointRules {
    EndpointRules { max_concurrent, failures_to_open }
}

/// Asks for the key number `i`.
async fn get(world: &World, i: usize) -> Result<std::sync::Arc<Entry>> {
    world.get_with(|request| request.selector = selector(&[&format!("s{i}")])).await
}

async fn view(world: &World) -> EndpointView {
    world.store.endpoint(origin()).await.expect("the store works")
}

/// Fails with a Retry-After.
fn asks(kind: ErrorKind, seconds: u64) -> MintFailure {
    MintFailure::harmless(Error::new(kind, "leave me alone").with_retry_after(Duration::from_secs(seconds)))
}

/// Opens the breaker of an endpoint that is down, by a key of its own for each failure.
async fn open(world: &World, failures: usize) {
    world.upstream.fail(Some(ErrorKind::UpstreamDown));
    for i in 0..failures {
        get(world, 10_000 + i).await.expect_err("it is down");
    }
    assert!(matches!(view(world).await.state.gate(), Gate::Shut(_)));
}

#[tokio::test(start_paused = true)]
async fn a_thousand_keys_on_three_replicas_never_exceed_the_cap() {
    let worlds = fleet(rules(8, 5)).await;
    let answers = join_all(worlds.iter().flat_map(|world| (0..1000).map(|i| get(world, i)))).await;
    assert!(answers.iter().all(Result::is_ok));
    let upstream = &worlds[0].upstream;
    assert_eq!((upstream.calls(), upstream.most_at_once()), (1000, 8));
    assert_eq!(view(&worlds[0]).await, EndpointView::default(), "nothing is left behind");
}

#[tokio::test(start_paused = true)]
async fn flights_that_wait_do_not_ask_the_store_all_the_time() {
    let plan = Plan { endpoint: Some(Endpoint { origin: origin(), rules: rules(1, 5) }), ..Plan::default() };
    let (world, store) = World::with_faulty_store(&plan);
    *world.upstream.delay.lock().unwrap() = Duration::from_secs(15);
    let calls = join_all((0..500).map(|i| get(&world, i)));
    let measured = async {
        sleep(Duration::from_millis(50)).await;
        let before = store.operations();
        sleep(Duration::from_secs(10)).await;
        store.operations() - before
    };
    let (_, operations) = tokio::join!(tokio::time::timeout(Duration::from_secs(12), calls), measured);
    // One of them looks ten times a second, and the call that runs is renewed.
    assert!((100..=110).contains(&operations), "{operations} in 10 s");
}

#[tokio::test(start_paused = true)]
async fn a_budget_costs_no_further_operation_of_the_store() {
    for endpoint in [None, Some(Endpoint { origin: origin(), rules: rules(8, 5) })] {
        let (world, store) = World::with_faulty_store(&Plan { endpoint, ..Plan::default() });
        get(&world, 0).await.expect("a token");
        while store.operations() < 5 {
            sleep(Duration::from_millis(1)).await;
        }
        sleep(Duration::from_secs(1)).await;
        assert_eq!(store.operations(), 5, "load, claim, load, commit, give back");
    }
}

#[tokio::test(start_paused = true)]
async fn on_a_replica_who_comes_first_is_served_first() {
    let worlds = fleet(rules(1, 5)).await;
    let calls = (0..30).map(|i| {
        let world = &worlds[0];
        async move {
            sleep(Duration::from_millis(i as u64)).await;
            get(world, i).await.expect("a token").token.access_token.expose().clone()
        }
    });
    let tokens = join_all(calls).await;
    let expected: Vec<_> = (1..=30).map(|number| format!("at-{number}")).collect();
    assert_eq!(tokens, expected);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_too_long_is_told_when_to_come_again() {
    let worlds = fleet(rules(1, 5)).await;
    *worlds[0].upstream.delay.lock().unwrap() = Duration::from_secs(25);
    let first = get(&worlds[0], 0);
    let second = async {
        sleep(Duration::from_millis(10)).await;
        get(&worlds[1], 1).await
    };
    let (first, second) = tokio::join!(first, second);
    assert!(first.is_ok());
    let error = second.expect_err("the place is taken");
    assert_eq!((error.kind(), error.retry_after().is_some()), (ErrorKind::Overloaded, true), "{error}");
    assert_eq!(error.message(), "1 calls of https://idp.example are under way, which is as many as may be");
    let row = worlds[1].store.load(TokenKey::new(selector(&["s1"])).hash()).await.expect("the store works");
    assert!(row.is_none(), "not a failed attempt");
}

#[tokio::test(start_paused = true)]
async fn the_place_of_a_dead_replica_comes_back() {
    let worlds = fleet(rules(1, 5)).await;
    let dead = EndpointClaim {
        scope: LeaseScope::Token(TokenKey::new(selector(&["dead"])).hash()),
        owner: LeaseOwner { replica: ReplicaId::new("dead"), nonce: 1 },
        ttl: Duration::from_secs(5),
        endpoint: origin(),
        max_concurrent: 1,
        early: false,
    };
    assert!(matches!(worlds[0].store.admit(dead).await, Ok(Admission::Granted(_))));
    let begun = Instant::now();
    get(&worlds[1], 1).await.expect("a token once the place has lapsed");
    assert!((5000..5300).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_place_outlasts_its_first_term_while_the_call_runs() {
    let worlds = fleet(rules(1, 5)).await;
    *worlds[0].upstream.delay.lock().unwrap() = Duration::from_secs(9);
    let answers = join_all(worlds.iter().enumerate().map(|(i, world)| get(world, i))).await;
    assert!(answers.iter().all(Result::is_ok), "the third has waited for 18 s, which is less than its patience");
    assert_eq!(worlds[0].upstream.most_at_once(), 1);
}

#[tokio::test(start_paused = true)]
async fn failures_seen_by_different_replicas_add_up_and_stop_all_of_them() {
    let worlds = fleet(rules(32, 5)).await;
    let upstream = &worlds[0].upstream;
    upstream.fail(Some(ErrorKind::UpstreamSlow));
    for i in 0..5 {
        get(&worlds[i % 3], i).await.expect_err("it is down");
    }
    assert_eq!(upstream.calls(), 5);
    for (i, world) in worlds.iter().enumerate() {
        let error = get(world, 100 + i).await.expect_err("it is left alone");
        assert_eq!(error.kind(), ErrorKind::UpstreamDown);
        assert_eq!(error.message(), "https://idp.example has failed 5 times in a row and is left alone for a while");
        let again = error.retry_after().expect("it is told when");
        assert!(again >= MIN_SPACING && again <= Duration::from_secs(16), "{again:?}");
        let row = world.store.load(TokenKey::new(selector(&[&format!("s{}", 100 + i)])).hash()).await;
        assert_eq!(row, Ok(None), "a refusal is no failed attempt of the key");
    }
    assert_eq!(upstream.calls(), 5);
}

#[tokio::test(start_paused = true)]
async fn one_call_of_the_fleet_probes_for_all_keys() {
    let worlds = fleet(rules(32, 5)).await;
    open(&worlds[0], 5).await;
    let upstream = &worlds[0].upstream;
    for expected in 6..9 {
        while view(&worlds[0]).await.state.gate() != Gate::Probe {
            sleep(Duration::from_millis(100)).await;
        }
        let answers = join_all(worlds.iter().flat_map(|world| (0..200).map(|i| get(world, expected * 1000 + i)))).await;
        assert!(answers.iter().all(|answer| answer.as_ref().is_err_and(|e| e.kind() == ErrorKind::UpstreamDown)));
        assert_eq!(upstream.calls(), expected);
    }
    upstream.fail(None);
    while view(&worlds[0]).await.state.gate() != Gate::Probe {
        sleep(Duration::from_millis(100)).await;
    }
    get(&worlds[1], 1).await.expect("it works again");
    assert_eq!(view(&worlds[0]).await, EndpointView::default());
    let answers = join_all(worlds.iter().flat_map(|world| (20_000..20_200).map(|i| get(world, i)))).await;
    assert!(answers.iter().all(Result::is_ok), "closed for all at once");
}

#[tokio::test(start_paused = true)]
async fn through_an_outage_few_calls_are_made_and_then_all_keys_come_back_spread() {
    let worlds = fleet(rules(32, 5)).await;
    let upstream = &worlds[0].upstream;
    for i in 0..100 {
        get(&worlds[i % 3], i).await.expect("a token");
    }
    // They are due from 1440 s on.
    sleep(Duration::from_secs(1430)).await;
    upstream.fail(Some(ErrorKind::UpstreamDown));
    sleep(Duration::from_secs(1570)).await;
    for i in 0..100 {
        let token = get(&worlds[i % 3], i).await.expect("a valid token is served all the while");
        assert_eq!(token.token.generation.get(), 1);
    }
    let probes = upstream.calls() - 100;
    assert!((10..=50).contains(&probes), "{probes} calls in 26 minutes");
    upstream.fail(None);
    sleep(Duration::from_secs(150)).await;
    for i in 0..100 {
        assert_eq!(get(&worlds[i % 3], i).await.expect("a token").token.generation.get(), 2);
    }
    let times = upstream.call_times().split_off(100 + probes);
    assert_eq!(times.len(), 100);
    let seconds: BTreeSet<_> = times.iter().map(|time| time.as_millis() / 1000).collect();
    assert!(seconds.len() >= 5, "spread over {seconds:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_for_good_or_asks_for_patience_opens_no_breaker() {
    let worlds = fleet(rules(32, 2)).await;
    for (i, kind) in [ErrorKind::Misconfigured, ErrorKind::NeedsReauth, ErrorKind::UpstreamThrottled].iter().enumerate()
    {
        worlds[0].upstream.fail(Some(*kind));
        for j in 0..5 {
            let error = get(&worlds[j % 3], i * 10 + j).await.expect_err("it fails");
            assert_eq!(error.kind(), *kind);
        }
    }
    assert_eq!((worlds[0].upstream.calls(), view(&worlds[0]).await), (15, EndpointView::default()));
    worlds[0].upstream.fail(None);
    get(&worlds[0], 100).await.expect("a token");
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_provider_is_not_held_against_the_endpoint() {
    let worlds = fleet(rules(32, 1)).await;
    worlds[0].upstream.panics.store(true, Ordering::SeqCst);
    get(&worlds[0], 0).await.expect_err("it panics");
    assert_eq!(view(&worlds[0]).await, EndpointView::default());
}

#[tokio::test(start_paused = true)]
async fn what_one_replica_is_told_by_a_503_all_keys_honour() {
    let worlds = fleet(rules(32, 5)).await;
    let upstream = &worlds[0].upstream;
    upstream.then(Err(asks(ErrorKind::UpstreamDown, 120)));
    get(&worlds[0], 0).await.expect_err("it asks to be left alone");
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(119) {
        for (i, world) in worlds.iter().enumerate() {
            let error = get(world, 100 + i).await.expect_err("it is left alone");
            assert_eq!(error.kind(), ErrorKind::UpstreamDown);
        }
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(upstream.calls(), 1);
    sleep(Duration::from_secs(60)).await;
    for (i, world) in worlds.iter().enumerate() {
        get(world, 100 + i).await.expect("it may be asked again");
    }
}

#[tokio::test(start_paused = true)]
async fn a_429_keeps_other_keys_away_for_30_s_at_most_and_its_own_for_as_long_as_it_says() {
    let worlds = fleet(rules(32, 5)).await;
    let upstream = &worlds[0].upstream;
    upstream.then(Err(asks(ErrorKind::UpstreamThrottled, 300)));
    get(&worlds[0], 0).await.expect_err("it asks for patience");
    let error = get(&worlds[1], 1).await.expect_err("that concerns all for a while");
    assert_eq!(error.kind(), ErrorKind::UpstreamThrottled);
    sleep(Duration::from_secs(45)).await;
    get(&worlds[1], 1).await.expect("not for longer than 30 s, and some jitter");
    get(&worlds[0], 0).await.expect_err("its own key waits");
    assert_eq!(upstream.calls(), 2);
    sleep(Duration::from_secs(300)).await;
    get(&worlds[0], 0).await.expect("until its time has come");
}

#[tokio::test(start_paused = true)]
async fn a_success_ends_the_wait() {
    let worlds = fleet(rules(32, 5)).await;
    let upstream = &worlds[0].upstream;
    upstream.then(Err(asks(ErrorKind::UpstreamThrottled, 30)));
    *upstream.delay.lock().unwrap() = Duration::from_millis(50);
    let throttled = get(&worlds[0], 0);
    let slower = async {
        sleep(Duration::from_millis(20)).await;
        get(&worlds[1], 1).await
    };
    let (throttled, slower) = tokio::join!(throttled, slower);
    assert!(throttled.is_err() && slower.is_ok());
    get(&worlds[2], 2).await.expect("another client's 429 concerns nobody else where others succeed");
}

#[tokio::test(start_paused = true)]
async fn a_rejection_does_not_pass_an_open_breaker_but_an_operator_may_probe() {
    let worlds = fleet(rules(32, 5)).await;
    let first = worlds[1].get().await.expect("a token").token.generation;
    sleep(Duration::from_secs(2)).await;
    open(&worlds[0], 5).await;
    let upstream = &worlds[0].upstream;
    let error = worlds[1].get_with(|request| request.rejected = Some(first)).await.expect_err("it is left alone");
    assert_eq!((error.kind(), upstream.calls()), (ErrorKind::UpstreamDown, 6));
    upstream.fail(None);
    let report = worlds[2].cache.refresh(&allowed(RefreshRequest(selector(&[])))).await.expect("the operator probes");
    assert_eq!((report.generation, upstream.calls()), (first.next(), 7));
    assert_eq!(view(&worlds[0]).await, EndpointView::default());
}

#[tokio::test(start_paused = true)]
async fn a_probe_whose_replica_died_is_made_by_another() {
    let worlds = fleet(rules(32, 5)).await;
    open(&worlds[0], 5).await;
    worlds[0].upstream.fail(None);
    let dead = EndpointClaim {
        scope: LeaseScope::Token(TokenKey::new(selector(&["dead"])).hash()),
        owner: LeaseOwner { replica: ReplicaId::new("dead"), nonce: 1 },
        ttl: Duration::from_secs(5),
        endpoint: origin(),
        max_concurrent: 32,
        early: true,
    };
    assert!(matches!(worlds[0].store.admit(dead).await, Ok(Admission::Granted(pass)) if pass.probe));
    get(&worlds[1], 1).await.expect_err("somebody is at it");
    sleep(Duration::from_secs(20)).await;
    get(&worlds[1], 1).await.expect("it took over");
}

#[tokio::test(start_paused = true)]
async fn a_credential_without_an_endpoint_has_no_budget() {
    let worlds = World::fleet(1, &Plan::default()).await;
    worlds[0].upstream.fail(Some(ErrorKind::UpstreamDown));
    for i in 0..50 {
        get(&worlds[0], i).await.expect_err("it is down");
    }
    assert_eq!((worlds[0].upstream.calls(), view(&worlds[0]).await), (50, EndpointView::default()));
}

#[tokio::test(start_paused = true)]
async fn an_operator_is_told_how_the_endpoint_does() {
    let worlds = fleet(rules(32, 5)).await;
    let request = CredentialRequest { name: name("c"), action: Action::Inspect };
    let report = worlds[0].cache.describe(&allowed(request.clone())).await.expect("it is known");
    let endpoint = report.endpoint.expect("it has one");
    assert_eq!((endpoint.endpoint.origin, endpoint.view), (origin(), EndpointView::default()));
    open(&worlds[0], 5).await;
    let report = worlds[2].cache.describe(&allowed(request)).await.expect("it is known");
    assert_eq!(report.endpoint.expect("it has one").view.state.failures, 5);
    assert!(
        report.explanation.ends_with("; its token endpoint https://idp.example fails and is left alone for a while"),
        "{}",
        report.explanation
    );
}
