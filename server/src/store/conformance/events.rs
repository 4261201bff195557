//! Rejections and the feed of events.

use futures::future::join_all;

use super::samples::*;
use crate::{
    store::{Committed, Event, EventKind, GrantLoss, Rejected, SharedStore},
    time::Timestamp,
    types::{Generation, KeyHash, TokenKey},
};

fn rejected(invalidated: bool, min_generation: u64) -> Rejected {
    Rejected { invalidated, min_generation: Generation::new(min_generation), ..Rejected::default() }
}

async fn reject(store: &SharedStore, key: &TokenKey, generation: u64) -> Rejected {
    let rejected = store.reject(key.hash(), Generation::new(generation)).await.expect("the store answers");
    Rejected { generation: Generation::NONE, event: 0, ..rejected }
}

async fn events(store: &SharedStore) -> Vec<Event> {
    store.events(0, 1000).await.expect("the store answers")
}

pub(super) async fn a_rejection_raises_the_floor_once(store: SharedStore) {
    let key = key("a");
    commit_up_to(&store, &key, 1).await;
    let before = row(&store, &key).await;
    assert_eq!(reject(&store, &key, 1).await, rejected(true, 2));
    assert_eq!(reject(&store, &key, 1).await, rejected(false, 2));
    let after = row(&store, &key).await;
    assert_eq!(after.min_generation, Generation::new(2));
    assert_eq!((after.generation, after.token), (before.generation, before.token), "the token itself stays");
}

pub(super) async fn every_report_is_told_the_event_of_the_last_rejection(store: SharedStore) {
    let key = key("a");
    commit_up_to(&store, &key, 3).await;
    let report = async |generation| {
        let told = store.reject(key.hash(), Generation::new(generation)).await.expect("the store answers");
        assert_eq!(told.generation, Generation::new(3));
        told.event
    };
    assert_eq!(report(9).await, 0, "there was none");
    let first = report(2).await;
    let last = events(&store).await.pop().expect("there are events");
    assert_eq!((last.kind, last.id), (EventKind::Rejected, first));
    assert_eq!((report(2).await, report(1).await), (first, first));
    assert!(report(3).await > first);
}

pub(super) async fn a_floor_never_goes_back(store: SharedStore) {
    let key = key("a");
    commit_up_to(&store, &key, 3).await;
    assert_eq!(reject(&store, &key, 2).await, rejected(true, 3));
    assert_eq!(reject(&store, &key, 1).await, rejected(false, 3));
    assert_eq!(reject(&store, &key, 3).await, rejected(true, 4));
    for generation in 0..=3 {
        assert_eq!(reject(&store, &key, generation).await, rejected(false, 4));
    }
}

pub(super) async fn an_unknown_generation_is_not_rejected(store: SharedStore) {
    let key = key("a");
    assert_eq!(reject(&store, &key, 1).await, rejected(false, 0));
    assert_eq!(store.load(key.hash()).await, Ok(None));
    assert_eq!(store.record_failure(failed(&key, 0, 1)).await, Ok(()));
    assert_eq!(reject(&store, &key, 0).await, rejected(false, 0), "before the first token there is none");
    commit_up_to(&store, &key, 1).await;
    assert_eq!(reject(&store, &key, 2).await, rejected(false, 0));
}

pub(super) async fn of_racing_rejections_exactly_one_counts(store: SharedStore) {
    let key = key("a");
    commit_up_to(&store, &key, 1).await;
    let racers = (0..20).map(|_| {
        let (store, hash) = (store.clone(), key.hash());
        tokio::spawn(async move { store.reject(hash, Generation::new(1)).await.expect("the store answers") })
    });
    let outcomes: Vec<_> = join_all(racers).await.into_iter().map(|outcome| outcome.expect("no panic")).collect();
    assert_eq!(outcomes.iter().filter(|outcome| outcome.invalidated).count(), 1);
    assert!(outcomes.iter().all(|outcome| outcome.min_generation == Generation::new(2)));
    assert_eq!(events(&store).await.len(), 2);
}

pub(super) async fn a_commit_leaves_the_floor_where_it_is(store: SharedStore) {
    let key = key("a");
    commit_up_to(&store, &key, 1).await;
    reject(&store, &key, 1).await;
    assert_eq!(store.commit(commit(&key, 2)).await, Ok(Committed::Stored));
    assert_eq!(store.record_failure(failed(&key, 2, 1)).await, Ok(()));
    let row = row(&store, &key).await;
    assert_eq!((row.generation, row.min_generation), (Generation::new(2), Generation::new(2)));
}

pub(super) async fn each_change_appends_an_event_in_order(store: SharedStore) {
    let (a, b) = (key("a"), key("b"));
    commit_up_to(&store, &a, 1).await;
    commit_up_to(&store, &b, 1).await;
    reject(&store, &a, 1).await;
    assert_eq!(store.commit(commit(&a, 2)).await, Ok(Committed::Stored));
    let seen = events(&store).await;
    let expected = [
        (EventKind::Committed, &a, 1, 0),
        (EventKind::Committed, &b, 1, 0),
        (EventKind::Rejected, &a, 1, 2),
        (EventKind::Committed, &a, 2, 2),
    ];
    assert_eq!(seen.len(), expected.len());
    for (event, (kind, key, generation, min_generation)) in seen.iter().zip(expected) {
        assert_eq!((event.kind, event.key, &event.credential), (kind, key.hash(), key.credential()));
        let generations = (event.generation.get(), event.min_generation.get());
        assert_eq!(generations, (generation, min_generation));
        assert!(event.at > at(1_600_000_000_000), "by the store's clock: {:?}", event.at);
    }
    assert!(seen[0].id > 0, "so that 0 is before the first");
    assert!(seen.is_sorted_by(|one, next| one.id < next.id && one.at <= next.at));
}

pub(super) async fn a_lost_grant_is_an_event_of_its_credential(store: SharedStore) {
    let lose = async |version| {
        let loss = GrantLoss { credential: credential("a"), version, intent: None, reason: "revoked".into() };
        store.lose_grant(loss).await.expect("the store answers")
    };
    assert_eq!(store.plant_grant(seed("a", "r1"), 0).await, Ok(true));
    assert!(!lose(7).await, "it is another one by now");
    assert_eq!(events(&store).await, []);
    assert!(lose(1).await);
    let seen = events(&store).await;
    let [Event { kind, key, credential: name, generation, .. }] = &seen[..] else { panic!("not one event: {seen:?}") };
    assert_eq!((*kind, *key, name, generation.get()), (EventKind::GrantLost, KeyHash::NONE, &credential("a"), 1));
}

pub(super) async fn what_changes_nothing_appends_no_event(store: SharedStore) {
    let key = key("a");
    commit_up_to(&store, &key, 1).await;
    reject(&store, &key, 1).await;
    let before = events(&store).await;
    reject(&store, &key, 1).await;
    reject(&store, &key, 9).await;
    assert_eq!(store.commit(commit(&key, 9)).await, Ok(Committed::Superseded));
    assert_eq!(store.record_failure(failed(&key, 1, 1)).await, Ok(()));
    assert_eq!(store.plant_grant(seed("a", "r1"), 0).await, Ok(true));
    assert_eq!(events(&store).await, before);
}

pub(super) async fn events_are_paged(store: SharedStore) {
    commit_up_to(&store, &key("a"), 7).await;
    let all = events(&store).await;
    let mut seen: Vec<Event> = vec![];
    loop {
        let after = seen.last().map_or(0, |event| event.id);
        let page = store.events(after, 3).await.expect("the store answers");
        assert!(page.len() <= 3);
        if page.is_empty() {
            break;
        }
        seen.extend(page);
    }
    assert_eq!((seen.len(), seen), (7, all));
    assert_eq!(store.events(0, 0).await, Ok(vec![]));
}

pub(super) async fn old_events_are_pruned(store: SharedStore) {
    commit_up_to(&store, &key("a"), 3).await;
    let before = events(&store).await;
    assert_eq!(store.prune(Timestamp::MIN).await, Ok(0));
    assert_eq!(store.prune(before[0].at).await, Ok(0), "an event is kept at its own age");
    assert_eq!(events(&store).await, before);
    assert_eq!(store.prune(Timestamp::MAX).await, Ok(3));
    assert_eq!(events(&store).await, vec![]);
    assert_eq!(store.commit(commit(&key("a"), 4)).await, Ok(Committed::Stored));
    let after = events(&store).await;
    assert!(after.len() == 1 && after[0].id > before[2].id, "an id is not used again");
}
