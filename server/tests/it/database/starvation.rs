//! No class of work takes the connections of another.

use std::time::Duration;

use sqlx::{Connection as _, PgConnection};
use tokencache_server::{
    store::{Applied, Claim, Committed, Heartbeat, LeaseOwner, LeaseScope, SharedStore},
    types::{CredentialName, ReplicaId},
};
use tokio::task::JoinSet;

use super::until_waiting;
use crate::stores::{commit, key, new_database, open, postgres_connection};

/// Many more than there are connections: one after the other they would hold all of them for longer than anybody waits.
const CALLS: usize = 12;

/// A store with two connections for refreshes and one for operators, and a session that holds one table's lock.
async fn store_and_lock(table: &'static str) -> (SharedStore, PgConnection, PgConnection) {
    let database = new_database().await;
    let separator = if database.0.contains('?') { '&' } else { '?' };
    let store = open(&format!("{}{separator}max_connections=3", database.0), database.1);
    store.prepare().await.expect("an empty database");
    assert_eq!(store.commit(commit(&key("read"), 1)).await, Ok(Committed::Stored));
    let (mut lock, watch) = (postgres_connection(&database).await, postgres_connection(&database).await);
    let statement = match table {
        "leases" => "BEGIN; LOCK TABLE leases IN ACCESS EXCLUSIVE MODE",
        _ => "BEGIN; LOCK TABLE tokens IN ACCESS EXCLUSIVE MODE",
    };
    sqlx::raw_sql(statement).execute(&mut lock).await.expect("a lock");
    (store, lock, watch)
}

fn scope() -> LeaseScope {
    LeaseScope::Grant(CredentialName::parse("crm/prod").expect("a valid name"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_do_not_keep_refreshes_waiting() {
    let (store, lock, mut watch) = store_and_lock("leases").await;
    let mut operators = JoinSet::new();
    for _ in 0..CALLS {
        let store = store.clone();
        operators.spawn(async move { store.holder(scope()).await });
    }
    until_waiting(&mut watch, 1).await;
    assert_eq!(store.commit(commit(&key("read"), 2)).await, Ok(Committed::Stored));
    let beat = Heartbeat {
        replica: ReplicaId::new("a"),
        version: "1".into(),
        ttl: Duration::from_secs(2),
        applied: Applied::default(),
    };
    assert_eq!(store.heartbeat(beat).await, Ok(()));
    assert!(store.load(key("read").hash()).await.is_ok_and(|row| row.is_some()));
    assert!(store.events(0, 10).await.is_ok_and(|events| events.len() == 2));
    assert!(store.replicas().await.is_ok_and(|replicas| replicas.len() == 1));
    lock.close().await.expect("the lock ends");
    drop(operators);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refreshes_do_not_keep_operators_waiting() {
    let (store, lock, mut watch) = store_and_lock("tokens").await;
    let mut refreshes = JoinSet::new();
    for number in 0..CALLS {
        let (store, key) = (store.clone(), key(&format!("scope {number}")));
        refreshes.spawn(async move { store.commit(commit(&key, 1)).await });
    }
    until_waiting(&mut watch, 2).await;
    assert_eq!(store.holder(scope()).await, Ok(None));
    lock.close().await.expect("the lock ends");
    drop(refreshes);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_reads_do_not_keep_leases_waiting() {
    let (store, lock, mut watch) = store_and_lock("tokens").await;
    let mut reads = JoinSet::new();
    for _ in 0..CALLS {
        let store = store.clone();
        reads.spawn(async move { store.scan(None, 100).await });
    }
    until_waiting(&mut watch, 1).await;
    let owner = LeaseOwner { replica: ReplicaId::new("a"), nonce: 1 };
    let claim = store.acquire(scope(), owner, Duration::from_secs(5)).await;
    assert!(matches!(claim, Ok(Claim::Granted(_))), "{claim:?}");
    lock.close().await.expect("the lock ends");
    drop(reads);
    store.close().await;
}
