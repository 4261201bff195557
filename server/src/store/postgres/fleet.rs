//! What replicas tell one another through the database.

use std::{convert::Infallible, time::Duration};

use sqlx::{
    Connection as _, FromRow, Row as _,
    postgres::{PgListener, PgPoolOptions},
    raw_sql,
};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};
use tracing::{debug, info, warn};

use super::{PgTokenStore, error::PgStoreError, queries, route::Route};
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

/// How long a notification may take to arrive.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long one step towards listening may take, the arrival of a notification included.
const STEP_LIMIT: Duration = Duration::from_secs(6);

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
        .bind(missing)
        .bind(store.schema.newest());
    store.execute(beat).await.map(drop)
}

pub(super) async fn applied(
    store: &PgTokenStore,
    replica: &ReplicaId,
    applied: &Applied,
) -> Result<bool, PgStoreError> {
    Ok(!store.at_once(&queries::applied(replica, applied, store.schema.newest())).await?.is_empty())
}

pub(super) async fn replicas(store: &PgTokenStore) -> Result<Vec<Replica>, PgStoreError> {
    let rows = store.at_once(queries::REPLICAS).await?;
    let rows: Result<Vec<_>, _> = rows.iter().map(ReplicaColumns::from_row).collect();
    Ok(rows?.into_iter().map(Replica::from).collect())
}

pub(super) async fn event_horizon(store: &PgTokenStore, age: Duration) -> Result<u64, PgStoreError> {
    let mut tx = store.begin_reading().await?;
    let horizon = sqlx::query_as(queries::EVENT_HORIZON).persistent(store.statement_cache).bind(lease_millis(age));
    let (id,): (i64,) = horizon.fetch_one(&mut *tx).await?;
    tx.commit().await?;
    Ok(u64::try_from(id).unwrap_or(0))
}

/// What became of listening.
enum End {
    /// The connection was lost, or cannot be made.
    Lost(PgStoreError),
    /// No notification arrives: a pooler that gives each transaction another connection is in between.
    Deaf,
}

/// Listens for ever. Notifications only hasten the next look at the events, so that being deaf is said once and borne.
pub(super) async fn listen(store: &PgTokenStore, hint: &Notify) {
    let mut said = false;
    loop {
        match listen_until_lost(store, hint).await {
            Err(End::Lost(error)) => {
                debug!(%error, "the listener has no connection");
                sleep(RETRY).await;
            }
            Err(End::Deaf) => {
                if !said {
                    warn!(
                        "the database's notifications do not arrive, as behind a pooler; its events are polled instead"
                    );
                    said = true;
                }
                sleep(RETRY_WITHOUT).await;
            }
            Ok(never) => match never {},
        }
        // Whatever was notified in between is found by the next look.
        hint.notify_one();
    }
}

async fn listen_until_lost(store: &PgTokenStore, hint: &Notify) -> Result<Infallible, End> {
    let mut listener = limited(connect(&store.route)).await?;
    // What was committed before LISTEN was active is not notified.
    hint.notify_one();
    if !limited(hears(&store.route, &mut listener)).await? {
        return Err(End::Deaf);
    }
    info!("listening for the database's notifications");
    loop {
        hint.notify_one();
        match timeout(PROBE_EVERY, listener.try_recv()).await {
            Ok(Ok(Some(_))) => {}
            Ok(Ok(None)) => return Err(End::Lost(PgStoreError::Closed)),
            Ok(Err(error)) => return Err(End::Lost(error.into())),
            // It heard before, so that it is enough to know that its connection leads somewhere.
            Err(_) => limited(async { Ok(raw_sql(queries::ANY).execute(&mut listener).await.map(drop)?) }).await?,
        }
    }
}

/// A step that a dead connection must not hold up.
async fn limited<T>(step: impl Future<Output = Result<T, PgStoreError>>) -> Result<T, End> {
    match timeout(STEP_LIMIT, step).await {
        Ok(done) => done.map_err(End::Lost),
        Err(_) => Err(End::Lost(PgStoreError::Silent)),
    }
}

async fn connect(route: &Route) -> Result<PgListener, PgStoreError> {
    let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with(route.options().await?);
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.ignore_pool_close_event(true);
    listener.eager_reconnect(false);
    listener.listen(CHANNEL).await?;
    Ok(listener)
}

/// Whether a notification from another connection arrives: from its own it would even behind a pooler. Which one it is,
/// its word tells, for a pooled connection may still bring those of an earlier listener. It is sent in one round trip: a
/// pooler may give the second one, outside a transaction, to a connection that knows nothing of the first.
async fn hears(route: &Route, listener: &mut PgListener) -> Result<bool, PgStoreError> {
    let mut other = route.connect().await?;
    let word: String = raw_sql(queries::PROBE).fetch_one(&mut other).await?.try_get("word")?;
    other.close().await?;
    let heard = async {
        while let Some(notification) = listener.try_recv().await? {
            if notification.payload() == word {
                return Ok(true);
            }
        }
        Err(PgStoreError::Closed)
    };
    timeout(PROBE_TIMEOUT, heard).await.unwrap_or(Ok(false))
}
