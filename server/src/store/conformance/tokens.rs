//! Tokens: fenced commits, failures, use, scanning.

use std::collections::BTreeSet;

use futures::future::join_all;

use super::samples::*;
use crate::{
    error::ErrorKind,
    store::{Commit, Committed, FailedAttempt, Failures, Fence, SharedStore, TokenRow},
    time::Timestamp,
    types::{Fingerprint, Generation, KeyHash, Secret, Selector, Terms, Token, TokenKey},
};

pub(super) async fn an_unknown_key_has_no_row(store: SharedStore) {
    assert_eq!(store.load(key("a").hash()).await, Ok(None));
    assert_eq!(store.scan(None, 10).await, Ok(vec![]));
    assert_eq!(store.rows_of(credential("a"), 10).await, Ok(vec![]));
}

pub(super) async fn a_token_reloads_equal_to_the_byte(store: SharedStore) {
    let unicode = "ключ \u{202e}\u{1f511} \"'\\%_\n\t$1 ?";
    let secrets = ["plain", unicode, &"x".repeat(64 * 1024)];
    for (name, secret) in ["a", "b/c", "d.e"].into_iter().zip(secrets) {
        let selector = Selector::new(
            credential(name),
            vec![unicode.into(), "z".into(), "a".into()],
            Some(unicode.into()),
            vec!["https://b.example/?q=1".into(), "urn:a".into()],
        );
        let key = TokenKey::new(selector);
        let attributes = [("empty".into(), String::new()), (unicode.into(), secret.into())].into();
        let token = Token { terms: Terms::new(unicode.into(), vec![unicode.into()], attributes), ..token(1, secret) };
        assert_eq!(store.commit(commit_of(&key, token.clone())).await, Ok(Committed::Stored));
        let expected = TokenRow {
            key: key.clone(),
            generation: Generation::new(1),
            min_generation: Generation::NONE,
            token: Some(token),
            config: config(),
            failures: None,
            last_used_at: at(1_700_000_000_000),
        };
        assert_eq!(row(&store, &key).await, expected);
    }
}

pub(super) async fn extreme_values_reload_equal(store: SharedStore) {
    let key = TokenKey::new(Selector::new(credential("a"), vec![], None, vec![]));
    let token = Token {
        access_token: Secret::from(""),
        terms: Terms::new(String::new(), vec![], [].into()),
        issued_at: Timestamp::MIN,
        expires_at: Timestamp::MAX,
        refresh_at: at(-1),
        ..token(1, "")
    };
    let commit = Commit { last_used_at: Timestamp::MIN, ..commit_of(&key, token.clone()) };
    assert_eq!(store.commit(commit).await, Ok(Committed::Stored));
    let failures = Failures {
        count: u32::MAX,
        kind: ErrorKind::Bug,
        message: String::new(),
        at: Timestamp::MIN,
        next_attempt_at: Timestamp::MAX,
        config: Fingerprint::of_bytes(b"another"),
    };
    let attempt = FailedAttempt { key: key.clone(), base: Generation::new(1), failures: failures.clone() };
    assert_eq!(store.record_failure(attempt).await, Ok(()));
    let row = row(&store, &key).await;
    assert_eq!((row.token, row.failures, row.last_used_at), (Some(token), Some(failures), Timestamp::MIN));
}

pub(super) async fn a_commit_is_fenced_on_the_generation_before_it(store: SharedStore) {
    let key = key("a");
    assert_eq!(store.commit(commit(&key, 2)).await, Ok(Committed::Superseded), "there is no row yet");
    assert_eq!(store.load(key.hash()).await, Ok(None));
    commit_up_to(&store, &key, 2).await;
    for generation in [0, 1, 2, 4] {
        let late = commit_of(&key, token(generation, "late"));
        assert_eq!(store.commit(late).await, Ok(Committed::Superseded), "generation {generation} over 2");
    }
    let row = row(&store, &key).await;
    assert_eq!((row.generation, row.token), (Generation::new(2), Some(token(2, "token 2"))));
}

pub(super) async fn a_token_that_was_served_unstored_passes_over_lower_generations_alone(store: SharedStore) {
    let key = key("a");
    let unstored = |generation, text: &str| Commit { fence: Fence::Above, ..commit_of(&key, token(generation, text)) };
    assert_eq!(store.commit(unstored(5, "first")).await, Ok(Committed::Stored), "whether there is a row or not");
    assert_eq!(store.commit(unstored(8, "later")).await, Ok(Committed::Stored));
    assert_eq!(store.commit(unstored(8, "later")).await, Ok(Committed::Stored), "a repetition");
    for generation in [0, 7, 8] {
        assert_eq!(store.commit(unstored(generation, "late")).await, Ok(Committed::Superseded), "{generation} over 8");
    }
    let row = row(&store, &key).await;
    assert_eq!((row.generation, row.token), (Generation::new(8), Some(token(8, "later"))));
    assert_eq!(store.commit(commit(&key, 9)).await, Ok(Committed::Stored), "and the line goes on");
}

pub(super) async fn a_generation_beyond_the_range_of_the_store_does_not_wrap(store: SharedStore) {
    let key = key("a");
    commit_up_to(&store, &key, 1).await;
    let before = row(&store, &key).await;
    for generation in [i64::MAX.unsigned_abs(), i64::MAX.unsigned_abs() + 1, u64::MAX - 1, u64::MAX] {
        assert_eq!(store.commit(commit(&key, generation)).await, Ok(Committed::Superseded));
        let rejected = store.reject(key.hash(), Generation::new(generation)).await.expect("the store answers");
        assert_eq!((rejected.invalidated, rejected.min_generation), (false, Generation::NONE));
        assert_eq!(store.events(generation, 10).await, Ok(vec![]));
        assert_eq!(store.plant_grant(seed("a", "r"), generation).await, Ok(false));
        assert_eq!(store.begin_rotation(intent("a", generation, "o")).await, Ok(false));
        assert_eq!(store.lose_grant(loss("a", generation, "gone")).await, Ok(false));
    }
    assert_eq!(row(&store, &key).await, before);
    let unmoved = failed(&key, u64::MAX, 1);
    assert_eq!(store.record_failure(unmoved.clone()).await, Ok(()));
    assert_eq!(row(&store, &key).await.failures, Some(unmoved.failures));
    let candidate = commit_with_grant(&key, 7, u64::MAX, "late");
    assert_eq!(store.commit(candidate).await, Ok(Committed::Superseded));
    assert_eq!(late(&store, "a").await, ["late"]);
}

pub(super) async fn a_repeated_commit_counts_as_stored(store: SharedStore) {
    let key = key("a");
    let commit = commit_with_grant(&key, 1, 0, "r1");
    for _ in 0..3 {
        assert_eq!(store.commit(commit.clone()).await, Ok(Committed::Stored));
    }
    assert_eq!(row(&store, &key).await.generation, Generation::new(1));
    assert_eq!(grant(&store, "a").await.version, 1);
    assert_eq!(late(&store, "a").await, Vec::<String>::new());
    assert_eq!(store.events(0, 10).await.expect("the store answers").len(), 1);
}

pub(super) async fn of_racing_commits_exactly_one_wins(store: SharedStore) {
    let key = key("a");
    for generation in 1..=5 {
        let racers = (0..8).map(|racer| {
            let commit = commit_of(&key, token(generation, &format!("{generation} by {racer}")));
            let store = store.clone();
            tokio::spawn(async move { (commit.token.clone(), store.commit(commit).await.expect("the store answers")) })
        });
        let outcomes = join_all(racers).await.into_iter().map(|outcome| outcome.expect("no panic"));
        let (won, lost): (Vec<_>, Vec<_>) = outcomes.partition(|(_, committed)| *committed == Committed::Stored);
        assert_eq!((won.len(), lost.len()), (1, 7));
        let row = row(&store, &key).await;
        assert_eq!((row.generation.get(), row.token.as_ref()), (generation, Some(&won[0].0)));
    }
}

pub(super) async fn a_failure_is_recorded_and_ended_by_a_commit(store: SharedStore) {
    let key = key("a");
    let other_config = Fingerprint::of_bytes(b"another");
    for count in 1..=2 {
        let mut attempt = failed(&key, 0, count);
        attempt.failures.config = other_config;
        assert_eq!(store.record_failure(attempt.clone()).await, Ok(()));
        let row = row(&store, &key).await;
        assert_eq!((row.generation, row.token, row.failures), (Generation::NONE, None, Some(attempt.failures)));
        assert_eq!(row.config, other_config);
    }
    commit_up_to(&store, &key, 1).await;
    let row = row(&store, &key).await;
    assert_eq!((row.failures, row.config), (None, config()));
}

pub(super) async fn a_late_failure_is_not_recorded(store: SharedStore) {
    let key = key("a");
    commit_up_to(&store, &key, 2).await;
    let before = row(&store, &key).await;
    assert_eq!(store.record_failure(failed(&key, 1, 1)).await, Ok(()));
    assert_eq!(row(&store, &key).await, before);
    let failed = failed(&key, 2, 1);
    assert_eq!(store.record_failure(failed.clone()).await, Ok(()));
    assert_eq!(row(&store, &key).await, TokenRow { failures: Some(failed.failures), ..before });
}

pub(super) async fn a_failure_leaves_the_token_to_the_configuration_that_minted_it(store: SharedStore) {
    let key = key("a");
    commit_up_to(&store, &key, 1).await;
    let mut attempt = failed(&key, 1, 1);
    attempt.failures.config = Fingerprint::of_bytes(b"another");
    assert_eq!(store.record_failure(attempt.clone()).await, Ok(()));
    let row = row(&store, &key).await;
    assert_eq!((row.config, row.failures), (config(), Some(attempt.failures)));
}

pub(super) async fn rows_that_never_had_a_token_are_pruned_when_they_are_old(store: SharedStore) {
    let (cold, warm) = (key("a"), key("b"));
    assert_eq!(store.record_failure(failed(&cold, 0, 1)).await, Ok(()));
    commit_up_to(&store, &warm, 1).await;
    assert_eq!(store.record_failure(failed(&warm, 1, 1)).await, Ok(()));
    let failed_at = row(&store, &cold).await.failures.map(|failures| failures.at).expect("it failed");
    assert_eq!(store.prune(failed_at).await, Ok(0), "a row is kept at its own age");
    assert_eq!(store.prune(at(failed_at.as_millis() + 1)).await, Ok(1));
    assert_eq!(store.load(cold.hash()).await, Ok(None));
    assert_eq!(row(&store, &warm).await.generation, Generation::new(1));
}

pub(super) async fn use_never_goes_back(store: SharedStore) {
    let key = key("a");
    commit_up_to(&store, &key, 1).await;
    let late = row(&store, &key).await.last_used_at;
    let earlier = Commit { last_used_at: at(1), ..commit(&key, 2) };
    assert_eq!(store.commit(earlier).await, Ok(Committed::Stored));
    assert_eq!(row(&store, &key).await.last_used_at, late);
}

pub(super) async fn scanning_by_pages_sees_each_row_once(store: SharedStore) {
    let keys: Vec<_> = (0..25).map(|i| key_with("a", &[&format!("s{i}")])).collect();
    for key in &keys {
        commit_up_to(&store, key, 1).await;
    }
    let mut seen: Vec<KeyHash> = vec![];
    loop {
        let page = store.scan(seen.last().copied(), 4).await.expect("the store answers");
        assert!(page.len() <= 4);
        if page.is_empty() {
            break;
        }
        seen.extend(page.iter().map(|row| row.key.hash()));
    }
    let expected: BTreeSet<_> = keys.iter().map(TokenKey::hash).collect();
    assert_eq!(seen, expected.into_iter().collect::<Vec<_>>());
    assert_eq!(store.scan(None, 0).await, Ok(vec![]));
    assert_eq!(store.scan(None, u32::MAX).await.map(|rows| rows.len()), Ok(25));
}

pub(super) async fn rows_are_found_by_credential(store: SharedStore) {
    let keys = [key_with("a", &["1"]), key_with("a", &["2"]), key_with("a/b", &["1"]), key_with("a.b", &["1"])];
    for key in &keys {
        commit_up_to(&store, key, 1).await;
    }
    let mut expected = [keys[0].hash(), keys[1].hash()];
    expected.sort_unstable();
    let hashes = |rows: Vec<TokenRow>| rows.iter().map(|row| row.key.hash()).collect::<Vec<_>>();
    assert_eq!(store.rows_of(credential("a"), 10).await.map(hashes), Ok(expected.to_vec()));
    assert_eq!(store.rows_of(credential("a"), 1).await.map(hashes), Ok(expected[..1].to_vec()));
    assert_eq!(store.rows_of(credential("b"), 10).await.map(hashes), Ok(vec![]));
}

pub(super) async fn a_store_may_be_prepared_again(store: SharedStore) {
    commit_up_to(&store, &key("a"), 1).await;
    assert_eq!(store.prepare().await, Ok(()));
    assert_eq!(store.ping().await, Ok(()));
    assert_eq!(row(&store, &key("a")).await.generation, Generation::new(1));
}

pub(super) async fn a_closed_store_fails(store: SharedStore) {
    assert_eq!(store.ping().await, Ok(()));
    store.close().await;
    let kind = |error: crate::error::Error| error.kind();
    assert_eq!(store.ping().await.map_err(kind), Err(ErrorKind::StoreDown));
    assert_eq!(store.commit(commit(&key("a"), 1)).await.map_err(kind), Err(ErrorKind::StoreDown));
    assert_eq!(store.load(key("a").hash()).await.map_err(kind), Err(ErrorKind::StoreDown));
}
