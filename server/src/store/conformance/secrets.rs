//! Secrets as they are kept: seen row by row, and kept anew.

use super::samples::*;
use crate::{
    store::{Committed, Reseal, SecretCursor, SharedStore, StoredSecrets},
    types::Secret,
};

async fn all(store: &SharedStore, limit: u32) -> Vec<StoredSecrets> {
    let (mut all, mut from) = (vec![], Some(SecretCursor::default()));
    while let Some(cursor) = from {
        let page = store.secrets(cursor, limit).await.expect("the store answers");
        assert!(page.rows.len() <= limit as usize && page.unreadable == 0, "{page:?}");
        all.extend(page.rows);
        from = page.next;
    }
    all
}

fn name(row: &StoredSecrets) -> String {
    match row {
        StoredSecrets::Token { key, generation, .. } => format!("token {generation} of {key}"),
        StoredSecrets::Grant { credential, version, .. } => format!("grant {version} of {credential}"),
        StoredSecrets::Candidate { credential, base_version, .. } => {
            format!("candidate {base_version} of {credential}")
        }
    }
}

/// Three tokens, two grants, three candidates, and a row without a secret.
async fn fill(store: &SharedStore) -> Vec<String> {
    let mut expected = vec![];
    for scope in ["x", "y", "z"] {
        let key = key_with("a", &[scope]);
        commit_up_to(store, &key, 2).await;
        expected.push(format!("token 2 of {}", key.hash()));
    }
    store.record_failure(failed(&key("none"), 0, 1)).await.expect("the store answers");
    for grant in ["a", "b"] {
        assert_eq!(store.plant_grant(seed(grant, "r1"), 0).await, Ok(true));
        assert_eq!(store.advance_grant(credential(grant), update(1, "r1", "r2")).await, Ok(true));
        expected.push(format!("grant 2 of {grant}"));
    }
    for (grant, late) in [("a", "late 1"), ("b", "late 1"), ("a", "late 2")] {
        assert_eq!(store.advance_grant(credential(grant), update(1, "r1", late)).await, Ok(false));
        expected.push(format!("candidate 1 of {grant}"));
    }
    expected.sort();
    expected
}

pub(super) async fn each_row_with_secrets_is_seen_once(store: SharedStore) {
    let expected = fill(&store).await;
    for limit in [1, 2, 3, 100] {
        let mut seen: Vec<_> = all(&store, limit).await.iter().map(name).collect();
        seen.sort();
        assert_eq!(seen, expected, "in pages of {limit}");
    }
}

pub(super) async fn what_is_kept_anew_is_the_same_secret(store: SharedStore) {
    fill(&store).await;
    let (row_before, grant_before) = (row(&store, &key_with("a", &["x"])).await, grant(&store, "a").await);
    let rows = all(&store, 100).await;
    let changes: Vec<_> = rows.iter().map(|row| Reseal { old: row.clone(), new: row.clone() }).collect();
    assert_eq!(store.reseal(changes).await, Ok(8));
    assert_eq!(all(&store, 100).await, rows);
    assert_eq!(row(&store, &key_with("a", &["x"])).await, row_before);
    assert_eq!(grant(&store, "a").await, grant_before);
    assert_eq!(late(&store, "a").await, ["late 1", "late 2"]);
}

pub(super) async fn a_row_that_has_changed_since_is_left_as_it_is(store: SharedStore) {
    fill(&store).await;
    let old = all(&store, 100).await;
    assert_eq!(store.commit(commit(&key_with("a", &["x"]), 3)).await, Ok(Committed::Stored));
    assert_eq!(store.advance_grant(credential("a"), update(2, "r2", "r3")).await, Ok(true));
    // Takes the first candidate of b.
    assert_eq!(store.advance_grant(credential("b"), update(2, "late 1", "r3")).await, Ok(true));
    let (now, grant_now) = (row(&store, &key_with("a", &["x"])).await, grant(&store, "a").await);
    let changes = old.iter().map(|row| Reseal { old: row.clone(), new: row.clone() }).collect();
    assert_eq!(store.reseal(changes).await, Ok(4), "two tokens and the candidates of a");
    assert_eq!(row(&store, &key_with("a", &["x"])).await, now);
    assert_eq!(grant(&store, "a").await, grant_now);

    let garbled = |secret: &Secret| Secret::from(format!("not {}", secret.expose()));
    let wrong = |row: StoredSecrets| match row {
        StoredSecrets::Token { key, generation, config, access_token, attributes } => {
            StoredSecrets::Token { key, generation, config, access_token: garbled(&access_token), attributes }
        }
        StoredSecrets::Grant { credential, version, refresh_token, .. } => StoredSecrets::Grant {
            credential,
            version,
            refresh_token: garbled(&refresh_token),
            fingerprint: None,
            previous: None,
            previous_fingerprint: None,
            previous_since: 0,
        },
        StoredSecrets::Candidate { id, credential, base_version, refresh_token, fingerprint } => {
            StoredSecrets::Candidate {
                id,
                credential,
                base_version,
                refresh_token: garbled(&refresh_token),
                fingerprint,
            }
        }
    };
    let before = all(&store, 100).await;
    let changes = before.iter().map(|row| Reseal { old: wrong(row.clone()), new: row.clone() }).collect();
    assert_eq!(store.reseal(changes).await, Ok(0), "of the same version, but of another value");
    assert_eq!(all(&store, 100).await, before);
}
