//! Leases: exclusion, lapse, renewal, release.

use std::time::Duration;

use futures::future::join_all;

use super::samples::*;
use crate::store::{Claim, Lease, LeaseScope, SharedStore};

pub(super) async fn a_lease_is_exclusive(store: SharedStore) {
    assert_eq!(store.holder(scope("a")).await, Ok(None));
    let lease = granted(&store, scope("a"), owner("one", u64::MAX), MINUTE).await;
    assert_eq!(lease, Lease { scope: scope("a"), owner: owner("one", u64::MAX) });
    let Ok(Claim::Held(holder)) = store.acquire(scope("a"), owner("two", 2), MINUTE).await else {
        panic!("the lease is held");
    };
    assert_eq!(holder.owner, lease.owner.to_string());
    assert!(holder.remaining <= MINUTE && !holder.remaining.is_zero(), "{:?}", holder.remaining);
    let seen = store.holder(scope("a")).await.expect("the store answers").expect("the lease is held");
    assert_eq!(seen.owner, holder.owner);
    assert!(seen.remaining <= MINUTE, "a claim that fails prolongs nothing");
}

pub(super) async fn of_many_concurrent_claims_one_is_granted(store: SharedStore) {
    let claims = (0..50).map(|nonce| {
        let store = store.clone();
        tokio::spawn(async move { store.acquire(scope("a"), owner("one", nonce), MINUTE).await })
    });
    let mut granted = vec![];
    let mut holders = vec![];
    for claim in join_all(claims).await {
        match claim.expect("no panic").expect("the store answers") {
            Claim::Granted(lease) => granted.push(lease.owner.to_string()),
            Claim::Held(holder) => holders.push(holder.owner),
        }
    }
    assert_eq!((granted.len(), holders.len()), (1, 49));
    assert!(holders.iter().all(|holder| *holder == granted[0]));
}

pub(super) async fn a_claim_may_be_repeated_by_its_owner(store: SharedStore) {
    for _ in 0..2 {
        granted(&store, scope("a"), owner("one", 1), MINUTE).await;
    }
}

pub(super) async fn another_nonce_is_another_owner(store: SharedStore) {
    let lease = granted(&store, scope("a"), owner("one", 1), MINUTE).await;
    assert!(is_held(&store, scope("a"), owner("one", 2)).await);
    let foreign = Lease { owner: owner("one", 2), ..lease };
    assert_eq!(store.renew(foreign.clone(), MINUTE).await, Ok(false));
    assert_eq!(store.release(foreign).await, Ok(()));
    assert!(is_held(&store, scope("a"), owner("one", 3)).await);
}

pub(super) async fn a_lapsed_lease_can_be_claimed(store: SharedStore) {
    granted(&store, scope("a"), owner("one", 1), Duration::ZERO).await;
    assert_eq!(store.holder(scope("a")).await, Ok(None));
    granted(&store, scope("a"), owner("two", 2), MINUTE).await;
    assert!(is_held(&store, scope("a"), owner("one", 1)).await);
}

pub(super) async fn a_lease_lapses_by_itself(store: SharedStore) {
    granted(&store, scope("a"), owner("one", 1), Duration::from_millis(20)).await;
    while store.holder(scope("a")).await.expect("the store answers").is_some() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    granted(&store, scope("a"), owner("two", 2), MINUTE).await;
}

pub(super) async fn a_lapsed_lease_that_nobody_took_is_renewed(store: SharedStore) {
    let lease = granted(&store, scope("a"), owner("one", 1), Duration::ZERO).await;
    assert_eq!(store.renew(lease, MINUTE).await, Ok(true));
    assert!(is_held(&store, scope("a"), owner("two", 2)).await);
}

pub(super) async fn a_lost_lease_is_not_renewed(store: SharedStore) {
    let lost = granted(&store, scope("a"), owner("one", 1), Duration::ZERO).await;
    granted(&store, scope("a"), owner("two", 2), Duration::ZERO).await;
    assert_eq!(store.renew(lost, MINUTE).await, Ok(false));
    granted(&store, scope("a"), owner("three", 3), MINUTE).await;
}

pub(super) async fn a_released_lease_is_not_renewed(store: SharedStore) {
    let lease = granted(&store, scope("a"), owner("one", 1), MINUTE).await;
    assert_eq!(store.release(lease.clone()).await, Ok(()));
    assert_eq!(store.renew(lease.clone(), MINUTE).await, Ok(false), "a late renewal revives nothing");
    assert_eq!(store.holder(scope("a")).await, Ok(None));
    assert_eq!(store.release(lease).await, Ok(()));
}

pub(super) async fn a_lease_is_released_by_its_owner_alone(store: SharedStore) {
    let lease = granted(&store, scope("a"), owner("one", 1), MINUTE).await;
    let foreign = Lease { owner: owner("two", 1), ..lease.clone() };
    assert_eq!(store.release(foreign).await, Ok(()));
    assert!(is_held(&store, scope("a"), owner("three", 3)).await);
    assert_eq!(store.release(lease).await, Ok(()));
    granted(&store, scope("a"), owner("three", 3), MINUTE).await;
}

pub(super) async fn scopes_do_not_exclude_one_another(store: SharedStore) {
    let scopes = [scope("a"), scope("b"), LeaseScope::Grant(credential("a")), LeaseScope::Grant(credential("b"))];
    for scope in scopes {
        granted(&store, scope, owner("one", 1), MINUTE).await;
    }
}

pub(super) async fn a_lease_lasts_a_day_at_most(store: SharedStore) {
    let day = Duration::from_secs(24 * 60 * 60);
    let lease = granted(&store, scope("a"), owner("one", 1), Duration::MAX).await;
    assert_eq!(store.renew(lease, Duration::MAX).await, Ok(true));
    let holder = store.holder(scope("a")).await.expect("the store answers").expect("the lease is held");
    assert!(holder.remaining <= day && holder.remaining > day / 2, "{:?}", holder.remaining);
}
