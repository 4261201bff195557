//! Rings of several keys: what is missing, what is in the clear, and sealing anew.

use super::*;

/// A broker over `inner` with these keys, the first active.
fn with_keys(inner: &SharedStore, keys: &[(&str, &KeyMaterial)], plaintext: bool) -> SealedTokenStore {
    let mut ring = KeyRing::new(id(keys[0].0), keys[0].1).expect("a key");
    for (name, key) in &keys[1..] {
        ring = ring.with(id(name), key).expect("a key");
    }
    let sealer = Sealer::new(ring, |_| Some(config("config"))).accepting_plaintext(plaintext);
    SealedTokenStore::new(Arc::clone(inner), Arc::new(sealer))
}

/// Two tokens, a grant with one before, and a candidate: four rows.
async fn fill(store: &dyn TokenStore) {
    for (name, new) in [("a", "r1"), ("b", "")] {
        let commit = commit_with_grant(&key(name), 1, 0, new);
        let grant = commit.grant.clone().filter(|_| name == "a");
        store.commit(Commit { grant, ..commit }).await.expect("stored");
    }
    for (generation, base, new) in [(2, 1, "r2"), (3, 1, "late")] {
        store.commit(commit_with_grant(&key("a"), generation, base, new)).await.expect("stored");
    }
}

async fn assert_all_is_there(store: &SealedTokenStore) {
    for (name, generation) in [("a", 3), ("b", 1)] {
        let row = store.load(key(name).hash()).await.expect("it opens").expect("it is there");
        assert_eq!(row.token.map(|token| token.access_token), Some(format!("token {generation}").into()));
    }
    let grant = store.load_grant(credential("a")).await.expect("it opens").expect("it is there");
    assert_eq!((grant.refresh_token, grant.previous), ("r2".into(), Some("sent at 1".into())));
    let late = store.candidates(credential("a")).await.expect("they open");
    assert_eq!(late.into_iter().map(|late| late.refresh_token).collect::<Vec<_>>(), ["late".into()]);
}

#[tokio::test]
async fn a_missing_key_costs_its_rows_and_no_other() {
    let (inner, old, new) = (memory(), new_key(), new_key());
    fill(&with_keys(&inner, &[("old", &old)], false)).await;
    let store = with_keys(&inner, &[("new", &new)], false);
    store.commit(Commit { grant: None, ..commit_with_grant(&key("c"), 1, 0, "r") }).await.expect("stored");
    for error in [store.load(key("a").hash()).await.err(), store.load_grant(credential("a")).await.err()] {
        let error = error.expect("the key is missing");
        assert_eq!(error.kind(), ErrorKind::KeyMissing);
        assert!(error.message().contains("the key old"), "{error}");
    }
    let error = store.candidates(credential("a")).await.expect_err("it may be the live one");
    assert_eq!(error.kind(), ErrorKind::KeyMissing);
    let rows = store.scan(None, 10).await.expect("the page is there");
    assert_eq!(rows.iter().filter(|row| row.token.is_some()).count(), 1, "the one of c");
    assert_eq!(rows.len(), 3);
}

#[tokio::test]
async fn a_key_that_is_in_use_cannot_be_dropped_unless_that_is_allowed() {
    let (inner, old, new) = (memory(), new_key(), new_key());
    fill(&with_keys(&inner, &[("old", &old)], false)).await;
    let error = with_keys(&inner, &[("new", &new)], false).prepare().await.expect_err("old is missing");
    assert_eq!(error.kind(), ErrorKind::Misconfigured);
    assert!(error.message().contains("old (4 rows)") && error.message().contains("allow_missing_keys"), "{error}");
    let ring = KeyRing::new(id("new"), &new).expect("a key").allowing_missing([id("old")]);
    let allowing = SealedTokenStore::new(inner, Arc::new(Sealer::new(ring, |_| Some(config("config")))));
    assert_eq!(allowing.prepare().await, Ok(()));
}

#[tokio::test]
async fn what_is_sealed_with_an_old_key_is_sealed_anew_and_the_old_key_can_be_dropped() {
    let (inner, old, new) = (memory(), new_key(), new_key());
    fill(&with_keys(&inner, &[("old", &old)], false)).await;
    let both = with_keys(&inner, &[("new", &new), ("old", &old)], false);
    let dry = both.rotate_key(true).await.expect("it works");
    assert_eq!((dry.resealed, dry.current, dry.remaining), (4, 0, [("old".to_owned(), 4)].into()));
    let done = both.rotate_key(false).await.expect("it works");
    assert_eq!((done.active.as_str(), done.resealed, done.current), ("new", 4, 0));
    assert_eq!((done.remaining, done.unreadable), ([("new".to_owned(), 4)].into(), [].into()));
    let again = both.rotate_key(false).await.expect("it works");
    assert_eq!((again.resealed, again.current), (0, 4));
    let without = with_keys(&inner, &[("new", &new)], false);
    assert_eq!(without.prepare().await, Ok(()));
    assert_all_is_there(&without).await;
}

#[tokio::test]
async fn what_cannot_be_opened_is_counted_and_left() {
    let (inner, old, new) = (memory(), new_key(), new_key());
    fill(&with_keys(&inner, &[("old", &old)], false)).await;
    let census = with_keys(&inner, &[("new", &new)], false).rotate_key(false).await.expect("it works");
    assert_eq!((census.resealed, census.unreadable), (0, [("KEY_MISSING", 4)].into()));
    let census = with_keys(&inner, &[("old", &new)], false).rotate_key(false).await.expect("it works");
    assert_eq!((census.resealed, census.unreadable), (0, [("REFUSED", 4)].into()));
    let census = with_keys(&inner, &[("old", &old)], false).rotate_key(false).await.expect("it works");
    assert_eq!((census.current, census.unreadable), (4, [].into()));
}

#[tokio::test]
async fn what_is_in_the_clear_is_refused_unless_it_is_accepted_and_then_sealed() {
    let (inner, new) = (memory(), new_key());
    fill(&*inner).await;
    let strict = with_keys(&inner, &[("new", &new)], false);
    assert_eq!(strict.prepare().await, Ok(()), "tokens are minted anew");
    assert_eq!(strict.load(key("a").hash()).await.map(|row| row.and_then(|row| row.token)), Ok(None));
    let error = strict.load_grant(credential("a")).await.expect_err("it is in the clear");
    assert_eq!(error.kind(), ErrorKind::ConfigTampered);
    assert!(error.message().contains("accept_plaintext"), "{error}");
    assert_eq!(strict.candidates(credential("a")).await, Ok(vec![]));
    let census = strict.rotate_key(false).await.expect("it works");
    assert_eq!((census.unreadable, census.remaining), ([("PLAINTEXT", 4)].into(), [(String::new(), 4)].into()));

    let moving = with_keys(&inner, &[("new", &new)], true);
    assert_all_is_there(&moving).await;
    assert_eq!(moving.rotate_key(false).await.map(|census| census.resealed), Ok(4));
    assert_all_is_there(&strict).await;
}

#[tokio::test]
async fn what_is_committed_while_all_is_sealed_anew_wins() {
    let (inner, old, new) = (memory(), new_key(), new_key());
    let before = with_keys(&inner, &[("old", &old), ("new", &new)], false);
    let keys: Vec<_> = (0..500).map(|number| key(&format!("k{number}"))).collect();
    let commit = |key, generation| Commit { grant: None, ..commit_with_grant(key, generation, 0, "r") };
    for key in &keys {
        before.commit(commit(key, 1)).await.expect("stored");
    }
    let both = with_keys(&inner, &[("new", &new), ("old", &old)], false);
    let rotating = async { both.rotate_key(false).await.expect("it works") };
    let writing = async {
        for key in &keys {
            assert_eq!(before.commit(commit(key, 2)).await, Ok(Committed::Stored));
            tokio::task::yield_now().await;
        }
    };
    futures::future::join(rotating, writing).await;
    let census = both.rotate_key(false).await.expect("it works");
    assert_eq!((census.unreadable, census.remaining), ([].into(), [("new".to_owned(), 500)].into()));
    for key in &keys {
        let row = both.load(key.hash()).await.expect("it opens").expect("it is there");
        assert_eq!(row.token.map(|token| token.access_token), Some("token 2".into()));
    }
}
