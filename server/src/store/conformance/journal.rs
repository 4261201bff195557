//! The journal of a grant: intents, strays, losses.

use std::time::Duration;

use super::samples::*;
use crate::{
    store::{Committed, Grant, GrantLoss, GrantUpdate, RotationIntent, SharedStore},
    types::Fingerprint,
};

/// An intent that knows of so many entries.
fn after(journal: u64, owner: &str) -> RotationIntent {
    RotationIntent { journal, ..intent("a", 1, owner) }
}

fn owner_of(grant: &Grant) -> Option<&str> {
    grant.intent.as_ref().map(|intent| intent.owner.as_str())
}

/// Fingerprint of the refresh token that the sample intent of this owner sends.
fn token_of(owner: &str) -> Option<Fingerprint> {
    Some(intent("a", 1, owner).token)
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
    let open = after.intent.clone().expect("it is open");
    assert_eq!((open.owner.as_str(), open.token), ("o", token_of("o")));
    assert_eq!(after, Grant { intent: Some(open), journal: 1, ..before });
}

pub(super) async fn an_intent_is_journalled_only_if_there_was_no_other_entry_since(store: SharedStore) {
    assert_eq!(store.plant_grant(seed("a", "r1"), 0).await, Ok(true));
    assert_eq!(store.begin_rotation(after(0, "o")).await, Ok(true));
    assert_eq!(store.begin_rotation(after(0, "p")).await, Ok(false), "it does not know of the open one");
    assert_eq!(store.abandon_rotation(after(0, "o")).await, Ok(()));
    assert_eq!(store.begin_rotation(after(0, "p")).await, Ok(false), "nor of one that has come and gone");
    assert_eq!(store.lose_grant(loss("a", 1, "revoked")).await, Ok(true));
    assert_eq!(store.begin_rotation(after(1, "p")).await, Ok(false), "nor of a loss");
    assert_eq!(store.begin_rotation(after(2, "p")).await, Ok(true));
    assert_eq!(grant(&store, "a").await.journal, 3);
}

pub(super) async fn of_racing_intents_exactly_one_is_journalled(store: SharedStore) {
    assert_eq!(store.plant_grant(seed("a", "r1"), 0).await, Ok(true));
    for journal in 0..3 {
        let racers = (0..8).map(|racer| {
            let (store, intent) = (store.clone(), after(journal, &format!("racer {racer}")));
            tokio::spawn(async move { store.begin_rotation(intent).await.expect("the store answers") })
        });
        let begun = futures::future::join_all(racers).await;
        assert_eq!(begun.into_iter().filter(|begun| *begun.as_ref().expect("no panic")).count(), 1);
    }
}

pub(super) async fn an_intent_ages_by_the_clock_of_the_store(store: SharedStore) {
    assert_eq!(store.plant_grant(seed("a", "r1"), 0).await, Ok(true));
    assert_eq!(store.begin_rotation(after(0, "o")).await, Ok(true));
    let age = async || grant(&store, "a").await.intent.map(|intent| intent.age).expect("it is open");
    let young = age().await;
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert!(age().await >= young + Duration::from_millis(20));
}

pub(super) async fn an_intent_that_is_overtaken_is_remembered_as_a_stray(store: SharedStore) {
    assert_eq!(store.plant_grant(seed("a", "r1"), 0).await, Ok(true));
    assert_eq!(store.begin_rotation(after(0, "o")).await, Ok(true));
    assert_eq!(store.begin_rotation(after(1, "o")).await, Ok(true));
    assert_eq!(grant(&store, "a").await.stray, None, "nobody overtakes himself");
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert_eq!(store.begin_rotation(after(2, "p")).await, Ok(true));
    let overtaken = grant(&store, "a").await;
    let (stray, open) = (overtaken.stray.expect("a stray"), overtaken.intent.expect("it is open"));
    assert_eq!((stray.token, open.token), (token_of("o"), token_of("p")));
    assert!(stray.age >= open.age + Duration::from_millis(20), "it keeps its age: {stray:?} {open:?}");
    assert_eq!(store.begin_rotation(after(3, "q")).await, Ok(true));
    assert_eq!(store.abandon_rotation(after(3, "q")).await, Ok(()));
    let left = grant(&store, "a").await;
    assert_eq!((left.stray.and_then(|stray| stray.token), left.intent), (token_of("p"), None), "the youngest");
    assert_eq!(store.begin_rotation(after(4, "r")).await, Ok(true));
    let last = grant(&store, "a").await;
    assert_eq!(last.stray.and_then(|stray| stray.token), token_of("p"), "what has ended is no stray");
    assert_eq!(store.plant_grant(seed("a", "s1"), 1).await, Ok(true));
    assert_eq!(grant(&store, "a").await.stray, None, "it has nothing to do with another person's grant");
}

pub(super) async fn an_intent_is_abandoned_by_its_owner_alone(store: SharedStore) {
    assert_eq!(store.plant_grant(seed("a", "r1"), 0).await, Ok(true));
    let before = grant(&store, "a").await;
    assert_eq!(store.begin_rotation(intent("a", 1, "o")).await, Ok(true));
    for foreign in [intent("a", 1, "p"), intent("b", 1, "o")] {
        assert_eq!(store.abandon_rotation(foreign).await, Ok(()));
        assert_eq!(owner_of(&grant(&store, "a").await), Some("o"));
    }
    assert_eq!(store.abandon_rotation(intent("a", 1, "o")).await, Ok(()));
    assert_eq!(grant(&store, "a").await, Grant { journal: 1, ..before });
}

pub(super) async fn a_new_refresh_token_ends_its_own_intent_and_no_other(store: SharedStore) {
    let name = credential("a");
    let own = |base_version, new: &str| GrantUpdate { intent: Some("o".into()), ..update(base_version, "r1", new) };
    assert_eq!(store.plant_grant(seed("a", "r1"), 0).await, Ok(true));
    assert_eq!(store.begin_rotation(after(0, "o")).await, Ok(true));
    assert_eq!(store.begin_rotation(after(1, "successor")).await, Ok(true));
    let commit = crate::store::Commit { grant: Some(own(1, "r2")), ..commit(&key("a"), 1) };
    assert_eq!(store.commit(commit).await, Ok(Committed::Stored));
    let committed = grant(&store, "a").await;
    assert_eq!((committed.version, owner_of(&committed)), (2, Some("successor")));
    assert_eq!(store.abandon_rotation(after(1, "successor")).await, Ok(()));
    for (base_version, new, replaced) in [(2, "r3", true), (2, "late", false)] {
        let journal = grant(&store, "a").await.journal;
        let version = grant(&store, "a").await.version;
        let begun = RotationIntent { journal, ..intent("a", version, "o") };
        assert_eq!(store.begin_rotation(begun).await, Ok(true));
        assert_eq!(store.advance_grant(name.clone(), own(base_version, new)).await, Ok(replaced));
        assert_eq!(owner_of(&grant(&store, "a").await), None, "also if it came late");
    }
}

pub(super) async fn a_grant_is_lost_only_at_the_version_that_was_tried(store: SharedStore) {
    assert_eq!(store.lose_grant(loss("a", 0, "revoked")).await, Ok(false));
    assert_eq!(store.load_grant(credential("a")).await, Ok(None));
    assert_eq!(store.plant_grant(seed("a", "r1"), 0).await, Ok(true));
    let before = grant(&store, "a").await;
    for version in [0, 2] {
        assert_eq!(store.lose_grant(loss("a", version, "revoked")).await, Ok(false));
        assert_eq!(grant(&store, "a").await, before);
    }
    assert_eq!(store.lose_grant(loss("a", 1, "revoked")).await, Ok(true));
    assert_eq!(grant(&store, "a").await, Grant { needs_reauth: Some("revoked".into()), journal: 1, ..before });
}

pub(super) async fn a_loss_ends_its_own_intent_and_no_other(store: SharedStore) {
    assert_eq!(store.plant_grant(seed("a", "r1"), 0).await, Ok(true));
    assert_eq!(store.begin_rotation(after(0, "o")).await, Ok(true));
    let by = |owner: &str| GrantLoss { intent: Some(owner.into()), ..loss("a", 1, "revoked") };
    assert_eq!(store.lose_grant(by("predecessor")).await, Ok(true));
    assert_eq!(owner_of(&grant(&store, "a").await), Some("o"));
    assert_eq!(store.lose_grant(by("o")).await, Ok(true));
    assert_eq!(owner_of(&grant(&store, "a").await), None);
}

pub(super) async fn a_loss_ends_with_a_refresh_that_was_begun_after_it(store: SharedStore) {
    let name = credential("a");
    assert_eq!(store.plant_grant(seed("a", "r1"), 0).await, Ok(true));
    assert_eq!(store.begin_rotation(after(0, "slow")).await, Ok(true));
    assert_eq!(store.lose_grant(loss("a", 1, "in doubt")).await, Ok(true));
    let begun_at =
        |as_of, base_version, sent: &str, new: &str| GrantUpdate { as_of, ..update(base_version, sent, new) };
    assert_eq!(store.advance_grant(name.clone(), begun_at(1, 1, "r1", "r2")).await, Ok(true));
    let late = grant(&store, "a").await;
    assert_eq!((late.version, late.refresh_token), (2, "r2".into()), "it is kept");
    assert_eq!((late.needs_reauth.as_deref(), late.retry), (Some("in doubt"), true), "but who knows what it is worth");
    assert_eq!(store.advance_grant(name.clone(), begun_at(2, 2, "r2", "r3")).await, Ok(true));
    let tried = grant(&store, "a").await;
    assert_eq!((tried.version, tried.needs_reauth, tried.retry), (3, None, false));
    assert_eq!(store.lose_grant(loss("a", 3, "revoked")).await, Ok(true));
    assert_eq!(store.advance_grant(name.clone(), begun_at(2, 3, "r3", "r4")).await, Ok(true));
    assert_eq!(store.lose_grant(loss("a", 4, "revoked")).await, Ok(true));
    let lost = grant(&store, "a").await;
    assert_eq!((lost.needs_reauth.as_deref(), lost.retry), (Some("revoked"), false), "it was tried");
}

pub(super) async fn a_candidate_that_comes_after_the_loss_deserves_a_try(store: SharedStore) {
    let name = credential("a");
    assert_eq!(store.plant_grant(seed("a", "r1"), 0).await, Ok(true));
    assert_eq!(store.advance_grant(name.clone(), update(1, "r1", "r2")).await, Ok(true));
    assert_eq!(store.lose_grant(loss("a", 2, "revoked")).await, Ok(true));
    for known in ["r1", "r2"] {
        assert_eq!(store.advance_grant(name.clone(), update(1, "r1", known)).await, Ok(false));
        assert!(!grant(&store, "a").await.retry, "it was tried");
    }
    assert_eq!(store.advance_grant(name.clone(), update(1, "r1", "late")).await, Ok(false));
    assert!(grant(&store, "a").await.retry);
    assert_eq!(store.plant_grant(seed("a", "s1"), 2).await, Ok(true));
    assert!(!grant(&store, "a").await.retry);
    assert_eq!(store.lose_grant(loss("a", 3, "revoked")).await, Ok(true));
    assert_eq!(store.advance_grant(name, update(2, "r2", "of another log-in")).await, Ok(false));
    assert!(!grant(&store, "a").await.retry);
}
