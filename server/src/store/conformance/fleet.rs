//! Replicas. Only where several may share the store.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use super::samples::*;
use crate::{
    store::{Applied, Heartbeat, Replica, SharedStore},
    types::ReplicaId,
};

const TTL: Duration = Duration::from_secs(60);

fn beat(id: &str, ttl: Duration, through: u64, missing: &[u64]) -> Heartbeat {
    let applied = Applied { through, missing: missing.to_vec() };
    Heartbeat { replica: ReplicaId::new(id), version: "1.2.3".into(), ttl, applied }
}

async fn replicas(store: &SharedStore) -> Vec<Replica> {
    store.replicas().await.expect("the store answers")
}

pub(super) async fn a_replica_is_seen_with_what_it_has_applied(store: SharedStore) {
    if !store.is_shared() {
        return;
    }
    assert_eq!(replicas(&store).await, vec![]);
    assert_eq!(store.heartbeat(beat("b", TTL, 7, &[])).await, Ok(()));
    assert_eq!(store.heartbeat(beat("a", TTL, 9, &[4, 6])).await, Ok(()));
    let first = replicas(&store).await;
    let seen: Vec<_> = first.iter().map(|replica| (replica.id.as_str(), replica.applied.clone())).collect();
    let applied = |through, missing| Applied { through, missing };
    assert_eq!(seen, [("a", applied(9, vec![4, 6])), ("b", applied(7, vec![]))]);
    assert!(first.iter().all(|replica| !replica.remaining.is_zero() && replica.version == "1.2.3"));
    assert_eq!(store.heartbeat(beat("a", TTL, 10, &[])).await, Ok(()));
    let second = replicas(&store).await;
    assert_eq!((second[0].applied.through, second[0].started_at), (10, first[0].started_at));
}

pub(super) async fn what_a_replica_has_applied_is_told_apart_from_its_lease(store: SharedStore) {
    if !store.is_shared() {
        return;
    }
    let (name, applied) = ("c'\\x61\"", Applied { through: 9, missing: vec![4, 6] });
    assert_eq!(store.applied(ReplicaId::new(name), applied.clone()).await, Ok(false), "it has sent no sign of life");
    assert_eq!(store.heartbeat(beat("b", TTL, 3, &[])).await, Ok(()));
    assert_eq!(store.heartbeat(beat(name, Duration::from_millis(20), 7, &[])).await, Ok(()));
    let lapsed = async || replicas(&store).await[1].remaining.is_zero();
    while !lapsed().await {
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(store.applied(ReplicaId::new(name), applied.clone()).await, Ok(true));
    let seen = replicas(&store).await;
    assert_eq!((seen[0].applied.through, &seen[1].applied), (3, &applied));
    assert!(lapsed().await, "its lease is as it was");
    let none = Applied { through: 12, missing: vec![] };
    assert_eq!(store.applied(ReplicaId::new(name), none.clone()).await, Ok(true));
    assert_eq!(replicas(&store).await[1].applied, none);
}

pub(super) async fn a_replica_that_is_silent_lapses_by_the_clock_of_the_store(store: SharedStore) {
    if !store.is_shared() {
        return;
    }
    assert_eq!(store.heartbeat(beat("a", Duration::from_millis(20), 0, &[])).await, Ok(()));
    while replicas(&store).await.iter().any(|replica| !replica.remaining.is_zero()) {
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(replicas(&store).await.len(), 1, "it is still shown");
}

pub(super) async fn a_replica_that_leaves_is_forgotten(store: SharedStore) {
    if !store.is_shared() {
        return;
    }
    assert_eq!(store.heartbeat(beat("a", TTL, 0, &[])).await, Ok(()));
    assert_eq!(store.leave(ReplicaId::new("a")).await, Ok(()));
    assert_eq!(store.leave(ReplicaId::new("never seen")).await, Ok(()));
    assert_eq!(replicas(&store).await, vec![]);
}

pub(super) async fn the_horizon_lies_before_every_young_event(store: SharedStore) {
    if !store.is_shared() {
        return;
    }
    assert_eq!(store.event_horizon(TTL).await, Ok(0));
    commit_up_to(&store, &key("a"), 3).await;
    let first = store.events(0, 1).await.expect("the store answers")[0].id;
    assert_eq!(store.event_horizon(TTL).await, Ok(first - 1));
    sleep(Duration::from_millis(20)).await;
    assert_eq!(store.event_horizon(Duration::ZERO).await, Ok(first + 2), "all are older");
}

pub(super) async fn a_change_is_hinted_to_who_listens(store: SharedStore) {
    if !store.is_shared() {
        return;
    }
    let hint = Arc::new(Notify::new());
    let (listening, heard) = (store.clone(), Arc::clone(&hint));
    let listener = tokio::spawn(async move { listening.listen(heard).await });
    // Whoever begins to listen may be told at once, to look for what came before. Then each change is.
    let mut generation = 0;
    while generation < 3 {
        generation += 1;
        commit_up_to(&store, &key(&format!("k{generation}")), 1).await;
        let hinted = timeout(Duration::from_secs(20), hint.notified()).await;
        assert!(hinted.is_ok(), "change {generation} was not hinted");
    }
    listener.abort();
}
