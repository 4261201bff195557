//! Audit events in memory.

use std::collections::{BTreeMap, HashSet};

use crate::{
    store::{AuditFilter, AuditRow},
    time::Timestamp,
};

/// The table.
#[derive(Debug, Default)]
pub(super) struct AuditTable {
    rows: BTreeMap<u64, AuditRow>,
    known: HashSet<(String, u64)>,
    last: u64,
}

impl AuditTable {
    pub(super) fn append(&mut self, rows: Vec<AuditRow>) {
        for row in rows {
            if self.known.insert((row.chain.clone(), row.sequence)) {
                self.last += 1;
                self.rows.insert(self.last, AuditRow { id: self.last, ..row });
            }
        }
    }

    pub(super) fn page(&self, after: u64, filter: &AuditFilter, limit: usize) -> Vec<AuditRow> {
        let later = self.rows.range(after.saturating_add(1)..).map(|(_, row)| row);
        later.filter(|row| filter.admits(row)).take(limit).cloned().collect()
    }

    pub(super) fn prune(&mut self, older_than: Timestamp) -> u64 {
        let before = self.rows.len();
        let known = &mut self.known;
        self.rows.retain(|_, row| {
            let stays = row.at >= older_than;
            if !stays {
                known.remove(&(row.chain.clone(), row.sequence));
            }
            stays
        });
        (before - self.rows.len()) as u64
    }
}
