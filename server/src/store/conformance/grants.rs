//! Grants: planting, rotation, late refresh tokens.

use std::collections::BTreeSet;

use futures::future::join_all;

use super::samples::*;
use crate::{
    store::{Committed, Grant, GrantCandidate, GrantSeed, GrantUpdate, SharedStore},
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
        previous_since: 0,
        seed: Fingerprint::of(&Secret::from(secret)),
        planted: 1,
        journal: 0,
        intent: None,
        stray: None,
        needs_reauth: None,
        retry: false,
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
    assert_eq!(store.lose_grant(loss("a", 1, "revoked")).await, Ok(true));
    let over = GrantSeed { previous: Some("r1".into()), ..seed("a", "r2") };
    assert_eq!(store.plant_grant(over, 1).await, Ok(true));
    let grant = grant(&store, "a").await;
    assert_eq!((grant.version, grant.planted, grant.refresh_token), (2, 2, "r2".into()));
    assert_eq!(grant.seed, Fingerprint::of(&"r2".into()));
    assert_eq!((grant.previous, grant.intent, grant.needs_reauth), (Some("r1".into()), None, None));
    assert_eq!(grant.journal, 2, "the journal goes on");
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

pub(super) async fn a_commit_replaces_the_grant_and_keeps_the_one_that_was_sent(store: SharedStore) {
    assert_eq!(store.plant_grant(seed("a", "r1"), 0).await, Ok(true));
    for (generation, new) in [(1, "r2"), (2, "r3")] {
        let commit = commit_with_grant(&key("a"), generation, generation, new);
        assert_eq!(store.commit(commit).await, Ok(Committed::Stored));
        let grant = grant(&store, "a").await;
        assert_eq!((grant.version, grant.refresh_token), (generation + 1, new.into()));
        let sent = format!("sent at {generation}").as_str().into();
        assert_eq!((grant.previous, grant.updated_at), (Some(sent), at(1_700_000_000_456)));
        assert_eq!((grant.seed, grant.planted), (Fingerprint::of(&"r1".into()), 1), "it descends from the first");
    }
    assert_eq!(late(&store, "a").await, Vec::<String>::new());
}

pub(super) async fn a_grant_that_comes_back_unchanged_keeps_the_one_before(store: SharedStore) {
    let name = credential("a");
    assert_eq!(store.plant_grant(seed("a", "r1"), 0).await, Ok(true));
    assert_eq!(store.advance_grant(name.clone(), update(1, "r1", "r2")).await, Ok(true));
    assert_eq!(store.advance_grant(name, update(2, "r2", "r2")).await, Ok(true));
    let grant = grant(&store, "a").await;
    assert_eq!((grant.version, grant.refresh_token, grant.previous), (3, "r2".into(), Some("r1".into())));
    assert_eq!(grant.previous_since, 2, "it became that with the version before");
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
    assert_eq!((grant.version, grant.refresh_token, grant.previous), (3, "r3".into(), Some("sent at 2".into())));
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
        fingerprint: Some(Fingerprint::of(&refresh_token.into())),
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
    for late in ["sent at 1", "r2", "late", "late"] {
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
    assert_eq!((grant.version, grant.previous), (2, Some("sent at 1".into())));
    let mut kept: BTreeSet<_> = late(&store, "a").await.into_iter().collect();
    assert_eq!(kept.len(), 9);
    kept.insert(grant.refresh_token.expose().clone());
    assert_eq!(kept, (0..10).map(|racer| format!("r{racer}+")).collect());
}

pub(super) async fn a_candidate_that_was_taken_is_the_grants_and_those_refused_before_it_are_dropped(
    store: SharedStore,
) {
    let name = credential("a");
    assert_eq!(store.plant_grant(seed("a", "r1"), 0).await, Ok(true));
    assert_eq!(store.advance_grant(name.clone(), update(1, "r1", "r2")).await, Ok(true));
    for late in ["late 1", "late 2", "late 3"] {
        assert_eq!(store.advance_grant(name.clone(), update(1, "r1", late)).await, Ok(false));
    }
    let refused = vec!["r2".into(), "late 3".into()];
    let saved = GrantUpdate { refused: refused.clone(), ..update(2, "late 2", "r4") };
    assert_eq!(store.advance_grant(name.clone(), saved).await, Ok(true));
    let saved = grant(&store, "a").await;
    assert_eq!((saved.version, saved.refresh_token, saved.previous), (3, "r4".into(), Some("late 2".into())));
    assert_eq!(late(&store, "a").await, ["late 1"], "it may be alive");
    let overtaken = GrantUpdate { refused, ..update(2, "late 1", "r5") };
    assert_eq!(store.advance_grant(name, overtaken).await, Ok(false));
    assert_eq!(late(&store, "a").await, ["late 1", "r5"], "what did not become the grant's drops nothing");
}

pub(super) async fn a_refresh_token_that_comes_alone_is_kept_as_one_that_comes_with_a_token(store: SharedStore) {
    let name = credential("a");
    assert_eq!(store.plant_grant(seed("a", "r1"), 0).await, Ok(true));
    assert_eq!(store.advance_grant(name.clone(), update(1, "r1", "r2")).await, Ok(true));
    assert_eq!(store.advance_grant(name.clone(), update(1, "r1", "late")).await, Ok(false));
    let grant = store.load_grant(name.clone()).await.expect("the store works").expect("there is one");
    assert_eq!((grant.version, grant.refresh_token, grant.previous), (2, "r2".into(), Some("r1".into())));
    let candidates = store.candidates(name).await.expect("the store works");
    assert_eq!(candidates.iter().map(|c| c.refresh_token.clone()).collect::<Vec<_>>(), ["late".into()]);
}
