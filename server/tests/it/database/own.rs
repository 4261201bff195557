//! Faults of a whole server, which no other test may share: each test starts its own, from the binaries on this machine.

use std::{fs, sync::Arc};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};
use tempfile::TempDir;
use tokencache_server::{
    app::open_store,
    config::{Config, StoreConfig, secret::SecretSource},
    error::{Error, ErrorKind},
    store::{Committed, SharedStore, StoreRegistry},
    time::SystemClock,
};
use tokencache_testkit::{OwnPostgres, Proxy};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{PATIENCE, POLL, until_waiting};
use crate::stores::{commit, key, open};

/// As many connections as the store has for refreshes.
const CONNECTIONS: usize = 8;

async fn connect(url: &str) -> PgConnection {
    PgConnection::connect(url).await.expect("the server answers")
}

async fn execute(url: &str, sql: &str) {
    let mut connection = connect(url).await;
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.expect("it is done");
}

fn through(proxy: &Proxy) -> SharedStore {
    open(&format!("postgres://postgres@127.0.0.1:{}/postgres", proxy.port()), None)
}

/// Has the store open all the connections that it may have for refreshes, and leave them idle.
async fn fill(store: &SharedStore, url: &str) {
    let (mut lock, mut watch) = (connect(url).await, connect(url).await);
    sqlx::raw_sql("BEGIN; LOCK TABLE tokens IN ACCESS EXCLUSIVE MODE").execute(&mut lock).await.expect("a lock");
    let mut loads = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let store = store.clone();
        loads.spawn(async move { store.load(key("read").hash()).await });
    }
    until_waiting(&mut watch, 8).await;
    lock.close().await.expect("the lock ends");
    while let Some(load) = loads.join_next().await {
        load.expect("no panic").expect("the store answers");
    }
}

/// Waits until a standby shows a generation.
async fn until_replicated(standby: &OwnPostgres, generation: i64) {
    let mut connection = connect(&standby.url("postgres")).await;
    let wait = async {
        loop {
            let row = sqlx::query("SELECT generation FROM tokens").fetch_optional(&mut connection).await;
            // The table itself may still be on its way.
            if row.is_ok_and(|row| row.is_some_and(|row| row.get::<i64, _>(0) == generation)) {
                return;
            }
            sleep(POLL).await;
        }
    };
    timeout(PATIENCE, wait).await.expect("the standby follows");
}

fn is_read_only(error: &Error) -> bool {
    error.kind() == ErrorKind::StoreDown && error.message().starts_with("the database is read-only")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts servers of its own from the binaries on this machine: cargo xtask test"]
async fn a_standby_is_neither_read_nor_written_until_it_is_promoted() {
    let primary = OwnPostgres::start().await.expect("a server");
    let proxy = Proxy::start(primary.port()).await.expect("a port");
    let store = through(&proxy);
    store.prepare().await.expect("an empty database");
    let standby = primary.standby().await.expect("a standby");
    assert_eq!(store.commit(commit(&key("read"), 1)).await, Ok(Committed::Stored));
    until_replicated(&standby, 1).await;

    // The address leads to the standby before that is promoted.
    proxy.lead_to(standby.port());
    proxy.cut();
    drop(primary);
    let read = store.load(key("read").hash()).await.expect_err("what a standby shows is old");
    assert!(is_read_only(&read), "{read}");
    let written = store.commit(commit(&key("read"), 2)).await.expect_err("a standby takes no writes");
    assert!(is_read_only(&written), "{written}");

    execute(&standby.url("postgres"), "SELECT pg_promote()").await;
    assert_eq!(store.commit(commit(&key("read"), 2)).await, Ok(Committed::Stored), "the first call after it");
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts servers of its own from the binaries on this machine: cargo xtask test"]
async fn a_fenced_primary_is_left_at_once_though_its_connections_live() {
    let primary = OwnPostgres::start().await.expect("a server");
    let proxy = Proxy::start(primary.port()).await.expect("a port");
    let store = through(&proxy);
    store.prepare().await.expect("an empty database");
    assert_eq!(store.commit(commit(&key("read"), 1)).await, Ok(Committed::Stored));
    let standby = primary.standby().await.expect("a standby");
    until_replicated(&standby, 1).await;
    fill(&store, &primary.url("postgres")).await;

    execute(&standby.url("postgres"), "SELECT pg_promote()").await;
    execute(&primary.url("postgres"), "ALTER SYSTEM SET default_transaction_read_only = on").await;
    execute(&primary.url("postgres"), "SELECT pg_reload_conf()").await;
    let noticed = async {
        loop {
            match store.load(key("read").hash()).await {
                Ok(_) => sleep(POLL).await,
                Err(error) => return error,
            }
        }
    };
    let error = timeout(PATIENCE, noticed).await.expect("the fence is noticed");
    assert!(is_read_only(&error), "{error}");

    // The address leads to the new primary; the pooled connections to the old one live on.
    proxy.lead_to(standby.port());
    assert_eq!(store.commit(commit(&key("read"), 2)).await, Ok(Committed::Stored), "the first call after it");
    let mut old = connect(&primary.url("postgres")).await;
    let row = sqlx::query("SELECT generation FROM tokens").fetch_one(&mut old).await.expect("a row");
    assert_eq!(row.get::<i64, _>(0), 1, "it was not written to the old one");
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts servers of its own from the binaries on this machine: cargo xtask test"]
async fn connections_that_lead_nowhere_are_left_all_together() {
    let server = OwnPostgres::start().await.expect("a server");
    let proxy = Proxy::start(server.port()).await.expect("a port");
    let store = through(&proxy);
    store.prepare().await.expect("an empty database");
    fill(&store, &server.url("postgres")).await;
    proxy.swallow();
    // One dead connection after the other, a time-out each, would take this call longer than it may.
    assert_eq!(store.commit(commit(&key("read"), 1)).await, Ok(Committed::Stored));
    assert_eq!(store.commit(commit(&key("read"), 2)).await, Ok(Committed::Stored));
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts servers of its own from the binaries on this machine: cargo xtask test"]
async fn an_operation_whose_connection_falls_silent_fails_and_the_next_one_works() {
    let server = OwnPostgres::start().await.expect("a server");
    let (url, proxy) = (server.url("postgres"), Proxy::start(server.port()).await.expect("a port"));
    let store = through(&proxy);
    store.prepare().await.expect("an empty database");
    fill(&store, &url).await;
    let (mut lock, mut watch) = (connect(&url).await, connect(&url).await);
    sqlx::raw_sql("BEGIN; LOCK TABLE tokens IN ACCESS EXCLUSIVE MODE").execute(&mut lock).await.expect("a lock");
    let under_way = tokio::spawn({
        let store = store.clone();
        async move { store.commit(commit(&key("read"), 1)).await }
    });
    until_waiting(&mut watch, 1).await;
    proxy.swallow();
    let failed = under_way.await.expect("no panic");
    assert_eq!(failed.map_err(|error| error.kind()), Err(ErrorKind::StoreDown));
    lock.close().await.expect("the lock ends");
    assert!(store.load(key("read").hash()).await.is_ok(), "the first call after it");
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts servers of its own from the binaries on this machine: cargo xtask test"]
async fn a_database_that_was_restarted_is_found_again_by_the_first_call() {
    let mut server = OwnPostgres::start().await.expect("a server");
    let store = open(&server.url("postgres"), None);
    store.prepare().await.expect("an empty database");
    fill(&store, &server.url("postgres")).await;
    server.stop().expect("it stops");
    let error = store.load(key("read").hash()).await.expect_err("it is down");
    assert_eq!(
        (error.kind(), error.message()),
        (ErrorKind::StoreDown, "cannot reach the database: connection refused")
    );
    server.resume().await.expect("it starts again");
    assert_eq!(store.commit(commit(&key("read"), 1)).await, Ok(Committed::Stored));

    // Again, with nobody calling meanwhile: all pooled connections are dead.
    fill(&store, &server.url("postgres")).await;
    server.stop().expect("it stops");
    server.resume().await.expect("it starts again");
    assert_eq!(store.commit(commit(&key("read"), 2)).await, Ok(Committed::Stored));
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts servers of its own from the binaries on this machine: cargo xtask test"]
async fn a_database_with_too_many_connections_is_used_again_when_one_is_free() {
    let server = OwnPostgres::start().await.expect("a server");
    execute(&server.url("postgres"), "CREATE ROLE few LOGIN CONNECTION LIMIT 1").await;
    execute(&server.url("postgres"), "CREATE DATABASE few OWNER few").await;
    let url = server.url("few").replace("postgres@", "few@");
    let other = connect(&url).await;
    let store = open(&url, None);
    let error = store.ping().await.expect_err("the other one has the only connection");
    assert_eq!((error.kind(), error.message()), (ErrorKind::StoreDown, "the database has too many connections"));
    other.close().await.expect("it ends");
    assert_eq!(store.ping().await, Ok(()));
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "starts servers of its own from the binaries on this machine: cargo xtask test"]
async fn a_changed_password_is_read_again_without_a_restart() {
    let server = OwnPostgres::start().await.expect("a server");
    let admin = server.url("postgres");
    execute(&admin, "CREATE ROLE app LOGIN PASSWORD 'first'").await;
    execute(&admin, "CREATE DATABASE app OWNER app").await;
    let rules = server.directory().join("data/pg_hba.conf");
    let others = fs::read_to_string(&rules).expect("its rules");
    fs::write(&rules, format!("host all app 127.0.0.1/32 scram-sha-256\n{others}")).expect("they are written");
    execute(&admin, "SELECT pg_reload_conf()").await;

    let directory = TempDir::new().expect("a directory");
    let file = directory.path().join("password");
    fs::write(&file, "first\n").expect("a file");
    let config = StoreConfig {
        url: server.url("app").replace("postgres@", "app@"),
        password: Some(SecretSource::File(file.clone())),
        ..StoreConfig::default()
    };
    let config = Config { store: config, ..Config::default() };
    let opened = open_store(&config, &StoreRegistry::builtin(), Arc::new(SystemClock)).await.expect("a valid store");
    let store = opened.store;
    store.prepare().await.expect("an empty database");

    execute(&admin, "ALTER ROLE app PASSWORD 'second'").await;
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'";
    execute(&admin, end).await;
    let error = store.ping().await.expect_err("the password is not the role's any more");
    assert_eq!((error.kind(), error.message()), (ErrorKind::StoreDown, "the database refuses: wrong user or password"));
    fs::write(&file, "second\n").expect("a file");
    // It is not read again at once each time.
    let mended = async {
        while store.ping().await.is_err() {
            sleep(POLL).await;
        }
    };
    timeout(PATIENCE, mended).await.expect("it is read again");
    store.close().await;
}
