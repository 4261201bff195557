//! The values that the properties are tested with.

use std::time::Duration;

use crate::{
    error::ErrorKind,
    store::{
        Claim, Commit, Committed, FailedAttempt, Failures, Fence, Grant, GrantLoss, GrantSeed, GrantUpdate, Lease,
        LeaseOwner, LeaseScope, RotationIntent, SharedStore, TokenRow,
    },
    time::Timestamp,
    types::{CredentialName, Fingerprint, Generation, ReplicaId, Secret, Selector, Terms, Token, TokenKey},
};

pub(super) const MINUTE: Duration = Duration::from_secs(60);

pub(super) fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

pub(crate) fn credential(name: &str) -> CredentialName {
    CredentialName::parse(name).expect("a valid name")
}

pub(crate) fn key(name: &str) -> TokenKey {
    key_with(name, &["read"])
}

pub(super) fn key_with(name: &str, scopes: &[&str]) -> TokenKey {
    let scopes = scopes.iter().map(|&scope| scope.to_owned()).collect();
    TokenKey::new(Selector::new(credential(name), scopes, None, vec![]))
}

pub(super) fn config() -> Fingerprint {
    Fingerprint::of_bytes(b"config")
}

pub(super) fn token(generation: u64, access_token: &str) -> Token {
    let access_token = Secret::from(access_token);
    Token {
        fingerprint: Fingerprint::of(&access_token),
        access_token,
        terms: Terms::new(
            "Bearer".into(),
            vec!["read".into()],
            [("instance_url".to_owned(), "https://one.example".to_owned())].into(),
        ),
        issued_at: at(1_700_000_000_123),
        expires_at: at(1_700_003_600_123),
        refresh_at: at(1_700_003_000_001),
        generation: Generation::new(generation),
    }
}

pub(super) fn commit(key: &TokenKey, generation: u64) -> Commit {
    commit_of(key, token(generation, &format!("token {generation}")))
}

pub(super) fn commit_of(key: &TokenKey, token: Token) -> Commit {
    let (fence, last_used_at) = (Fence::Next, at(1_700_000_000_000));
    Commit { key: key.clone(), token, fence, config: config(), last_used_at, grant: None }
}

pub(crate) fn commit_with_grant(key: &TokenKey, generation: u64, base_version: u64, refresh_token: &str) -> Commit {
    let sent = format!("sent at {base_version}");
    Commit { grant: Some(update(base_version, &sent, refresh_token)), ..commit(key, generation) }
}

/// What `sent` brought, without a journal.
pub(super) fn update(base_version: u64, sent: &str, refresh_token: &str) -> GrantUpdate {
    GrantUpdate {
        base_version,
        as_of: 0,
        sent: sent.into(),
        refresh_token: refresh_token.into(),
        late: None,
        refused: vec![],
        intent: None,
        at: at(1_700_000_000_456),
    }
}

pub(super) fn failed(key: &TokenKey, base: u64, count: u32) -> FailedAttempt {
    let failures = Failures {
        count,
        kind: ErrorKind::UpstreamDown,
        message: "the upstream does not answer".into(),
        at: at(1_700_000_000_789),
        next_attempt_at: at(1_700_000_005_789),
        config: config(),
    };
    FailedAttempt { key: key.clone(), base: Generation::new(base), failures }
}

pub(super) fn seed(name: &str, refresh_token: &str) -> GrantSeed {
    let at = at(1_700_000_000_321);
    GrantSeed { credential: credential(name), refresh_token: refresh_token.into(), previous: None, at }
}

pub(super) fn intent(name: &str, version: u64, owner: &str) -> RotationIntent {
    let token = Fingerprint::of(&Secret::from(format!("rt of {owner}")));
    RotationIntent { credential: credential(name), version, journal: 0, owner: owner.into(), token }
}

pub(super) fn loss(name: &str, version: u64, reason: &str) -> GrantLoss {
    GrantLoss { credential: credential(name), version, intent: None, reason: reason.into() }
}

pub(super) fn owner(replica: &str, nonce: u64) -> LeaseOwner {
    LeaseOwner { replica: ReplicaId::new(replica), nonce }
}

pub(super) fn scope(name: &str) -> LeaseScope {
    LeaseScope::Token(key(name).hash())
}

/// Commits `generations` tokens in a row.
pub(super) async fn commit_up_to(store: &SharedStore, key: &TokenKey, generations: u64) {
    for generation in 1..=generations {
        assert_eq!(store.commit(commit(key, generation)).await, Ok(Committed::Stored));
    }
}

pub(super) async fn row(store: &SharedStore, key: &TokenKey) -> TokenRow {
    store.load(key.hash()).await.expect("the store answers").expect("the row is there")
}

pub(super) async fn grant(store: &SharedStore, name: &str) -> Grant {
    store.load_grant(credential(name)).await.expect("the store answers").expect("the grant is there")
}

/// The late refresh tokens of a credential.
pub(super) async fn late(store: &SharedStore, name: &str) -> Vec<String> {
    let candidates = store.candidates(credential(name)).await.expect("the store answers");
    candidates.into_iter().map(|candidate| candidate.refresh_token.expose().clone()).collect()
}

pub(super) async fn granted(store: &SharedStore, scope: LeaseScope, owner: LeaseOwner, ttl: Duration) -> Lease {
    match store.acquire(scope, owner, ttl).await {
        Ok(Claim::Granted(lease)) => lease,
        other => panic!("the lease is free, but the claim got {other:?}"),
    }
}

pub(super) async fn is_held(store: &SharedStore, scope: LeaseScope, owner: LeaseOwner) -> bool {
    match store.acquire(scope, owner, MINUTE).await {
        Ok(Claim::Granted(_)) => false,
        Ok(Claim::Held(_)) => true,
        Err(error) => panic!("the store does not answer: {error}"),
    }
}
