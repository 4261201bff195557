//! The last events of this replica, in memory: what operators read where no store keeps them.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use crate::store::{AuditFilter, AuditRow};

/// How many are kept.
const KEPT: usize = 10_000;

/// The ring.
#[derive(Debug)]
pub(super) struct Ring {
    rows: Mutex<VecDeque<Arc<AuditRow>>>,
    last: watch::Sender<u64>,
}

impl Default for Ring {
    fn default() -> Self {
        Self { rows: Mutex::default(), last: watch::Sender::new(0) }
    }
}

impl Ring {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<AuditRow>>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds events, and forgets the oldest.
    pub(super) fn add(&self, added: impl IntoIterator<Item = AuditRow>) {
        let mut rows = self.lock();
        let mut last = rows.back().map_or(0, |row| row.id);
        for row in added {
            last += 1;
            if rows.len() == KEPT {
                rows.pop_front();
            }
            rows.push_back(Arc::new(AuditRow { id: last, ..row }));
        }
        drop(rows);
        self.last.send_replace(last);
    }

    /// The events after `after` that are wanted, oldest first, at most `limit`.
    pub(super) fn page(&self, after: u64, filter: &AuditFilter, limit: usize) -> Vec<AuditRow> {
        let rows = self.lock();
        let later = rows.iter().skip(rows.partition_point(|row| row.id <= after));
        later.filter(|row| filter.admits(row)).take(limit).map(|row| (**row).clone()).collect()
    }

    /// The place of the newest event, as it grows.
    pub(super) fn last(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }
}
