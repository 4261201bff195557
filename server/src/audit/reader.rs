//! What operators read: the store's events, of all replicas; without them, the last ones of this replica.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures::{Stream, stream};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::ring::Ring;
use crate::{
    error::Result,
    store::{AuditFilter, AuditRow, SharedStore},
    time::SharedClock,
};

/// How often the store is looked at for new events.
const POLL: Duration = Duration::from_secs(1);

/// How many events are looked at at once.
const PAGE: u32 = 500;

/// Ids become visible out of order, for their transactions do. After this time since a later one was seen no earlier one
/// appears any more: the transactions of the store are shorter.
const PATIENCE: Duration = Duration::from_secs(15);

/// An event that is older than this by its own time has surely no neighbour on its way; clocks may differ by this much.
const OLD: Duration = Duration::from_secs(120);

/// Where events are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The store: all replicas.
    Store,
    /// The memory of this replica: the last 10,000 of its own.
    Memory,
}

/// Reads events. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AuditReader {
    ring: Arc<Ring>,
    store: Option<SharedStore>,
    clock: SharedClock,
}

impl AuditReader {
    pub(super) fn new(ring: Arc<Ring>, store: Option<SharedStore>, clock: SharedClock) -> Self {
        Self { ring, store, clock }
    }

    /// Where it reads.
    #[must_use]
    pub fn source(&self) -> Source {
        if self.store.is_some() { Source::Store } else { Source::Memory }
    }

    /// Events after the place `after` in the order of their arrival, at most `limit`.
    ///
    /// # Errors
    ///
    /// `StoreDown`.
    pub async fn page(&self, after: u64, filter: &AuditFilter, limit: u32) -> Result<Vec<AuditRow>> {
        match &self.store {
            Some(store) => store.audit_events(after, filter.clone(), limit).await,
            None => Ok(self.ring.page(after, filter, limit as usize)),
        }
    }

    /// Events as they come: those from `filter.from` on. Ends only with an error of the store.
    pub fn tail(&self, filter: AuditFilter) -> impl Stream<Item = Result<AuditRow>> + Send + use<> {
        let tail = Tail {
            reader: self.clone(),
            added: self.ring.added(),
            filter,
            low: 0,
            seen: HashSet::new(),
            unsettled: VecDeque::new(),
            ready: VecDeque::new(),
            over: false,
        };
        stream::unfold(tail, |mut tail| async move { Some((tail.next().await?, tail)) })
    }
}

/// One reader that follows.
struct Tail {
    reader: AuditReader,
    added: watch::Receiver<()>,
    filter: AuditFilter,
    /// All up to this place were seen, and none appears there any more.
    low: u64,
    /// The places beyond it that were seen, and when.
    seen: HashSet<u64>,
    unsettled: VecDeque<(u64, Instant)>,
    ready: VecDeque<AuditRow>,
    over: bool,
}

impl Tail {
    async fn next(&mut self) -> Option<Result<AuditRow>> {
        loop {
            if let Some(row) = self.ready.pop_front() {
                return Some(Ok(row));
            }
            if self.over {
                return None;
            }
            match self.look().await {
                Ok(true) => {}
                Ok(false) => self.wait().await,
                Err(error) => {
                    self.over = true;
                    return Some(Err(error));
                }
            }
        }
    }

    /// Whether there was anything new.
    async fn look(&mut self) -> Result<bool> {
        self.added.mark_unchanged();
        let mut after = self.low;
        loop {
            let page = self.reader.page(after, &self.filter, PAGE).await?;
            let is_last = page.len() < PAGE as usize;
            let Some(last) = page.last() else { break };
            after = last.id;
            page.into_iter().for_each(|row| self.take(row));
            if is_last || !self.ready.is_empty() {
                break;
            }
        }
        while let Some((id, seen)) = self.unsettled.front().copied()
            && seen.elapsed() >= PATIENCE
        {
            self.unsettled.pop_front();
            self.settle(id);
        }
        Ok(!self.ready.is_empty())
    }

    fn take(&mut self, row: AuditRow) {
        let is_settled = self.reader.store.is_none() || row.at.after(OLD) < self.reader.clock.now();
        let id = row.id;
        if self.seen.insert(id) {
            self.unsettled.push_back((id, Instant::now()));
            self.ready.push_back(row);
        }
        if is_settled {
            self.settle(id);
        }
    }

    fn settle(&mut self, id: u64) {
        self.low = self.low.max(id);
        let low = self.low;
        while let Some((id, _)) = self.unsettled.front().copied()
            && id <= low
        {
            self.unsettled.pop_front();
            self.seen.remove(&id);
        }
    }

    async fn wait(&mut self) {
        // The sender lives as long as the ring, which this reader holds.
        if self.reader.store.is_some() || self.added.changed().await.is_err() {
            sleep(POLL).await;
        }
    }
}
