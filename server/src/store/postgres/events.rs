//! The feed of events: each is appended in the transaction of its change, and again if that took too long.
//!
//! An id is given when a transaction writes, and is visible when it has committed. Replicas that miss an id wait for it for
//! a bounded time; no transaction is surely shorter, for a commit may wait for a standby and a server may be stopped. So a
//! commit is timed by the database's clock, and one whose answer never came is looked at by whoever repeats it.

use std::time::Duration;

use sqlx::FromRow as _;
use tracing::warn;

use super::{PgTokenStore, error::PgStoreError, queries, query, query_as, transaction::PgTransaction};
use crate::{
    store::{
        EVENT_PATIENCE, Event, EventKind,
        sql::{
            self,
            rows::{EventColumns, all, signed},
        },
    },
    types::{Generation, KeyHash},
};

/// How old an event may be when it becomes visible: less than replicas wait for it, for clocks differ in their pace.
const LATE: Duration = Duration::from_secs(EVENT_PATIENCE.as_secs() / 3 * 2);

/// An event whose transaction has not committed yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Appended {
    pub(super) id: i64,
    at: i64,
    kind: EventKind,
    key: KeyHash,
    generation: Generation,
}

impl PgTokenStore {
    pub(super) async fn try_events(&self, after: u64, limit: u32) -> Result<Vec<Event>, PgStoreError> {
        let rows = self.at_once(&queries::events(signed(after), limit)).await?;
        let rows: Result<Vec<EventColumns>, _> = rows.iter().map(EventColumns::from_row).collect();
        Ok(all(rows?)?)
    }

    /// Appends the event of a change, and notes a rejection's in its row.
    pub(super) async fn append_event(
        &self,
        tx: &mut PgTransaction,
        kind: EventKind,
        key: KeyHash,
        generation: Generation,
    ) -> Result<Appended, PgStoreError> {
        let hash = &key.as_bytes()[..];
        let event = query_as!(self, queries::APPEND_EVENT, kind.as_text(), hash, signed(generation.get()));
        let (id, at, _): (i64, i64, Option<String>) = event.fetch_one(&mut **tx).await?;
        if kind == EventKind::Rejected {
            query!(self, sql::SET_REJECT_EVENT, hash, id).execute(&mut **tx).await?;
        }
        Ok(Appended { id, at, kind, key, generation })
    }

    /// Commits the transaction of an event, and appends the event again until one was visible in time. Returns its id.
    pub(super) async fn commit_event(&self, tx: PgTransaction, mut event: Appended) -> Result<i64, PgStoreError> {
        let mut done_at = tx.commit_timed().await?;
        while done_at.saturating_sub(event.at) >= millis(LATE) {
            warn!(event = event.id, took_ms = done_at - event.at, "an event was committed late and is appended again");
            let mut tx = self.begin().await?;
            event = self.append_event(&mut tx, event.kind, event.key, event.generation).await?;
            done_at = tx.commit_timed().await?;
        }
        Ok(event.id)
    }

    /// Whether an event is surely known to every replica, or is yet to come to it.
    pub(super) async fn is_young(&self, tx: &mut PgTransaction, event: i64) -> Result<bool, PgStoreError> {
        let found = query!(self, queries::IS_YOUNG, event, millis(LATE)).fetch_optional(&mut **tx).await?;
        Ok(found.is_some())
    }

    /// The same of the event of a token's commit.
    pub(super) async fn commit_is_young(
        &self,
        tx: &mut PgTransaction,
        key: KeyHash,
        generation: Generation,
    ) -> Result<bool, PgStoreError> {
        let (kind, hash) = (EventKind::Committed.as_text(), &key.as_bytes()[..]);
        let found = query!(self, queries::COMMIT_IS_YOUNG, kind, hash, signed(generation.get()), millis(LATE));
        Ok(found.fetch_optional(&mut **tx).await?.is_some())
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
