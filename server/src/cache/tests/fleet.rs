//! Several replicas over one store.

use std::{pin::pin, time::Duration};

use futures::{StreamExt as _, future::join_all};
use tokio::time::{Instant, sleep};

use super::world::{Plan, World};
use crate::{
    cache::{hub::Change, trust::TTL},
    credential::WhenDegraded,
    error::ErrorKind,
    provider::Rotation,
    store::faulty::FaultyTokenStore,
    store::{Commit, Fence},
    types::{Fingerprint, Generation, Token},
};

const FIRST: Generation = Generation::new(1);
const SECOND: Generation = Generation::new(2);

async fn fleet() -> Vec<World> {
    World::fleet(3, &Plan::default()).await
}

#[tokio::test(start_paused = true)]
async fn a_cold_key_asked_for_on_all_replicas_costs_one_upstream_call() {
    let worlds = fleet().await;
    let answers = join_all(worlds.iter().flat_map(|world| (0..100).map(|_| world.get()))).await;
    assert!(answers.into_iter().all(|entry| entry.is_ok_and(|entry| entry.token.generation == FIRST)));
    assert_eq!(worlds[0].upstream.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_ahead_on_all_replicas_costs_one_upstream_call_each_time() {
    let worlds = fleet().await;
    *worlds[0].upstream.lifetime.lock().unwrap() = Duration::from_secs(60);
    for _ in 0..600 {
        for world in &worlds {
            world.get().await.expect("there is always a valid token");
        }
        sleep(Duration::from_secs(1)).await;
    }
    let last = worlds[0].get().await.expect("a token").token.generation;
    assert_eq!(worlds[0].upstream.calls() as u64, last.get());
}

#[tokio::test(start_paused = true)]
async fn after_an_acknowledged_rejection_no_replica_serves_the_token_as_verified() {
    let worlds = fleet().await;
    for world in &worlds {
        assert!(world.serve(|_| {}).await.expect("a token").verified);
    }
    assert!(worlds[0].reject(FIRST).await.expect("acknowledged").invalidated);
    for world in &worlds {
        assert!(world.cache.parts.memory.get(&world.key().hash()).is_none_or(|e| e.token.generation > FIRST));
        let served = world.serve(|_| {}).await.expect("its replacement");
        assert_eq!(served.entry.expect("a token").token.generation, SECOND);
    }
    assert_eq!(worlds[0].upstream.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_rejection_waits_for_a_silent_replica_until_its_lease_lapses_and_no_longer() {
    let worlds = fleet().await;
    for world in &worlds {
        world.get().await.expect("a token");
    }
    worlds[2].go_deaf().await;
    let begun = Instant::now();
    worlds[0].reject(FIRST).await.expect("acknowledged");
    let took = begun.elapsed();
    assert!(took <= TTL + Duration::from_millis(100), "{took:?}");
    let served = worlds[2].serve(|_| {}).await.expect("it still serves");
    assert_eq!((served.verified, served.entry.expect("a token").token.generation), (false, FIRST));
    let reporter = worlds[2].get_with(|request| request.rejected = Some(FIRST)).await;
    assert_eq!(reporter.expect("its replacement").token.generation, SECOND, "who reported it never gets it back");
}

#[tokio::test(start_paused = true)]
async fn a_second_report_is_acknowledged_no_earlier_than_the_first() {
    let worlds = fleet().await;
    for world in &worlds {
        world.get().await.expect("a token");
    }
    worlds[2].go_deaf().await;
    let (first, second) = tokio::join!(worlds[0].reject(FIRST), async {
        sleep(Duration::from_millis(20)).await;
        worlds[1].reject(FIRST).await
    });
    assert!(first.expect("acknowledged").invalidated && !second.expect("acknowledged").invalidated);
    assert!(!worlds[2].serve(|_| {}).await.expect("it still serves").verified);
}

#[tokio::test(start_paused = true)]
async fn a_replica_out_of_touch_refuses_where_the_credential_says_so() {
    let plan = Plan { when_degraded: WhenDegraded::Refuse, ..Plan::default() };
    let worlds = World::fleet(2, &plan).await;
    worlds[1].get().await.expect("a token");
    worlds[1].go_deaf().await;
    sleep(TTL).await;
    assert_eq!(worlds[1].get().await.map(|_| ()).map_err(|e| e.kind()), Err(ErrorKind::StoreDown));
    assert!(worlds[0].get().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_watcher_hears_what_happens_on_another_replica() {
    let worlds = fleet().await;
    let mut changes = pin!(worlds[1].cache.watch(&worlds[1].watch_request()).expect("it is known"));
    assert!(matches!(changes.next().await, Some(Change::Token(entry)) if entry.token.generation == FIRST));
    worlds[0].reject(FIRST).await.expect("acknowledged");
    assert!(matches!(changes.next().await, Some(Change::Invalidated(floor)) if floor == SECOND));
    assert!(matches!(changes.next().await, Some(Change::Token(entry)) if entry.token.generation == SECOND));
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_rotates_is_sent_once_by_whichever_replica() {
    let worlds = World::fleet(3, &Plan { rotation: Some(Rotation::Strict), ..Plan::default() }).await;
    *worlds[0].upstream.grant.lock().unwrap() = Some("rt-seed".into());
    *worlds[0].upstream.lifetime.lock().unwrap() = Duration::from_secs(30);
    for _ in 0..600 {
        assert!(join_all(worlds.iter().map(World::get)).await.iter().all(Result::is_ok));
        sleep(Duration::from_secs(1)).await;
    }
    let sent = worlds[0].upstream.sent_grants();
    let expected: Vec<_> =
        std::iter::once("rt-seed".to_owned()).chain((1..sent.len()).map(|i| format!("rt-{i}"))).collect();
    assert!(sent.len() >= 20, "{}", sent.len());
    assert_eq!(sent, expected);
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_leaves_is_not_waited_for() {
    let worlds = fleet().await;
    worlds[0].get().await.expect("a token");
    worlds[2].go_deaf().await;
    worlds[2].store.leave(crate::types::ReplicaId::new("r2")).await.expect("the store works");
    let begun = Instant::now();
    worlds[0].reject(FIRST).await.expect("acknowledged");
    assert!(begun.elapsed() < Duration::from_millis(200), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn without_any_notification_a_rejection_is_heard_by_the_next_poll() {
    let ([first, second], _way) = World::pair_with_faulty_way(FaultyTokenStore::set_deaf).await;
    second.get().await.expect("a token");
    // Past its second look at the events, which comes with its first lease.
    sleep(Duration::from_secs(5)).await;
    let begun = Instant::now();
    assert!(first.reject(FIRST).await.expect("acknowledged").invalidated);
    assert!(begun.elapsed() < TTL, "{:?}", begun.elapsed());
    assert!(second.cache.parts.memory.get(&second.key().hash()).is_none_or(|held| held.token.generation > FIRST));
}

#[tokio::test(start_paused = true)]
async fn a_sign_of_life_counts_from_when_it_was_sent_however_late_its_answer() {
    for cut_after in (0..2500).step_by(100).map(Duration::from_millis) {
        let ([first, second], way) = World::pair_with_faulty_way(|_| {}).await;
        second.get().await.expect("a token");
        // Short enough for the lease to be prolonged in time.
        way.set_answer_delay(Duration::from_millis(600));
        sleep(Duration::from_secs(6) + cut_after).await;
        second.go_deaf().await;
        first.reject(FIRST).await.expect("acknowledged");
        let served = second.serve(|_| {}).await.expect("it serves all the same");
        let generation = served.entry.expect("modified").token.generation;
        assert!(!served.verified || generation > FIRST, "cut off after {cut_after:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_comes_back_reads_all_events_before_it_is_trusted() {
    // Without notifications: one would have the events read in any case.
    let ([first, second], way) = World::pair_with_faulty_way(FaultyTokenStore::set_deaf).await;
    second.get().await.expect("a token");
    sleep(Duration::from_secs(5)).await;
    way.set_down(true);
    sleep(TTL).await;
    first.reject(FIRST).await.expect("acknowledged");
    way.set_delay(Duration::from_millis(300));
    way.set_down(false);
    let mut last = None;
    for _ in 0..100 {
        sleep(Duration::from_millis(20)).await;
        let served = second.serve(|_| {}).await.expect("it serves all the same");
        let generation = served.entry.expect("modified").token.generation;
        assert!(!served.verified || generation > FIRST);
        last = Some((served.verified, generation));
    }
    assert_eq!(last, Some((true, SECOND)), "and then it is");
}

#[tokio::test(start_paused = true)]
async fn a_flight_that_has_read_the_store_before_a_rejection_brings_nothing_rejected() {
    let ([first, second], way) = World::pair_with_faulty_way(|_| {}).await;
    first.get().await.expect("a token");
    // This one load is answered late, nothing else.
    way.set_answer_delay(Duration::from_secs(1));
    let (early, ()) = tokio::join!(second.serve(|_| {}), async {
        sleep(Duration::from_millis(1)).await;
        way.set_answer_delay(Duration::ZERO);
        assert!(first.reject(FIRST).await.expect("acknowledged").invalidated);
        let late = second.serve(|_| {}).await.expect("its replacement");
        assert_eq!(late.entry.expect("modified").token.generation, SECOND);
    });
    assert_eq!(early.expect("its replacement").entry.expect("modified").token.generation, SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_replacement_that_could_not_be_loaded_is_loaded_later() {
    let (worlds, store) = World::fleet_with_faulty_store(2, &Plan::default()).await;
    worlds[1].get().await.expect("a token");
    let row = worlds[0].store.load(worlds[0].key().hash()).await.expect("the store works").expect("a row");
    let held = row.token.expect("a token");
    let commit = Commit {
        key: row.key,
        token: Token { generation: SECOND, fingerprint: Fingerprint::of(&"next".into()), ..held },
        fence: Fence::Next,
        config: row.config,
        last_used_at: row.last_used_at,
        grant: None,
    };
    store.set_failing(Some("load"));
    worlds[0].store.commit(commit).await.expect("the store works");
    let in_memory = || worlds[1].cache.parts.memory.get(&worlds[1].key().hash()).map(|entry| entry.token.generation);
    sleep(Duration::from_secs(3)).await;
    assert_eq!(in_memory(), Some(FIRST));
    store.set_failing(None);
    sleep(Duration::from_secs(3)).await;
    assert_eq!(in_memory(), Some(SECOND));
}
