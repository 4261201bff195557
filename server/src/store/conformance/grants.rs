//! Grants: planting, rotation, the journal, late refresh tokens.

use std::{collections::BTreeSet, time::Duration};

use futures::future::join_all;

use super::samples::*;
use crate::{
    store::{Committed, Grant, GrantCandidate, GrantUpdate, RotationIntent, SharedStore},
    types::{Fingerprint, Secret},
};

pub(super) async fn a_planted_grant_reloads_equal(store: SharedStore) {
    assert_eq!(store.load_grant(credential("a")).await, Ok(None));
    let secret = "ключ \u{1f511} '\n";
    assert_eq!(store.plant_grant(seed("a", secret), 0).await, Ok(true));
    let expected = Grant {
        credential: credential("a"),
        version: 1,
        refresh_token: secret.into(),
        previous: None,
        seed: Fingerprint::of(&Secret::from(secret)),
        intent: None,
        needs_reauth: None,
        updated_at: at(1_700_000_000_321),
    };
    assert_eq!(grant(&store, "a").await, expected);
    assert_eq!(store.load_grant(credential("b")).await, Ok(None));
}

pub(super) async fn a_grant_is_planted_only_over_the_expected_version(store: SharedStore) {
    assert_eq!(store.plant_grant(seed("a", "r1"), 1).await, Ok(false));
    assert_eq!(store.plant_grant(seed("a", "r1"), 0).await, Ok(true));
    assert_eq!(store.plant_grant(seed("a", "r2"), 0).await, Ok(false));
    assert_eq!(grant(&store, "a").await.refresh_token, "r1".into());
    assert_eq!(store.begin_rotation(intent("a", 1, "o")).await, Ok(true));
    assert_eq!(store.lose_grant(credential("a"), 1, "revoked".into()).await, Ok(true));
    assert_eq!(store.plant_grant(seed("a", "r2"), 1).await, Ok(true));
    let grant = grant(&store, "a").await;
    assert_eq!((grant.version, grant.refresh_token), (2, "r2".into()));
    assert_eq!(grant.seed, Fingerprint::of(&"r2".into()));
    assert_eq!((grant.previous, grant.intent, grant.needs_reauth), (Some("r1".into()), None, None));
}

pub(super) async fn of_racing_plantings_exactly_one_wins(store: SharedStore) {
    for expected in 0..3 {
        let racers = (0..8).map(|racer| {
            let (store, seed) = (store.clone(), seed("a", &format!("r{expected} by {racer}")));
            tokio::spawn(async move { store.plant_grant(seed, expected).await.expect("the store answers") })
        });
        let won = join_all(racers).await.into_iter().filter(|won| *won.as_ref().expect("no panic")).count();
        assert_eq!((won, grant(&store, "a").await.version), (1, expected + 1));
    }
}

pub(super) async fn a_commit_replaces_the_grant_and_keeps_the_one_before(store: SharedStore) {
    assert_eq!(store.plant_grant(seed("a", "r1"), 0).await, Ok(true));
    for (generation, new, old) in [(1, "r2", "r1"), (2, "r3", "r2")] {
        let commit = commit_with_grant(&key("a"), generation, generation, new);
        assert_eq!(store.commit(commit).await, Ok(Committed::Stored));
        let grant = grant(&store, "a").await;
        assert_eq!((grant.version, grant.refresh_token), (generation + 1, new.into()));
        assert_eq!((grant.previous, grant.updated_at), (Some(old.into()), at(1_700_000_000_456)));
        assert_eq!(grant.seed, Fingerprint::of(&"r1".into()), "it descends from the first");
    }
    assert_eq!(late(&store, "a").await, Vec::<String>::new());
}

pub(super) async fn a_grant_that_comes_back_unchanged_keeps_the_one_before(store: SharedStore) {
    assert_eq!(store.plant_grant(seed("a", "r1"), 0).await, Ok(true));
    assert_eq!(store.commit(commit_with_grant(&key("a"), 1, 1, "r2")).await, Ok(Committed::Stored));
    assert_eq!(store.commit(commit_with_grant(&key("a"), 2, 2, "r2")).await, Ok(Committed::Stored));
    let grant = grant(&store, "a").await;
    assert_eq!((grant.version, grant.refresh_token, grant.previous), (3, "r2".into(), Some("r1".into())));
}

pub(super) async fn a_commit_may_bring_the_first_grant(store: SharedStore) {
    assert_eq!(store.commit(commit_with_grant(&key("a"), 1, 0, "r1")).await, Ok(Committed::Stored));
    let grant = grant(&store, "a").await;
    assert_eq!((grant.version, grant.refresh_token, grant.previous), (1, "r1".into(), None));
    assert_eq!(grant.seed, Fingerprint::of(&"r1".into()));
}

pub(super) async fn a_superseded_commit_still_replaces_an_unmoved_grant(store: SharedStore) {
    assert_eq!(store.plant_grant(seed("a", "r1"), 0).await, Ok(true));
    commit_up_to(&store, &key("a"), 2).await;
    assert_eq!(store.commit(commit_with_grant(&key("a"), 2, 1, "r2")).await, Ok(Committed::Stored), "a repetition");
    assert_eq!(store.commit(commit_with_grant(&key("a"), 1, 2, "r3")).await, Ok(Committed::Superseded));
    let grant = grant(&store, "a").await;
    assert_eq!((grant.version, grant.refresh_token, grant.previous), (3, "r3".into(), Some("r2".into())));
    assert_eq!(late(&store, "a").await, Vec::<String>::new());
}

pub(super) async fn a_late_refresh_token_is_kept_as_a_candidate(store: SharedStore) {
    assert_eq!(store.plant_grant(seed("a", "r1"), 0).await, Ok(true));
    assert_eq!(store.commit(commit_with_grant(&key("a"), 1, 1, "r2")).await, Ok(Committed::Stored));
    let before = grant(&store, "a").await;
    assert_eq!(store.commit(commit_with_grant(&key("a"), 2, 1, "late 1")).await, Ok(Committed::Stored));
    assert_eq!(store.commit(commit_with_grant(&key("a"), 1, 0, "late 2")).await, Ok(Committed::Superseded));
    assert_eq!(grant(&store, "a").await, before);
    let candidate = |base_version, refresh_token: &str| GrantCandidate {
        base_version,
        refresh_token: refresh_token.into(),
        at: at(1_700_000_000_456),
    };
    assert_eq!(store.candidates(credential("a")).await, Ok(vec![candidate(1, "late 1"), candidate(0, "late 2")]));
    assert_eq!(store.plant_grant(seed("a", "r3"), 2).await, Ok(true));
    assert_eq!(late(&store, "a").await, ["late 1", "late 2"], "a new grant does not drop them");
    assert_eq!(late(&store, "b").await, Vec::<String>::new());
}

pub(super) async fn a_refresh_token_is_a_candidate_once(store: SharedStore) {
    assert_eq!(store.plant_grant(seed("a", "r1"), 0).await, Ok(true));
    assert_eq!(store.commit(commit_with_grant(&key("a"), 1, 1, "r2")).await, Ok(Committed::Stored));
    for late in ["r1", "r2", "late", "late"] {
        assert_eq!(store.commit(commit_with_grant(&key("a"), 9, 1, late)).await, Ok(Committed::Superseded));
    }
    assert_eq!(late(&store, "a").await, ["late"]);
}

pub(super) async fn of_racing_refresh_tokens_none_is_lost(store: SharedStore) {
    assert_eq!(store.plant_grant(seed("a", "r0"), 0).await, Ok(true));
    let racers = (0..10).map(|racer| {
        let key = key_with("a", &[if racer < 5 { "x" } else { "y" }]);
        let mut commit = commit_with_grant(&key, 1, 1, &format!("r{racer}+"));
        commit.token = token(1, &format!("by {racer}"));
        let store = store.clone();
        tokio::spawn(async move { store.commit(commit).await.expect("the store answers") })
    });
    let outcomes = join_all(racers).await;
    let stored = outcomes.into_iter().filter(|o| *o.as_ref().expect("no panic") == Committed::Stored).count();
    assert_eq!(stored, 2, "one for each key");
    let grant = grant(&store, "a").await;
    assert_eq!((grant.version, grant.previous), (2, Some("r0".into())));
    let mut kept: BTreeSet<_> = late(&store, "a").await.into_iter().collect();
    assert_eq!(kept.len(), 9);
    kept.insert(grant.refresh_token.expose().clone());
    assert_eq!(kept, (0..10).map(|racer| format!("r{racer}+")).collect());
}

pub(super) async fn an_intent_is_journalled_only_for_the_current_version(store: SharedStore) {
    assert_eq!(store.begin_rotation(intent("a", 0, "o")).await, Ok(false), "there is no grant");
    assert_eq!(store.load_grant(credential("a")).await, Ok(None));
    assert_eq!(store.plant_grant(seed("a", "r1"), 0).await, Ok(true));
    let before = grant(&store, "a").await;
    for version in [0, 2] {
        assert_eq!(store.begin_rotation(intent("a", version, "o")).await, Ok(false));
        assert_eq!(grant(&store, "a").await, before);
    }
    assert_eq!(store.begin_rotation(intent("a", 1, "o")).await, Ok(true));
    let after = grant(&store, "a").await;
    assert_eq!(owner_of(&after), Some("o"));
    assert_eq!(after, Grant { intent: after.intent.clone(), ..before });
}

pub(super) async fn an_intent_ages_by_the_clock_of_the_store(store: SharedStore) {
    assert_eq!(store.plant_grant(seed("a", "r1"), 0).await, Ok(true));
    assert_eq!(store.begin_rotation(intent("a", 1, "o")).await, Ok(true));
    let age = async || grant(&store, "a").await.intent.map(|intent| intent.age).expect("it is open");
    let young = age().await;
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert!(age().await >= young + Duration::from_millis(20));
    let blind = intent("a", 1, "p");
    assert_eq!(store.begin_rotation(blind.clone()).await, Ok(false), "it does not know of the open one");
    let successor = RotationIntent { over: Some("o".into()), ..blind };
    assert_eq!(store.begin_rotation(successor.clone()).await, Ok(true), "its call begins anew");
    assert_eq!(store.begin_rotation(successor).await, Ok(false), "the one that it knew of is not open any more");
    assert_eq!(owner_of(&grant(&store, "a").await), Some("p"));
}

fn owner_of(grant: &Grant) -> Option<&str> {
    grant.intent.as_ref().map(|intent| intent.owner.as_str())
}

pub(super) async fn an_intent_is_abandoned_by_its_owner_alone(store: SharedStore) {
    assert_eq!(store.plant_grant(seed("a", "r1"), 0).await, Ok(true));
    let before = grant(&store, "a").await;
    assert_eq!(store.begin_rotation(intent("a", 1, "o")).await, Ok(true));
    for foreign in [intent("a", 1, "p"), intent("a", 2, "o"), intent("a", 0, "o"), intent("b", 1, "o")] {
        assert_eq!(store.abandon_rotation(foreign).await, Ok(()));
        assert_eq!(owner_of(&grant(&store, "a").await), Some("o"));
    }
    assert_eq!(store.abandon_rotation(intent("a", 1, "o")).await, Ok(()));
    assert_eq!(grant(&store, "a").await, before);
}

pub(super) async fn a_new_refresh_token_ends_the_intent_and_the_loss(store: SharedStore) {
    assert_eq!(store.plant_grant(seed("a", "r1"), 0).await, Ok(true));
    assert_eq!(store.begin_rotation(intent("a", 1, "o")).await, Ok(true));
    assert_eq!(store.lose_grant(credential("a"), 1, "in doubt".into()).await, Ok(true));
    assert_eq!(owner_of(&grant(&store, "a").await), Some("o"), "a loss does not settle the journal");
    assert_eq!(store.commit(commit_with_grant(&key("a"), 1, 1, "r2")).await, Ok(Committed::Stored));
    let after = grant(&store, "a").await;
    assert_eq!((after.version, after.intent, after.needs_reauth), (2, None, None));
    assert_eq!(store.abandon_rotation(intent("a", 1, "o")).await, Ok(()));
}

pub(super) async fn a_grant_is_lost_only_at_the_version_that_was_tried(store: SharedStore) {
    assert_eq!(store.lose_grant(credential("a"), 0, "revoked".into()).await, Ok(false));
    assert_eq!(store.load_grant(credential("a")).await, Ok(None));
    assert_eq!(store.plant_grant(seed("a", "r1"), 0).await, Ok(true));
    let before = grant(&store, "a").await;
    for version in [0, 2] {
        assert_eq!(store.lose_grant(credential("a"), version, "revoked".into()).await, Ok(false));
        assert_eq!(grant(&store, "a").await, before);
    }
    assert_eq!(store.lose_grant(credential("a"), 1, "revoked".into()).await, Ok(true));
    assert_eq!(grant(&store, "a").await, Grant { needs_reauth: Some("revoked".into()), ..before });
}

pub(super) async fn a_refresh_token_that_comes_alone_is_kept_as_one_that_comes_with_a_token(store: SharedStore) {
    let name = credential("a");
    assert_eq!(store.plant_grant(seed("a", "r1"), 0).await, Ok(true));
    let update = |base_version, token: &str| GrantUpdate { base_version, refresh_token: token.into(), at: at(1) };
    assert_eq!(store.advance_grant(name.clone(), update(1, "r2")).await, Ok(true));
    assert_eq!(store.advance_grant(name.clone(), update(1, "late")).await, Ok(false));
    let grant = store.load_grant(name.clone()).await.expect("the store works").expect("there is one");
    assert_eq!((grant.version, grant.refresh_token, grant.previous), (2, "r2".into(), Some("r1".into())));
    let candidates = store.candidates(name).await.expect("the store works");
    assert_eq!(candidates.iter().map(|c| c.refresh_token.clone()).collect::<Vec<_>>(), ["late".into()]);
}
