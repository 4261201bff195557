//! The store of a single machine: one SQLite file, one writer, a few readers.
//!
//! WAL with `synchronous = FULL`: a commit is on the disk before it is answered, because the upstream has already
//! forgotten the refresh token that this one replaced.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use sqlx::{Sqlite, SqliteExecutor, SqlitePool, Transaction};

use self::{
    error::SqliteStoreError,
    transaction::{attempts, retried},
};
use super::{
    Admission, ApiKey, AuditFilter, AuditRow, Claim, Commit, Committed, Departure, EndpointClaim, EndpointView, Event,
    FailedAttempt, Grant, GrantCandidate, GrantLoss, GrantSeed, GrantUpdate, Holder, Lease, LeaseOwner, LeaseScope,
    Pass, Rejected, Reseal, RotationIntent, SecretCursor, SecretPage, TokenRow, TokenStore, Turned,
    secrets::value_of,
    sql::{
        self,
        rows::{EventColumns, HolderColumns, all, json, lease_millis, signed},
        schema::Fit,
    },
};
use crate::{
    error::Result,
    time::Timestamp,
    types::{CredentialName, Generation, KeyHash, Origin},
};

mod api_keys;
mod audit;
mod config;
mod endpoints;
mod error;
mod grants;
mod queries;
mod schema;
mod secrets;
mod tokens;
mod transaction;

/// How many events one transaction deletes at most.
const PRUNE_BATCH: i64 = 5000;

/// Keeps everything in an SQLite file.
#[derive(Debug)]
pub struct SqliteTokenStore {
    path: PathBuf,
    writer: SqlitePool,
    readers: SqlitePool,
}

/// A statement with its parameters.
macro_rules! query {
    ($sql:expr $(, $value:expr)* $(,)?) => { sqlx::query($sql)$(.bind($value))* };
}

/// The same, for rows.
macro_rules! query_as {
    ($sql:expr $(, $value:expr)* $(,)?) => { sqlx::query_as($sql)$(.bind($value))* };
}

use {query, query_as};

impl SqliteTokenStore {
    /// The store in the file at `path`, which [`TokenStore::prepare`] makes if it is not there: readable by its owner
    /// alone, in a directory, if that is missing, that is so, too.
    #[must_use]
    pub fn open(path: &Path) -> Self {
        let (writer, readers) = config::pools(path);
        Self { path: path.to_owned(), writer, readers }
    }

    async fn begin(&self) -> Result<SqliteTransaction, SqliteStoreError> {
        Ok(self.writer.begin_with(queries::BEGIN).await?)
    }

    /// In one transaction, which excludes the other processes that start now.
    async fn migrate(&self) -> Result<(), SqliteStoreError> {
        let path = self.path.clone();
        let created = tokio::task::spawn_blocking(move || config::create(&path)).await;
        created.map_err(io::Error::other).flatten().map_err(SqliteStoreError::File)?;
        let mut migrator = sqlx::migrate!("../migrations/sqlite");
        migrator.set_locking(false);
        let mut tx = self.begin().await?;
        if schema::look(&mut tx, &migrator).await? == Fit::Behind {
            migrator.run_direct(None, &mut *tx, false).await?;
        }
        Ok(tx.commit().await?)
    }

    async fn try_acquire(
        &self,
        scope: &LeaseScope,
        owner: &LeaseOwner,
        ttl: Duration,
    ) -> Result<Claim, SqliteStoreError> {
        let mut tx = self.begin().await?;
        let claim = query!(queries::ACQUIRE, scope.as_text(), owner.to_string(), lease_millis(ttl));
        let granted = claim.execute(&mut *tx).await?.rows_affected() == 1;
        let holder = if granted { None } else { Some(Self::lease(&mut *tx, scope).await?) };
        tx.commit().await?;
        match holder {
            None => Ok(Claim::Granted(Lease { scope: scope.clone(), owner: owner.clone() })),
            Some(holder) => Ok(Claim::Held(holder.ok_or(SqliteStoreError::Vanished)?)),
        }
    }

    async fn lease<'c>(
        connection: impl SqliteExecutor<'c>,
        scope: &LeaseScope,
    ) -> Result<Option<Holder>, SqliteStoreError> {
        let row: Option<HolderColumns> = query_as!(queries::LEASE, scope.as_text()).fetch_optional(connection).await?;
        Ok(row.map(Holder::from))
    }

    async fn try_holder(&self, scope: &LeaseScope) -> Result<Option<Holder>, SqliteStoreError> {
        let holder = Self::lease(&self.readers, scope).await?;
        Ok(holder.filter(|holder| !holder.remaining.is_zero()))
    }

    /// Runs one statement in a transaction; how many rows it changed.
    async fn execute(&self, query: SqliteQuery<'_>) -> Result<u64, SqliteStoreError> {
        let mut tx = self.begin().await?;
        let changed = query.execute(&mut *tx).await?.rows_affected();
        tx.commit().await?;
        Ok(changed)
    }

    async fn try_commit(&self, commit: &Commit) -> Result<Committed, SqliteStoreError> {
        let mut tx = self.begin().await?;
        let committed = Self::commit_token(&mut tx, commit).await?;
        if let Some(update) = &commit.grant {
            Self::keep_grant(&mut tx, commit.key.credential(), update).await?;
        }
        tx.commit().await?;
        Ok(committed)
    }

    async fn try_events(&self, after: u64, limit: u32) -> Result<Vec<Event>, SqliteStoreError> {
        let rows = query_as!(queries::EVENTS, signed(after), i64::from(limit));
        let rows: Vec<EventColumns> = rows.fetch_all(&self.readers).await?;
        Ok(all(rows)?)
    }
}

type SqliteTransaction = Transaction<'static, Sqlite>;
type SqliteQuery<'q> = sqlx::query::Query<'q, Sqlite, sqlx::sqlite::SqliteArguments>;

#[async_trait]
impl TokenStore for SqliteTokenStore {
    fn kind(&self) -> &'static str {
        "sqlite"
    }

    async fn prepare(&self) -> Result<()> {
        attempts("prepare", || self.migrate()).await.map_err(SqliteStoreError::while_preparing)
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
        let renew = || self.execute(query!(queries::RENEW, scope.as_str(), owner.as_str(), lease_millis(ttl)));
        Ok(retried("renew", renew).await? == 1)
    }

    async fn release(&self, lease: Lease) -> Result<()> {
        let (scope, owner) = (lease.scope.as_text(), lease.owner.to_string());
        let release = || self.execute(query!(sql::RELEASE, scope.as_str(), owner.as_str()));
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
                query!(sql::INSERT_GRANT, name, secret, print, at.as_millis())
            } else {
                query!(
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
        retried("abandon_rotation", || self.execute(query!(sql::END_INTENT, name, owner))).await.map(drop)
    }

    async fn lose_grant(&self, loss: GrantLoss) -> Result<bool> {
        retried("lose_grant", || self.try_lose_grant(&loss)).await
    }

    async fn events(&self, after: u64, limit: u32) -> Result<Vec<Event>> {
        retried("events", || self.try_events(after, limit)).await
    }

    async fn prune(&self, older_than: Timestamp) -> Result<u64> {
        let before = older_than.as_millis();
        let mut pruned = 0;
        for sql in [queries::PRUNE_EVENTS, sql::PRUNE_ROWS] {
            loop {
                let deleted = retried("prune", || self.execute(query!(sql, before, PRUNE_BATCH))).await?;
                pruned += deleted;
                if deleted < PRUNE_BATCH.unsigned_abs() {
                    break;
                }
            }
        }
        Ok(pruned)
    }

    async fn api_keys(&self) -> Result<Vec<ApiKey>> {
        retried("api_keys", || self.try_api_keys()).await
    }

    async fn add_api_key(&self, key: ApiKey) -> Result<()> {
        retried("add_api_key", || self.try_add_api_key(&key)).await
    }

    async fn revoke_api_key(&self, id: String, at: Timestamp) -> Result<bool> {
        let revoke = || self.execute(query!(queries::REVOKE_API_KEY, id.as_str(), at.as_millis()));
        Ok(retried("revoke_api_key", revoke).await? == 1)
    }

    async fn note_api_key_use(&self, used: Vec<(String, Timestamp)>) -> Result<()> {
        for (id, at) in used {
            let note = || self.execute(query!(queries::NOTE_API_KEY_USE, id.as_str(), at.as_millis()));
            retried("note_api_key_use", note).await?;
        }
        Ok(())
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

    async fn secrets(&self, from: SecretCursor, limit: u32) -> Result<SecretPage> {
        retried("secrets", || self.try_secrets(&from, limit)).await
    }

    async fn reseal(&self, changes: Vec<Reseal>) -> Result<u64> {
        retried("reseal", || self.try_reseal(&changes)).await
    }

    async fn ping(&self) -> Result<()> {
        retried("ping", || async { Ok(self.begin().await?.commit().await?) }).await
    }

    async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}
