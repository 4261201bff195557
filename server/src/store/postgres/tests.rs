//! What takes more than one version of this program: one that knows the migrations of the repository, and one that knows
//! another one after them.

use std::borrow::Cow;

use sqlx::{
    Connection as _, PgConnection, SqlSafeStr as _,
    migrate::{Migration, MigrationType, Migrator},
    postgres::PgConnectOptions,
};
use tokencache_testkit::Postgres;

use super::*;
use crate::{
    store::{Applied, Fence, LeaseOwner},
    types::{Fingerprint, Secret, Selector, Terms, Token, TokenKey},
};

/// Adds a column that older programs do not know.
const EXPAND: &str = "ALTER TABLE tokens ADD COLUMN note text NOT NULL DEFAULT 'none'";

/// Takes away one that they write.
const CONTRACT: &str = "LOCK TABLE schema_versions IN ACCESS EXCLUSIVE MODE; \
    UPDATE schema_versions SET min_writer = 9000; ALTER TABLE tokens DROP COLUMN token_type CASCADE";

/// Changes what they read.
const CONTRACT_FURTHER: &str = "LOCK TABLE schema_versions IN ACCESS EXCLUSIVE MODE; \
    UPDATE schema_versions SET min_reader = 9000, min_writer = 9000";

struct Database {
    url: StoreUrl,
    password: Option<Secret>,
}

impl Database {
    async fn new() -> Self {
        let server = Postgres::start().await.expect("a Postgres to test with");
        let url = server.new_database().await.expect("a new database");
        Self { url: StoreUrl::parse(&url).expect("a URL"), password: server.password().map(Secret::from) }
    }

    /// A program of today.
    fn old(&self) -> PgTokenStore {
        PgTokenStore::open(&self.url, self.password.clone().map(|password| Arc::new(password) as SharedPassword))
            .expect("a valid URL")
    }

    /// A program that knows one more migration.
    fn new_program(&self, sql: &'static str) -> PgTokenStore {
        let mut migrations = sqlx::migrate!("../migrations/postgres").migrations.into_owned();
        let (description, text) = (Cow::Borrowed("of a later version"), sql.into_sql_str());
        migrations.push(Migration::new(9000, description, MigrationType::Simple, text, false));
        PgTokenStore { schema: Schema::of(Migrator::with_migrations(migrations)), ..self.old() }
    }

    async fn connect(&self) -> PgConnection {
        let mut options: PgConnectOptions = self.url.as_str().parse().expect("a URL");
        if let Some(password) = &self.password {
            options = options.password(password.expose());
        }
        PgConnection::connect_with(&options).await.expect("the database answers")
    }
}

fn commit(credential: &str, generation: u64) -> Commit {
    let credential = CredentialName::parse(credential).expect("a valid name");
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
    let key = TokenKey::new(Selector::new(credential, vec![], None, vec![]));
    let config = Fingerprint::of_bytes(b"config");
    let fence = Fence::Next;
    Commit { key, token, config, last_used_at: Timestamp::from_millis(1), grant: None, fence }
}

fn beat(id: &str) -> Heartbeat {
    let ttl = Duration::from_secs(60);
    Heartbeat { replica: ReplicaId::new(id), version: "1".into(), ttl, applied: Applied::default() }
}

fn kinds<T>(result: Result<T>) -> Result<T, (ErrorKind, String)> {
    result.map_err(|error| (error.kind(), error.message().to_owned()))
}

#[tokio::test]
async fn an_old_and_a_new_program_work_side_by_side_on_an_expanded_schema() {
    let database = Database::new().await;
    let (old, new) = (database.old(), database.new_program(EXPAND));
    old.prepare().await.expect("an empty database");
    assert_eq!(old.heartbeat(beat("old")).await, Ok(()));
    assert_eq!(new.prepare().await, Ok(()), "to expand cuts nobody off");
    assert_eq!(database.old().prepare().await, Ok(()), "an old program may even start");

    for (generation, store) in [(1, &old), (2, &new), (3, &old), (4, &new)] {
        assert_eq!(store.commit(commit("crm", generation)).await, Ok(Committed::Stored));
        for reader in [&old, &new] {
            let row = reader.load(commit("crm", 1).key.hash()).await.expect("it reads").expect("a row");
            assert_eq!(row.generation, Generation::new(generation));
        }
    }
    assert_eq!(old.heartbeat(beat("old")).await, Ok(()));
    assert_eq!(new.heartbeat(beat("new")).await, Ok(()));
    assert_eq!(old.replicas().await.map(|replicas| replicas.len()), Ok(2));
}

#[tokio::test]
async fn a_replica_under_which_the_schema_was_contracted_writes_no_more() {
    let database = Database::new().await;
    let old = database.old();
    old.prepare().await.expect("an empty database");
    assert_eq!(old.commit(commit("crm", 1)).await, Ok(Committed::Stored));
    assert_eq!(database.new_program(CONTRACT).prepare_by_force().await, Ok(()));

    let newest = old.schema.newest();
    let words = format!(
        "the schema of the database is too new for this program, which knows versions up to {newest}: it may still be \
         read, but writing it takes version 9000 at least: upgrade tokencached"
    );
    let refused = Err((ErrorKind::StoreDown, words));
    assert_eq!(
        kinds(old.heartbeat(beat("old")).await),
        refused,
        "so nobody waits for it, and what it serves is degraded"
    );
    assert_eq!(kinds(old.commit(commit("crm", 2)).await.map(drop)), refused);
    assert_eq!(kinds(old.reject(commit("crm", 1).key.hash(), Generation::new(1)).await.map(drop)), refused);
    let scope = LeaseScope::Grant(CredentialName::parse("crm").expect("a valid name"));
    let owner = LeaseOwner { replica: ReplicaId::new("old"), nonce: 1 };
    assert_eq!(kinds(old.acquire(scope, owner, Duration::from_secs(5)).await.map(drop)), refused);
    assert_eq!(old.events(0, 10).await.map(|events| events.len()), Ok(1), "it may still read");

    let mut connection = database.connect().await;
    let (generation,): (i64,) =
        sqlx::query_as("SELECT generation FROM tokens").fetch_one(&mut connection).await.expect("a row");
    assert_eq!(generation, 1, "nothing was written");
    assert!(old.outgrown.load(Ordering::Relaxed), "it was said");
}

#[tokio::test]
async fn a_replica_that_may_not_even_read_reads_no_more() {
    let database = Database::new().await;
    let old = database.old();
    old.prepare().await.expect("an empty database");
    assert_eq!(database.new_program(CONTRACT_FURTHER).prepare_by_force().await, Ok(()));
    let (kind, message) = kinds(old.load(commit("crm", 1).key.hash()).await).expect_err("it may not");
    assert_eq!(kind, ErrorKind::StoreDown);
    assert!(message.contains("while reading it takes version 9000"), "{message}");
}

#[tokio::test]
async fn a_contracting_migration_waits_for_replicas_that_it_would_cut_off() {
    let database = Database::new().await;
    let (old, new) = (database.old(), database.new_program(CONTRACT));
    old.prepare().await.expect("an empty database");
    assert_eq!(old.heartbeat(beat("old")).await, Ok(()));
    let (kind, message) = kinds(new.prepare().await).expect_err("somebody would be cut off");
    assert_eq!(kind, ErrorKind::StoreDown, "it heals when the replica leaves");
    assert!(message.contains("and old still run: upgrade or stop them first, or migrate with --force"), "{message}");
    assert_eq!(old.commit(commit("crm", 1)).await, Ok(Committed::Stored), "nothing was changed");

    assert_eq!(old.leave(ReplicaId::new("old")).await, Ok(()));
    assert_eq!(new.prepare().await, Ok(()));
    assert_eq!(
        kinds(old.commit(commit("crm", 2)).await.map(drop)).map_err(|(kind, _)| kind),
        Err(ErrorKind::StoreDown)
    );
}

#[tokio::test]
async fn a_contracting_migration_waits_for_transactions_that_began_before_it() {
    let database = Database::new().await;
    let (old, new) = (database.old(), database.new_program(CONTRACT));
    old.prepare().await.expect("an empty database");
    let mut under_way = old.begin().await.expect("it begins");
    let migration = tokio::spawn(async move { new.prepare_by_force().await });
    let mut watch = database.connect().await;
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while sqlx::query_as(waits).fetch_one(&mut watch).await.map(|(waiting,): (i64,)| waiting).expect("an answer") == 0 {
        tokio::task::yield_now().await;
    }
    let Commit { key, .. } = commit("crm", 1);
    let append = "INSERT INTO events (kind, key_hash, credential, generation, min_generation) VALUES ('committed', $1, 'crm', 1, 0)";
    let written = sqlx::query(append).persistent(false).bind(&key.hash().as_bytes()[..]).execute(&mut *under_way).await;
    assert!(written.is_ok(), "what it began on the old schema, it ends on it");
    under_way.commit().await.expect("it ends");
    assert_eq!(migration.await.expect("no panic"), Ok(()));
}

/// Every migration that raises a bound keeps transactions off until it has ended, and leaves no program behind that was
/// released with it.
#[test]
fn migrations_that_contract_lock_the_bounds_first() {
    for migration in sqlx::migrate!("../migrations/postgres").iter().filter(|migration| migration.version > 2) {
        let sql = migration.sql.as_str();
        if let Some(raised) = sql.find("UPDATE schema_versions") {
            let locked = sql.find("LOCK TABLE schema_versions IN ACCESS EXCLUSIVE MODE");
            assert!(locked.is_some_and(|locked| locked < raised), "migration {}", migration.version);
        }
    }
}
