//! The store that replicas share: Postgres, also behind a transaction-pooling pgbouncer.
//!
//! Every operation is one explicit transaction: behind such a pooler that alone keeps a statement, its parameters and
//! its limits on one connection. Nothing here lives in a session: no prepared statement unless the URL allows it, no
//! advisory lock, no setting.
//!
//! What a refresh or an acknowledgement waits for has connections of its own, apart from those of bulk reads and of what
//! operators ask: neither can starve the other.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use sqlx::postgres::PgRow;
use tokio::sync::Notify;
use tracing::error;

use self::{
    config::PgStoreConfig,
    error::PgStoreError,
    pool::Pool,
    route::Route,
    schema::Schema,
    transaction::{Need, PgTransaction, retried},
};
use super::{
    Admission, ApiKey, Applied, AuditFilter, AuditRow, Claim, Commit, Committed, Departure, EndpointClaim,
    EndpointView, Event, FailedAttempt, Grant, GrantCandidate, GrantLoss, GrantSeed, GrantUpdate, Heartbeat, Holder,
    Lease, LeaseOwner, LeaseScope, Pass, Rejected, Replica, Reseal, RotationIntent, SecretCursor, SecretPage,
    SharedPassword, StoreUrl, TokenRow, TokenStore, Turned,
    secrets::value_of,
    sql::{
        self,
        rows::{HolderColumns, json, lease_millis, signed},
        schema::Access,
    },
};
use crate::{
    error::{Error, ErrorKind, Result},
    time::Timestamp,
    types::{CredentialName, Generation, KeyHash, Origin, ReplicaId},
};

mod api_keys;
mod audit;
mod config;
mod endpoints;
mod error;
mod events;
mod fleet;
mod grants;
mod pool;
mod queries;
mod route;
mod schema;
mod secrets;
mod tokens;
mod transaction;

#[cfg(test)]
mod tests;

/// How long a migration may take, and the wait for one that another replica runs.
const MIGRATION_LIMIT: Duration = Duration::from_secs(120);

/// How many rows one transaction deletes at most.
const PRUNE_BATCH: i64 = 5000;

/// The times that `timestamptz` and its arithmetic surely hold: the year 1970 to 9999.
const TIMES: (i64, i64) = (0, 253_402_300_799_999);

/// Keeps everything in a Postgres database.
#[derive(Debug)]
pub struct PgTokenStore {
    route: Route,
    /// For refreshes, acknowledgements and the fleet.
    refresh: Pool,
    /// For bulk reads, operators and tidying.
    admin: Pool,
    schema: Schema,
    statement_cache: bool,
    /// Whether it was said that the schema has outgrown this program.
    outgrown: AtomicBool,
}

/// A statement with its parameters, kept prepared only if the configuration says so.
macro_rules! query {
    ($store:expr, $sql:expr $(, $value:expr)* $(,)?) => {
        sqlx::query($sql).persistent($store.statement_cache)$(.bind($value))*
    };
}

/// The same, for rows.
macro_rules! query_as {
    ($store:expr, $sql:expr $(, $value:expr)* $(,)?) => {
        sqlx::query_as($sql).persistent($store.statement_cache)$(.bind($value))*
    };
}

use {query, query_as};

impl PgTokenStore {
    /// A store that connects when it is first used.
    ///
    /// # Errors
    ///
    /// If the URL is invalid. A database that is down is none.
    pub fn open(url: &StoreUrl, password: Option<SharedPassword>) -> Result<Self> {
        let PgStoreConfig { connect, refresh, admin, statement_cache } = PgStoreConfig::new(url)?;
        let route = Route::new(connect, password);
        Ok(Self {
            refresh: Pool::new(route.clone(), refresh),
            admin: Pool::new(route.clone(), admin),
            route,
            schema: Schema::of_this_program(),
            statement_cache,
            outgrown: AtomicBool::new(false),
        })
    }

    /// A transaction of a refresh, an acknowledgement or the fleet.
    async fn begin(&self) -> Result<PgTransaction, PgStoreError> {
        self.begin_on(&self.refresh, Access::Write).await
    }

    /// The same, which writes nothing: it goes on where the schema may be read only.
    async fn begin_reading(&self) -> Result<PgTransaction, PgStoreError> {
        self.begin_on(&self.refresh, Access::Read).await
    }

    /// A transaction that reads much, or for an operator.
    async fn begin_inspecting(&self) -> Result<PgTransaction, PgStoreError> {
        self.begin_on(&self.admin, Access::Read).await
    }

    async fn begin_on(&self, pool: &Pool, access: Access) -> Result<PgTransaction, PgStoreError> {
        self.admitted(PgTransaction::begin(pool, Some(self.need(access))).await)
    }

    /// See [`PgTransaction::at_once`].
    async fn at_once(&self, statement: &str) -> Result<Vec<PgRow>, PgStoreError> {
        self.admitted(PgTransaction::at_once(&self.refresh, self.need(Access::Read), statement).await)
    }

    fn need(&self, access: Access) -> Need {
        Need { access, known: self.schema.newest() }
    }

    /// Says, once, that the schema has outgrown this program.
    fn admitted<T>(&self, done: Result<T, PgStoreError>) -> Result<T, PgStoreError> {
        if let Err(PgStoreError::Schema(misfit)) = &done
            && !self.outgrown.swap(true, Ordering::Relaxed)
        {
            error!(%misfit, "this replica was left behind by a migration");
        }
        done
    }

    async fn try_acquire(&self, scope: &LeaseScope, owner: &LeaseOwner, ttl: Duration) -> Result<Claim, PgStoreError> {
        let mut tx = self.begin().await?;
        let claim = query!(self, queries::ACQUIRE, scope.as_text(), owner.to_string(), lease_millis(ttl));
        let granted = claim.execute(&mut *tx).await?.rows_affected() == 1;
        let holder = if granted { None } else { Some(self.lease(&mut tx, scope).await?) };
        tx.commit().await?;
        match holder {
            None => Ok(Claim::Granted(Lease { scope: scope.clone(), owner: owner.clone() })),
            Some(holder) => Ok(Claim::Held(holder.ok_or(PgStoreError::Vanished)?)),
        }
    }

    async fn lease(&self, tx: &mut PgTransaction, scope: &LeaseScope) -> Result<Option<Holder>, PgStoreError> {
        let row: Option<HolderColumns> =
            query_as!(self, queries::LEASE, scope.as_text()).fetch_optional(&mut **tx).await?;
        Ok(row.map(Holder::from))
    }

    async fn try_holder(&self, scope: &LeaseScope) -> Result<Option<Holder>, PgStoreError> {
        let mut tx = self.begin_inspecting().await?;
        let holder = self.lease(&mut tx, scope).await?;
        tx.commit().await?;
        Ok(holder.filter(|holder| !holder.remaining.is_zero()))
    }

    /// Runs one statement in a transaction; how many rows it changed.
    async fn execute(&self, query: PgQuery<'_>) -> Result<u64, PgStoreError> {
        Self::execute_in(self.begin().await?, query).await
    }

    async fn execute_in(mut tx: PgTransaction, query: PgQuery<'_>) -> Result<u64, PgStoreError> {
        let changed = query.execute(&mut *tx).await?.rows_affected();
        tx.commit().await?;
        Ok(changed)
    }

    async fn try_prune(&self, sql: &'static str, before: i64) -> Result<u64, PgStoreError> {
        let tx = self.begin_on(&self.admin, Access::Write).await?;
        Self::execute_in(tx, query!(self, sql, before, PRUNE_BATCH)).await
    }

    async fn prepare_schema(&self, force: bool) -> Result<()> {
        match tokio::time::timeout(MIGRATION_LIMIT, self.schema.prepare(&self.admin, &self.route, force)).await {
            Ok(migrated) => migrated.map_err(PgStoreError::while_preparing),
            Err(_) => Err(Error::new(ErrorKind::StoreDown, "the database does not answer in time")),
        }
    }

    async fn try_commit(&self, commit: &Commit) -> Result<Committed, PgStoreError> {
        let mut tx = self.begin().await?;
        let (committed, event) = self.commit_token(&mut tx, commit).await?;
        if let Some(update) = &commit.grant {
            self.keep_grant(&mut tx, commit.key.credential(), update).await?;
        }
        match event {
            Some(event) => drop(self.commit_event(tx, event).await?),
            None => tx.commit().await?,
        }
        Ok(committed)
    }
}

type PgQuery<'q> = sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;

#[async_trait]
impl TokenStore for PgTokenStore {
    fn kind(&self) -> &'static str {
        "postgres"
    }

    async fn prepare(&self) -> Result<()> {
        self.prepare_schema(false).await
    }

    async fn prepare_by_force(&self) -> Result<()> {
        self.prepare_schema(true).await
    }

    async fn load(&self, key: KeyHash) -> Result<Option<TokenRow>> {
        retried("load", || self.try_load(key)).await
    }

    async fn scan(&self, after: Option<KeyHash>, limit: u32) -> Result<Vec<TokenRow>> {
        let after = after.as_ref().map_or(&[][..], |after| &after.as_bytes()[..]);
        retried("scan", || self.try_scan(after, limit)).await
    }

    async fn rows_of(&self, credential: CredentialName, limit: u32) -> Result<Vec<TokenRow>> {
        retried("rows_of", || self.try_rows_of(&credential, limit)).await
    }

    async fn acquire(&self, scope: LeaseScope, owner: LeaseOwner, ttl: Duration) -> Result<Claim> {
        retried("acquire", || self.try_acquire(&scope, &owner, ttl)).await
    }

    async fn renew(&self, lease: Lease, ttl: Duration) -> Result<bool> {
        let (scope, owner) = (lease.scope.as_text(), lease.owner.to_string());
        let renew = || self.execute(query!(self, queries::RENEW, scope.as_str(), owner.as_str(), lease_millis(ttl)));
        Ok(retried("renew", renew).await? == 1)
    }

    async fn release(&self, lease: Lease) -> Result<()> {
        let (scope, owner) = (lease.scope.as_text(), lease.owner.to_string());
        let release = || self.execute(query!(self, sql::RELEASE, scope.as_str(), owner.as_str()));
        retried("release", release).await.map(drop)
    }

    async fn holder(&self, scope: LeaseScope) -> Result<Option<Holder>> {
        retried("holder", || self.try_holder(&scope)).await
    }

    async fn admit(&self, claim: EndpointClaim) -> Result<Admission> {
        retried("admit", || self.try_admit(&claim)).await
    }

    async fn renew_pass(&self, pass: Pass, ttl: Duration) -> Result<bool> {
        retried("renew_pass", || self.try_renew_pass(&pass, ttl)).await
    }

    async fn depart(&self, departure: Departure) -> Result<Turned> {
        retried("depart", || self.try_depart(&departure)).await
    }

    async fn endpoint(&self, endpoint: Origin) -> Result<EndpointView> {
        retried("endpoint", || self.try_endpoint(&endpoint)).await
    }

    async fn commit(&self, commit: Commit) -> Result<Committed> {
        retried("commit", || self.try_commit(&commit)).await
    }

    async fn record_failure(&self, attempt: FailedAttempt) -> Result<()> {
        let FailedAttempt { key, base, failures } = attempt;
        let (hash, selector) = (key.hash(), key.selector());
        let record = || {
            self.execute(query!(
                self,
                sql::RECORD_FAILURE,
                &hash.as_bytes()[..],
                key.credential().as_str(),
                json(selector.scopes()),
                selector.audience(),
                json(selector.resources()),
                failures.config.to_string(),
                i64::from(failures.count),
                failures.kind.reason(),
                failures.message.as_str(),
                failures.at.as_millis(),
                failures.next_attempt_at.as_millis(),
                signed(base.get()),
            ))
        };
        retried("record_failure", record).await.map(drop)
    }

    async fn reject(&self, key: KeyHash, generation: Generation) -> Result<Rejected> {
        retried("reject", || self.try_reject(key, generation)).await
    }

    async fn candidates(&self, credential: CredentialName) -> Result<Vec<GrantCandidate>> {
        retried("candidates", || self.try_candidates(&credential)).await
    }

    async fn load_grant(&self, credential: CredentialName) -> Result<Option<Grant>> {
        retried("load_grant", || self.try_load_grant(&credential)).await
    }

    async fn plant_grant(&self, seed: GrantSeed, expected: u64) -> Result<bool> {
        let GrantSeed { credential, refresh_token, previous, at } = seed;
        let (secret, print) = (refresh_token.value.expose().as_bytes(), refresh_token.fingerprint.to_string());
        let (name, print, before) = (credential.as_str(), print.as_str(), value_of(previous.as_ref()));
        let before_print = previous.as_ref().map(|previous| previous.fingerprint.to_string());
        let plant = || {
            self.execute(if expected == 0 {
                query!(self, sql::INSERT_GRANT, name, secret, print, at.as_millis())
            } else {
                query!(
                    self,
                    sql::REPLACE_GRANT,
                    name,
                    signed(expected),
                    secret,
                    print,
                    at.as_millis(),
                    before,
                    before_print.as_deref()
                )
            })
        };
        Ok(retried("plant_grant", plant).await? == 1)
    }

    async fn advance_grant(&self, credential: CredentialName, update: GrantUpdate) -> Result<bool> {
        retried("advance_grant", || self.try_advance_grant(&credential, &update)).await
    }

    async fn begin_rotation(&self, intent: RotationIntent) -> Result<bool> {
        retried("begin_rotation", || self.try_begin_rotation(&intent)).await
    }

    async fn abandon_rotation(&self, intent: RotationIntent) -> Result<()> {
        let (name, owner) = (intent.credential.as_str(), intent.owner.as_str());
        retried("abandon_rotation", || self.execute(query!(self, sql::END_INTENT, name, owner))).await.map(drop)
    }

    async fn lose_grant(&self, loss: GrantLoss) -> Result<bool> {
        retried("lose_grant", || self.try_lose_grant(&loss)).await
    }

    async fn events(&self, after: u64, limit: u32) -> Result<Vec<Event>> {
        retried("events", || self.try_events(after, limit)).await
    }

    async fn prune(&self, older_than: Timestamp) -> Result<u64> {
        let before = older_than.as_millis().clamp(TIMES.0, TIMES.1);
        let mut pruned = 0;
        for sql in [queries::PRUNE_EVENTS, queries::PRUNE_REPLICAS, sql::PRUNE_ROWS] {
            loop {
                let deleted = retried("prune", || self.try_prune(sql, before)).await?;
                pruned += deleted;
                if deleted < PRUNE_BATCH.unsigned_abs() {
                    break;
                }
            }
        }
        Ok(pruned)
    }

    async fn append_audit(&self, rows: Vec<AuditRow>) -> Result<()> {
        retried("append_audit", || self.try_append_audit(&rows)).await
    }

    async fn audit_events(&self, after: u64, filter: AuditFilter, limit: u32) -> Result<Vec<AuditRow>> {
        retried("audit_events", || self.try_audit_events(after, &filter, limit)).await
    }

    async fn prune_audit(&self, older_than: Timestamp) -> Result<u64> {
        let before = older_than.as_millis();
        let mut pruned = 0;
        loop {
            let deleted = retried("prune_audit", || self.try_prune_audit(before)).await?;
            pruned += deleted;
            if deleted < PRUNE_BATCH.unsigned_abs() {
                return Ok(pruned);
            }
        }
    }

    fn is_shared(&self) -> bool {
        true
    }

    async fn heartbeat(&self, beat: Heartbeat) -> Result<()> {
        retried("heartbeat", || fleet::heartbeat(self, &beat)).await
    }

    async fn applied(&self, replica: ReplicaId, applied: Applied) -> Result<bool> {
        retried("applied", || fleet::applied(self, &replica, &applied)).await
    }

    async fn replicas(&self) -> Result<Vec<Replica>> {
        retried("replicas", || fleet::replicas(self)).await
    }

    async fn leave(&self, replica: ReplicaId) -> Result<()> {
        retried("leave", || self.execute(query!(self, queries::LEAVE, replica.as_str()))).await.map(drop)
    }

    async fn event_horizon(&self, age: Duration) -> Result<u64> {
        retried("event_horizon", || fleet::event_horizon(self, age)).await
    }

    async fn listen(&self, hint: Arc<Notify>) {
        fleet::listen(self, &hint).await;
    }

    async fn api_keys(&self) -> Result<Vec<ApiKey>> {
        retried("api_keys", || self.try_api_keys()).await
    }

    async fn add_api_key(&self, key: ApiKey) -> Result<()> {
        retried("add_api_key", || self.try_add_api_key(&key)).await
    }

    async fn revoke_api_key(&self, id: String, at: Timestamp) -> Result<bool> {
        let revoke = || self.execute(query!(self, api_keys::REVOKE_API_KEY, id.as_str(), at.as_millis()));
        Ok(retried("revoke_api_key", revoke).await? == 1)
    }

    async fn note_api_key_use(&self, used: Vec<(String, Timestamp)>) -> Result<()> {
        for (id, at) in used {
            let note = || self.execute(query!(self, api_keys::NOTE_API_KEY_USE, id.as_str(), at.as_millis()));
            retried("note_api_key_use", note).await?;
        }
        Ok(())
    }

    async fn secrets(&self, from: SecretCursor, limit: u32) -> Result<SecretPage> {
        retried("secrets", || self.try_secrets(&from, limit)).await
    }

    async fn reseal(&self, changes: Vec<Reseal>) -> Result<u64> {
        retried("reseal", || self.try_reseal(&changes)).await
    }

    async fn ping(&self) -> Result<()> {
        retried("ping", || async { PgTransaction::begin(&self.refresh, None).await?.commit().await }).await
    }

    async fn close(&self) {
        tokio::join!(self.refresh.close(), self.admin.close());
    }
}
