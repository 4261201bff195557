//! The last attempts for each key on this replica: what an operator is shown who asks why.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::{
    error::Error,
    time::Timestamp,
    types::{KeyHash, ReplicaId},
};

/// How many attempts are kept for a key.
const KEPT: usize = 8;

/// For how many keys; the least used are forgotten.
const MAX_KEYS: u64 = 100_000;

/// One attempt.
#[derive(Clone, Debug)]
pub struct AttemptRecord {
    /// When it ended.
    pub at: Timestamp,
    /// How long it took.
    pub duration: Duration,
    /// Who made it.
    pub replica: ReplicaId,
    /// What it failed with. `None`: it brought a token.
    pub error: Option<Error>,
}

type Records = Arc<Mutex<VecDeque<AttemptRecord>>>;

/// The last attempts of many keys. Touched when the upstream is asked, never on a hit.
#[derive(Debug)]
pub struct History(moka::sync::Cache<KeyHash, Records>);

impl Default for History {
    fn default() -> Self {
        Self(moka::sync::Cache::new(MAX_KEYS))
    }
}

impl History {
    /// Adds an attempt, and forgets the oldest beyond eight.
    pub fn add(&self, key: KeyHash, record: AttemptRecord) {
        let records = self.0.get_with(key, Records::default);
        let mut records = records.lock().unwrap_or_else(PoisonError::into_inner);
        records.push_front(record);
        records.truncate(KEPT);
    }

    /// The attempts of a key, newest first.
    #[must_use]
    pub fn of(&self, key: &KeyHash) -> Vec<AttemptRecord> {
        let records = self.0.get(key);
        records.map_or_else(Vec::new, |r| r.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect())
    }
}
