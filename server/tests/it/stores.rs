//! Every store passes the conformance suite, keeps what it was given, and survives what may befall it.

use std::{os::unix::fs::PermissionsExt as _, path::Path, sync::Arc, time::Duration};

use sqlx::{Connection as _, PgConnection, SqliteConnection, postgres::PgConnectOptions};
use tempfile::TempDir;
use tokencache_server::{
    error::ErrorKind,
    store::{
        Commit, Committed, EventKind, Fence, GrantSeed, GrantUpdate, SharedPassword, SharedStore, StoreRegistry,
        StoreUrl, conformance,
        sealed::{KeyId, KeyMaterial, KeyRing, SealedTokenStore, Sealer},
    },
    time::{SystemClock, Timestamp},
    types::{CredentialName, Fingerprint, Generation, Secret, Selector, Terms, Token, TokenKey},
};
use tokencache_testkit::{Postgres, free_port};

pub(crate) fn open(url: &str, password: Option<&str>) -> SharedStore {
    let url = StoreUrl::parse(url).expect("a valid URL");
    let password = password.map(|password| Arc::new(Secret::from(password)) as SharedPassword);
    StoreRegistry::builtin().open(&url, password.as_ref(), Arc::new(SystemClock)).expect("a valid store")
}

/// A URL of a new database, and the password for it.
pub(crate) async fn new_database() -> (String, Option<&'static str>) {
    let server = Postgres::start().await.expect("a Postgres to test with");
    (server.new_database().await.expect("a new database"), server.password())
}

async fn new_postgres(parameters: &str) -> SharedStore {
    let (url, password) = new_database().await;
    let separator = if url.contains('?') { '&' } else { '?' };
    open(&format!("{url}{separator}{parameters}"), password)
}

pub(crate) async fn postgres_connection((url, password): &(String, Option<&str>)) -> PgConnection {
    let mut options: PgConnectOptions = url.parse().expect("a valid URL");
    // A pooler refuses what would stay on a connection that somebody else uses next.
    options = options.extra_float_digits(None);
    if let Some(password) = password {
        options = options.password(password);
    }
    PgConnection::connect_with(&options).await.expect("the database answers")
}

fn sqlite_url(directory: &TempDir) -> String {
    format!("sqlite:{}", directory.path().join("data/tokens.db").display())
}

pub(crate) fn key(scope: &str) -> TokenKey {
    let credential = CredentialName::parse("crm/prod").expect("a valid name");
    TokenKey::new(Selector::new(credential, vec![scope.into()], None, vec![]))
}

pub(crate) fn commit(key: &TokenKey, generation: u64) -> Commit {
    let access_token = Secret::from(format!("token {generation}"));
    let token = Token {
        fingerprint: Fingerprint::of(&access_token),
        access_token,
        terms: Terms::new("Bearer".into(), vec![], [].into()),
        issued_at: Timestamp::from_millis(1),
        expires_at: Timestamp::from_millis(3),
        refresh_at: Timestamp::from_millis(2),
        generation: Generation::new(generation),
    };
    let config = Fingerprint::of_bytes(b"config");
    let (fence, last_used_at) = (Fence::Next, Timestamp::from_millis(1));
    Commit { key: key.clone(), token, fence, config, last_used_at, grant: None }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_memory_store_conforms_behind_a_task_of_its_own() {
    conformance::run(async || open("memory:", None)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sqlite_store_conforms() {
    let directory = TempDir::new().expect("a directory");
    let stores = std::cell::Cell::new(0);
    conformance::run(async || {
        stores.set(stores.get() + 1);
        open(&format!("sqlite:{}/{}.db", directory.path().display(), stores.get()), None)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_postgres_store_conforms() {
    conformance::run(async || new_postgres("max_connections=10").await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sealed_postgres_store_conforms() {
    let key = KeyMaterial::generate().expect("randomness");
    conformance::run(async || {
        let ring = KeyRing::new(KeyId::parse("k1").expect("a name"), &key).expect("a key");
        let sealer = Sealer::new(ring, |_| Some(Fingerprint::of_bytes(b"config")));
        Arc::new(SealedTokenStore::new(new_postgres("max_connections=10").await, Arc::new(sealer))) as SharedStore
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_postgres_store_conforms_with_a_cache_of_statements() {
    conformance::run(async || new_postgres("statement_cache=on").await).await;
}

/// Dates back so many of the events that are appended from now on, as if their transactions had taken that long.
async fn make_late(database: &(String, Option<&str>), count: u32) {
    let mut connection = postgres_connection(database).await;
    let sql = format!(
        "CREATE SEQUENCE appended; \
         CREATE FUNCTION make_late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             IF nextval('appended') <= {count} THEN NEW.at := NEW.at - interval '25 seconds'; END IF; \
             RETURN NEW; \
         END $$; \
         CREATE TRIGGER make_late BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION make_late()"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut connection).await.expect("a trigger");
    connection.close().await.expect("closed");
}

/// The ids of all events of a kind.
async fn ids(store: &SharedStore, kind: EventKind) -> Vec<u64> {
    let events = store.events(0, 100).await.expect("the store answers");
    events.into_iter().filter(|event| event.kind == kind).map(|event| event.id).collect()
}

#[tokio::test]
async fn an_event_whose_transaction_took_too_long_is_appended_again() {
    let database = new_database().await;
    let store = open(&database.0, database.1);
    store.prepare().await.expect("a new store");
    make_late(&database, 3).await;
    let (key, first) = (key("a"), Generation::new(1));
    assert_eq!(store.commit(commit(&key, 1)).await, Ok(Committed::Stored));
    assert_eq!(ids(&store, EventKind::Committed).await.len(), 4, "three were late");
    assert_eq!(store.commit(commit(&key, 2)).await, Ok(Committed::Stored));
    assert_eq!(ids(&store, EventKind::Committed).await.len(), 5, "what is in time is appended once");
    let mut connection = postgres_connection(&database).await;
    let again = "ALTER SEQUENCE appended RESTART";
    sqlx::raw_sql(again).execute(&mut connection).await.expect("the database answers");
    let told = store.reject(key.hash(), first).await.expect("the store answers");
    let rejections = ids(&store, EventKind::Rejected).await;
    assert_eq!((told.invalidated, rejections.len()), (true, 4));
    assert_eq!(rejections.last(), Some(&told.event), "the one that is waited for");
    let again = store.reject(key.hash(), first).await.expect("the store answers");
    assert_eq!((again.invalidated, again.event), (false, told.event));
    assert_eq!(ids(&store, EventKind::Rejected).await, rejections);
    store.close().await;
}

#[tokio::test]
async fn who_repeats_a_change_whose_event_may_have_come_too_late_appends_it_again() {
    let database = new_database().await;
    let store = open(&database.0, database.1);
    store.prepare().await.expect("a new store");
    let (key, first) = (key("a"), Generation::new(1));
    assert_eq!(store.commit(commit(&key, 1)).await, Ok(Committed::Stored));
    let told = store.reject(key.hash(), first).await.expect("the store answers");
    let mut connection = postgres_connection(&database).await;
    let age = "UPDATE events SET at = at - interval '25 seconds'";
    sqlx::raw_sql(age).execute(&mut connection).await.expect("the database answers");
    for _ in 0..2 {
        assert_eq!(store.commit(commit(&key, 1)).await, Ok(Committed::Stored));
        assert_eq!(ids(&store, EventKind::Committed).await.len(), 2, "once");
        let again = store.reject(key.hash(), first).await.expect("the store answers");
        assert!(!again.invalidated && again.event > told.event, "{again:?}");
        assert_eq!(ids(&store, EventKind::Rejected).await, [told.event, again.event], "once");
    }
    let unknown = store.reject(key.hash(), Generation::new(2)).await.expect("the store answers");
    assert!(!unknown.invalidated);
    assert_eq!(ids(&store, EventKind::Rejected).await.len(), 2, "what was never minted is no repetition");
    store.close().await;
}

/// What one process stored the next one finds.
async fn a_restart_loses_nothing(open: impl Fn() -> SharedStore) {
    let first = open();
    first.prepare().await.expect("an empty database");
    let (key, at) = (key("read"), Timestamp::from_millis(1));
    let seed = GrantSeed { credential: key.credential().clone(), refresh_token: "r1".into(), previous: None, at };
    assert_eq!(first.plant_grant(seed, 0).await, Ok(true));
    let grant = GrantUpdate {
        base_version: 1,
        as_of: 0,
        sent: "r1".into(),
        refresh_token: "r2".into(),
        late: None,
        refused: vec![],
        intent: None,
        at,
    };
    assert_eq!(first.commit(Commit { grant: Some(grant), ..commit(&key, 1) }).await, Ok(Committed::Stored));
    let (row, grant) = (first.load(key.hash()).await, first.load_grant(key.credential().clone()).await);
    first.close().await;

    let second = open();
    second.prepare().await.expect("the same schema");
    assert!(matches!(&row, Ok(Some(row)) if row.generation == Generation::new(1)));
    assert_eq!(second.load(key.hash()).await, row);
    assert_eq!(second.load_grant(key.credential().clone()).await, grant);
    assert_eq!(second.commit(commit(&key, 1)).await, Ok(Committed::Stored), "known to be the same token");
    assert_eq!(second.commit(commit(&key, 2)).await, Ok(Committed::Stored));
    second.close().await;
}

#[tokio::test]
async fn a_restart_loses_nothing_in_sqlite() {
    let directory = TempDir::new().expect("a directory");
    a_restart_loses_nothing(|| open(&sqlite_url(&directory), None)).await;
}

#[tokio::test]
async fn a_restart_loses_nothing_in_postgres() {
    let (url, password) = new_database().await;
    a_restart_loses_nothing(|| open(&url, password)).await;
}

/// Replicas that start together all find the schema.
async fn replicas_may_start_together(open: impl Fn() -> SharedStore) {
    let starts = (0..8).map(|_| {
        let store = open();
        tokio::spawn(async move {
            let prepared = store.prepare().await;
            store.close().await;
            prepared
        })
    });
    for start in starts.collect::<Vec<_>>() {
        assert_eq!(start.await.expect("no panic"), Ok(()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_may_start_together_on_sqlite() {
    let directory = TempDir::new().expect("a directory");
    replicas_may_start_together(|| open(&sqlite_url(&directory), None)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_may_start_together_on_postgres() {
    let (url, password) = new_database().await;
    replicas_may_start_together(|| open(&url, password)).await;
}

#[tokio::test]
async fn a_schema_that_is_up_to_date_is_only_read() {
    let database = new_database().await;
    let store = open(&database.0, database.1);
    store.prepare().await.expect("an empty database");
    let mut admin = postgres_connection(&database).await;
    // Reading goes on beside this lock; a migration would wait for it.
    let lock = "BEGIN; LOCK TABLE _sqlx_migrations IN EXCLUSIVE MODE; SET LOCAL lock_timeout = 1; \
        SELECT pg_advisory_xact_lock(7094211958412307245)";
    sqlx::raw_sql(lock).execute(&mut admin).await.expect("nobody else migrates this database");
    let again = open(&database.0, database.1);
    assert_eq!(again.prepare().await, Ok(()));
}

/// As a newer program would have left it.
const NEWER: &str = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
    VALUES (9999, 'from the future', true, $1, 1)";

const CONTRACTED: &str = "UPDATE schema_versions SET min_writer = 9999";
const CONTRACTED_FURTHER: &str = "UPDATE schema_versions SET min_reader = 9999";

/// Newer schemas are used as long as they admit this program, and refused in words otherwise.
async fn assert_that_bounds_decide(open: impl Fn() -> SharedStore, execute: impl AsyncFn(&'static str)) {
    execute(NEWER).await;
    let store = open();
    assert_eq!(store.prepare().await, Ok(()), "the schema was only expanded");
    assert_eq!(store.commit(commit(&key("read"), 1)).await, Ok(Committed::Stored));
    store.close().await;
    for (change, words) in [
        (CONTRACTED, "it may still be read, but writing it takes version 9999 at least: upgrade tokencached"),
        (CONTRACTED_FURTHER, "while reading it takes version 9999 at least: upgrade tokencached"),
    ] {
        execute(change).await;
        let store = open();
        let error = store.prepare().await.expect_err("it is for newer programs");
        assert_eq!(error.kind(), ErrorKind::Misconfigured);
        assert!(error.message().ends_with(words), "{error}");
        store.close().await;
    }
}

#[tokio::test]
async fn a_newer_sqlite_schema_is_used_as_far_as_it_admits() {
    let directory = TempDir::new().expect("a directory");
    let url = sqlite_url(&directory);
    let store = open(&url, None);
    store.prepare().await.expect("an empty database");
    store.close().await;
    assert_that_bounds_decide(
        || open(&url, None),
        async |sql| {
            let mut connection = SqliteConnection::connect(&url).await.expect("the database is there");
            let query = sqlx::query(sql);
            let query = if sql == NEWER { query.bind(&b"x"[..]) } else { query };
            query.execute(&mut connection).await.expect("it is written");
            connection.close().await.expect("it is written to the disk");
        },
    )
    .await;
}

#[tokio::test]
async fn a_newer_postgres_schema_is_used_as_far_as_it_admits() {
    let database = new_database().await;
    let store = open(&database.0, database.1);
    store.prepare().await.expect("an empty database");
    store.close().await;
    assert_that_bounds_decide(
        || open(&database.0, database.1),
        async |sql| {
            let mut connection = postgres_connection(&database).await;
            let query = sqlx::query(sql);
            let query = if sql == NEWER { query.bind(&b"x"[..]) } else { query };
            query.execute(&mut connection).await.expect("it is written");
        },
    )
    .await;
}

#[tokio::test]
async fn a_store_opens_while_its_database_is_down() {
    let port = free_port().expect("a port");
    let store = open(&format!("postgres://nobody@127.0.0.1:{port}/none"), None);
    assert_eq!(store.ping().await.map_err(|error| error.kind()), Err(ErrorKind::StoreDown));
    assert_eq!(store.prepare().await.map_err(|error| error.kind()), Err(ErrorKind::StoreDown));
}

#[tokio::test]
async fn a_store_without_its_tables_is_down_until_it_is_prepared() {
    let directory = TempDir::new().expect("a directory");
    let database = new_database().await;
    for store in [open(&sqlite_url(&directory), None), open(&database.0, database.1)] {
        let early = store.load(key("read").hash()).await.map_err(|error| error.kind());
        assert_eq!(early, Err(ErrorKind::StoreDown), "{}", store.kind());
        store.prepare().await.expect("an empty database");
        assert_eq!(store.load(key("read").hash()).await, Ok(None));
        store.close().await;
    }
}

#[tokio::test]
async fn a_database_that_never_answers_is_down() {
    // The kernel accepts for it, and nobody reads.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = silent.local_addr().expect("it is bound").port();
    let store = open(&format!("postgres://nobody@127.0.0.1:{port}/none"), None);
    assert_eq!(store.ping().await.map_err(|error| error.kind()), Err(ErrorKind::StoreDown));
}

#[tokio::test]
async fn a_database_that_does_not_exist_is_a_matter_of_configuration() {
    let (url, password) = new_database().await;
    let missing = url.replace("tokencache_test_", "missing_");
    let store = open(&missing, password);
    let error = store.prepare().await.expect_err("there is no such database");
    assert_eq!(error.kind(), ErrorKind::Misconfigured);
    assert!(error.message().ends_with("there is no such database"), "{error}");
    assert_eq!(store.ping().await.map_err(|error| error.kind()), Err(ErrorKind::StoreDown), "it may be made yet");
}

#[tokio::test]
async fn a_row_that_was_tampered_with_is_not_served() {
    let database = new_database().await;
    let store = open(&database.0, database.1);
    store.prepare().await.expect("an empty database");
    assert_eq!(store.commit(commit(&key("read"), 1)).await, Ok(Committed::Stored));
    let mut admin = postgres_connection(&database).await;
    sqlx::query("UPDATE tokens SET scopes = '[\"admin\"]'").execute(&mut admin).await.expect("it is written");
    let error = store.load(key("read").hash()).await.expect_err("the row is another key's");
    assert_eq!((error.kind(), error.message()), (ErrorKind::Bug, "a row has an invalid key_hash"));
    store.close().await;
}

#[tokio::test]
async fn connections_that_the_database_ended_are_replaced() {
    let database = new_database().await;
    let store = open(&database.0, database.1);
    store.prepare().await.expect("an empty database");
    let mut admin = postgres_connection(&database).await;
    for generation in 1..=5 {
        assert_eq!(store.commit(commit(&key("read"), generation)).await, Ok(Committed::Stored));
        sqlx::query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        .execute(&mut admin)
        .await
        .expect("the role may end its own connections");
    }
    store.close().await;
}

#[tokio::test]
async fn no_transaction_waits_for_ever_for_a_lock() {
    let database = new_database().await;
    let store = open(&database.0, database.1);
    store.prepare().await.expect("an empty database");
    assert_eq!(store.commit(commit(&key("read"), 1)).await, Ok(Committed::Stored));
    let mut other = postgres_connection(&database).await;
    sqlx::raw_sql("BEGIN; LOCK TABLE tokens IN ACCESS EXCLUSIVE MODE").execute(&mut other).await.expect("a lock");
    let waiting = store.commit(commit(&key("read"), 2)).await;
    assert_eq!(waiting.map_err(|error| error.kind()), Err(ErrorKind::StoreDown));
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.expect("the lock ends");
    assert_eq!(store.commit(commit(&key("read"), 2)).await, Ok(Committed::Stored));
    store.close().await;
}

/// A caller that goes away leaves neither a broken connection nor a half-done commit.
async fn callers_may_go_away(store: SharedStore) {
    store.prepare().await.expect("an empty database");
    let mut calls = vec![];
    for number in 0..400_u64 {
        let (store, key) = (store.clone(), key(&format!("scope {}", number % 20)));
        let call = tokio::spawn(async move {
            let row = store.load(key.hash()).await.expect("the store answers");
            let next = row.map_or(1, |row| row.generation.get() + 1);
            store.commit(commit(&key, next)).await.expect("the store answers")
        });
        // Some are ended before they begin, some in their midst, some never.
        tokio::time::sleep(Duration::from_micros(number * 37 % 1500)).await;
        // Of the calls for each key every fourth.
        if number / 20 % 4 != 0 {
            call.abort();
        }
        calls.push(call);
    }
    for call in calls {
        let outcome = call.await;
        assert!(outcome.is_ok() || outcome.is_err_and(|error| error.is_cancelled()), "no operation fails");
    }
    for number in 0..20 {
        let key = key(&format!("scope {number}"));
        let row = store.load(key.hash()).await.expect("the store answers").expect("one in four came through");
        let token = row.token.expect("a row is written whole");
        assert_eq!(token.generation, row.generation);
        assert_eq!(token.access_token, Secret::from(format!("token {}", row.generation)));
    }
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_may_go_away_from_sqlite() {
    let directory = TempDir::new().expect("a directory");
    callers_may_go_away(open(&sqlite_url(&directory), None)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_may_go_away_from_postgres() {
    callers_may_go_away(new_postgres("max_connections=3").await).await;
}

#[tokio::test]
async fn the_sqlite_file_is_its_owners_alone() {
    let directory = TempDir::new().expect("a directory");
    let store = open(&sqlite_url(&directory), None);
    store.prepare().await.expect("a new file");
    let mode = |path: &Path| std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    let file = directory.path().join("data/tokens.db");
    assert_eq!((mode(&directory.path().join("data")), mode(&file)), (0o700, 0o600));
    assert_eq!(mode(&directory.path().join("data/tokens.db-wal")), 0o600);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).expect("it is ours");
    store.prepare().await.expect("the same schema");
    assert_eq!(mode(&file), 0o600, "what was left open is closed");
    store.close().await;
}

#[tokio::test]
async fn a_file_that_is_no_database_is_a_matter_of_configuration() {
    let directory = TempDir::new().expect("a directory");
    std::fs::write(directory.path().join("a.db"), "something else, and long enough to be looked at").expect("a file");
    let store = open(&format!("sqlite:{}/a.db", directory.path().display()), None);
    let error = store.prepare().await.expect_err("not a database");
    assert_eq!(error.kind(), ErrorKind::Misconfigured);
    assert!(error.message().contains("no SQLite database"), "{error}");
}
