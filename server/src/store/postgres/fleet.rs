//! What replicas tell one another through the database.

use std::time::Duration;

use sqlx::{FromRow, postgres::PgListener};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};
use tracing::{debug, info, warn};

use super::{PgTokenStore, error::PgStoreError, queries};
use crate::{
    store::{
        Applied, Heartbeat, Replica,
        sql::rows::{lease_millis, signed},
    },
    time::Timestamp,
    types::ReplicaId,
};

/// The channel that commits and rejections notify.
const CHANNEL: &str = "tokencache_events";

/// How often a silent listener is tried: a dead socket may look like silence (sqlx#4014).
const PROBE_EVERY: Duration = Duration::from_secs(5);

/// How long the answer to a probe may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long to wait before listening is tried again, where it was lost and where it does not work.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_WITHOUT: Duration = Duration::from_secs(300);

/// A row of `replicas`.
#[derive(FromRow)]
struct ReplicaColumns {
    id: String,
    version: String,
    started_at: i64,
    remaining: i64,
    applied: i64,
    missing: Vec<i64>,
}

impl From<ReplicaColumns> for Replica {
    fn from(row: ReplicaColumns) -> Self {
        let unsigned = |number: i64| u64::try_from(number).unwrap_or(0);
        Self {
            id: ReplicaId::new(&row.id),
            version: row.version,
            started_at: Timestamp::from_millis(row.started_at),
            remaining: Duration::from_millis(unsigned(row.remaining)),
            applied: Applied {
                through: unsigned(row.applied),
                missing: row.missing.into_iter().map(unsigned).collect(),
            },
        }
    }
}

pub(super) async fn heartbeat(store: &PgTokenStore, beat: &Heartbeat) -> Result<(), PgStoreError> {
    let missing: Vec<i64> = beat.applied.missing.iter().map(|id| signed(*id)).collect();
    let beat = sqlx::query(queries::HEARTBEAT)
        .persistent(store.statement_cache)
        .bind(beat.replica.as_str())
        .bind(beat.version.as_str())
        .bind(lease_millis(beat.ttl))
        .bind(signed(beat.applied.through))
        .bind(missing);
    store.execute(beat).await.map(drop)
}

pub(super) async fn replicas(store: &PgTokenStore) -> Result<Vec<Replica>, PgStoreError> {
    let mut tx = store.begin().await?;
    let rows = sqlx::query_as(queries::REPLICAS).persistent(store.statement_cache);
    let rows: Vec<ReplicaColumns> = rows.fetch_all(&mut *tx).await?;
    tx.commit().await?;
    Ok(rows.into_iter().map(Replica::from).collect())
}

pub(super) async fn event_horizon(store: &PgTokenStore, age: Duration) -> Result<u64, PgStoreError> {
    let mut tx = store.begin().await?;
    let horizon = sqlx::query_as(queries::EVENT_HORIZON).persistent(store.statement_cache).bind(lease_millis(age));
    let (id,): (i64,) = horizon.fetch_one(&mut *tx).await?;
    tx.commit().await?;
    Ok(u64::try_from(id).unwrap_or(0))
}

/// What became of listening.
enum End {
    /// The connection was lost after it had worked.
    Lost(sqlx::Error),
    /// No notification arrives: a pooler that gives each transaction another connection is in between.
    Deaf,
}

/// Listens for ever. Notifications only hasten the next look at the events, so that being deaf is said once and borne.
pub(super) async fn listen(store: &PgTokenStore, hint: &Notify) {
    let mut said = false;
    loop {
        match listen_until_lost(store, hint).await {
            End::Lost(error) => {
                debug!(%error, "the listener lost its connection");
                sleep(RETRY).await;
            }
            End::Deaf => {
                if !said {
                    warn!(
                        "the database's notifications do not arrive, as behind a pooler; its events are polled instead"
                    );
                    said = true;
                }
                sleep(RETRY_WITHOUT).await;
            }
        }
        // Whatever was notified in between is found by the next look.
        hint.notify_one();
    }
}

async fn listen_until_lost(store: &PgTokenStore, hint: &Notify) -> End {
    let mut listener = match connect(store).await {
        Ok(listener) => listener,
        Err(error) => return End::Lost(error),
    };
    let mut heard_any = false;
    loop {
        // What was committed before LISTEN was active is not notified.
        hint.notify_one();
        match timeout(PROBE_EVERY, listener.try_recv()).await {
            Ok(Ok(Some(_))) => heard_any = true,
            Ok(Ok(None)) => return End::Lost(sqlx::Error::PoolClosed),
            Ok(Err(error)) => return End::Lost(error),
            Err(_) => match probe(store, &mut listener).await {
                Ok(true) => {
                    if !heard_any {
                        info!("listening for the database's notifications");
                    }
                    heard_any = true;
                }
                Ok(false) if heard_any => return End::Lost(sqlx::Error::PoolTimedOut),
                Ok(false) => return End::Deaf,
                Err(error) => return End::Lost(error),
            },
        }
    }
}

async fn connect(store: &PgTokenStore) -> Result<PgListener, sqlx::Error> {
    let pool = sqlx::postgres::PgPoolOptions::new().max_connections(1).connect_lazy_with(store.connect.clone());
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.ignore_pool_close_event(true);
    listener.listen(CHANNEL).await?;
    Ok(listener)
}

/// Notifies the channel from another connection; whether the listener hears anything.
async fn probe(store: &PgTokenStore, listener: &mut PgListener) -> Result<bool, sqlx::Error> {
    sqlx::query("SELECT pg_notify($1, '')").persistent(false).bind(CHANNEL).execute(&store.pool).await?;
    match timeout(PROBE_TIMEOUT, listener.try_recv()).await {
        Ok(heard) => heard.map(|heard| heard.is_some()),
        Err(_) => Ok(false),
    }
}
