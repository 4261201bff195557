//! Refresh tokens and what they are bound to.

use super::*;
use crate::store::{GrantSeed, GrantUpdate, TokenStore};

/// Two brokers over one store that differ in the configuration of their credentials.
fn two_configurations() -> (SharedStore, SealedTokenStore, SealedTokenStore) {
    let (inner, key) = (memory(), new_key());
    let store = |text: &'static str| {
        let ring = KeyRing::new(id("k1"), &key).expect("a key");
        SealedTokenStore::new(Arc::clone(&inner), Arc::new(Sealer::new(ring, move |_| Some(config(text)))))
    };
    let stores = (store("https://idp.example"), store("https://attacker.example"));
    (inner, stores.0, stores.1)
}

fn seed(refresh_token: &str) -> GrantSeed {
    let at = Timestamp::from_millis(0);
    GrantSeed { credential: credential("a"), refresh_token: refresh_token.into(), previous: None, at }
}

fn update(base_version: u64, sent: &str, new: &str) -> GrantUpdate {
    GrantUpdate {
        base_version,
        as_of: 0,
        sent: sent.into(),
        refresh_token: new.into(),
        late: None,
        refused: vec![],
        intent: None,
        at: Timestamp::from_millis(0),
    }
}

#[tokio::test]
async fn a_grant_does_not_open_under_another_configuration_of_its_credential() {
    let (_, ours, theirs) = two_configurations();
    assert_eq!(ours.plant_grant(seed("r1"), 0).await, Ok(true));
    let error = theirs.load_grant(credential("a")).await.expect_err("it is bound to the other one");
    assert_eq!(error.kind(), ErrorKind::ConfigTampered);
    assert!(error.message().contains("restore") && error.message().contains("configure a new refresh token"));
    assert_eq!(ours.advance_grant(credential("a"), update(1, "r1", "r2")).await, Ok(true));
    assert_eq!(ours.advance_grant(credential("a"), update(1, "r1", "late")).await, Ok(false));
    assert_eq!(theirs.candidates(credential("a")).await, Ok(vec![]), "nor does what came late");
    assert_eq!(ours.candidates(credential("a")).await.map(|late| late.len()), Ok(1));
    let grant = ours.load_grant(credential("a")).await.expect("it opens").expect("it is there");
    assert_eq!((grant.refresh_token, grant.previous), ("r2".into(), Some("r1".into())));
}

#[tokio::test]
async fn a_grant_that_does_not_open_tells_where_it_comes_from_and_can_be_planted_over() {
    let (_, ours, theirs) = two_configurations();
    assert_eq!(ours.plant_grant(seed("r1"), 0).await, Ok(true));
    let origin = theirs.grant_origin(credential("a")).await.expect("it answers").expect("it is there");
    assert_eq!((origin.version, origin.seed), (1, Fingerprint::of(&"r1".into())));
    assert_eq!(theirs.plant_grant(seed("r2"), origin.version).await, Ok(true));
    let grant = theirs.load_grant(credential("a")).await.expect("it opens").expect("it is there");
    assert_eq!((grant.refresh_token, grant.previous), ("r2".into(), None));
}

#[tokio::test]
async fn columns_that_are_swapped_do_not_open() {
    let (inner, ours, _) = two_configurations();
    assert_eq!(ours.plant_grant(seed("r1"), 0).await, Ok(true));
    assert_eq!(ours.advance_grant(credential("a"), update(1, "r1", "r2")).await, Ok(true));
    let page = inner.secrets(SecretCursor::Grants(String::new()), 10).await.expect("it answers");
    let [old] = &page.rows[..] else { panic!("{page:?}") };
    let super::super::super::StoredSecrets::Grant { refresh_token, previous: Some(previous), .. } = old else {
        panic!("{old:?}")
    };
    let mut new = old.clone();
    if let super::super::super::StoredSecrets::Grant { refresh_token: own, previous: before, .. } = &mut new {
        (*own, *before) = (previous.clone(), Some(refresh_token.clone()));
    }
    assert_eq!(inner.reseal(vec![Reseal { old: old.clone(), new }]).await, Ok(1));
    let error = ours.load_grant(credential("a")).await.expect_err("they are swapped");
    assert_eq!(error.kind(), ErrorKind::ConfigTampered);
}

#[tokio::test]
async fn a_token_that_does_not_open_is_none_and_its_generation_stays() {
    let (inner, key_of_row) = (memory(), key("a"));
    let ours = SealedTokenStore::new(Arc::clone(&inner), Arc::new(sealer(&new_key())));
    ours.commit(Commit { grant: None, ..commit_with_grant(&key_of_row, 1, 0, "r") }).await.expect("stored");
    let theirs = SealedTokenStore::new(Arc::clone(&inner), Arc::new(sealer(&new_key())));
    let row = theirs.load(key_of_row.hash()).await.expect("it answers").expect("it is there");
    assert_eq!((row.token, row.generation), (None, Generation::new(1)));
    let next = Commit { grant: None, ..commit_with_grant(&key_of_row, 2, 0, "r") };
    assert_eq!(theirs.commit(next).await, Ok(Committed::Stored));
    let row = theirs.load(key_of_row.hash()).await.expect("it answers").expect("it is there");
    assert_eq!(row.token.map(|token| token.generation), Some(Generation::new(2)));
}
