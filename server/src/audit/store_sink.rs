//! The way of events into the store: a task of its own behind a bounded queue, so that a file goes on being written while the
//! database thinks.

use std::{
    collections::VecDeque,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::sleep};
use tracing::{info, warn};

use super::{
    WhenDown,
    queue::{Batch, Queue, ROOM, rest},
};
use crate::{
    metrics::AuditMetrics,
    store::{AuditRow, SharedStore},
};

/// How many events one transaction stores at most.
const BATCH: usize = 1000;

/// The first and the longest pause between attempts.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// What the store is to take.
#[derive(Debug)]
pub(super) struct StoreQueue {
    state: Mutex<State>,
    filled: Notify,
    when_down: WhenDown,
}

#[derive(Debug, Default)]
struct State {
    batches: VecDeque<(Vec<AuditRow>, Arc<Batch>)>,
    rows: usize,
    closing: bool,
}

impl StoreQueue {
    pub(super) fn new(when_down: WhenDown) -> Self {
        Self { state: Mutex::default(), filled: Notify::new(), when_down }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a batch. If there is no room, a log that is closed when it is down waits for it; an open one drops the batch,
    /// and verification will tell of the gap in the store.
    pub(super) fn add(&self, rows: Vec<AuditRow>, batch: Arc<Batch>, queue: &Queue, metrics: &AuditMetrics) {
        loop {
            let mut state = self.lock();
            if state.rows < ROOM {
                state.rows += rows.len();
                state.batches.push_back((rows, batch));
                break;
            }
            drop(state);
            if self.when_down == WhenDown::Open || queue.is_given_up() {
                metrics.lost.inc_by(rows.len() as u64);
                metrics.failure("store");
                return;
            }
            rest();
        }
        self.filled.notify_one();
    }

    /// Takes nothing more.
    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.filled.notify_one();
    }

    /// Some of what waits. `None`: nothing more comes.
    async fn take(&self) -> Option<(Vec<AuditRow>, Vec<Arc<Batch>>)> {
        loop {
            {
                let mut state = self.lock();
                let (mut rows, mut batches) = (vec![], vec![]);
                while rows.len() < BATCH
                    && let Some((more, batch)) = state.batches.pop_front()
                {
                    rows.extend(more);
                    batches.push(batch);
                }
                state.rows -= rows.len();
                if !rows.is_empty() {
                    return Some((rows, batches));
                }
                if state.closing {
                    return None;
                }
            }
            self.filled.notified().await;
        }
    }
}

/// The task.
#[derive(Debug)]
pub(super) struct StoreSink {
    queue: Arc<StoreQueue>,
    store: SharedStore,
    metrics: AuditMetrics,
}

impl StoreSink {
    pub(super) fn new(queue: Arc<StoreQueue>, store: SharedStore, metrics: AuditMetrics) -> Self {
        Self { queue, store, metrics }
    }

    pub(super) fn queue(&self) -> Arc<StoreQueue> {
        Arc::clone(&self.queue)
    }

    /// Stores until nothing more comes.
    pub(super) async fn run(self) {
        while let Some((mut rows, batches)) = self.queue.take().await {
            while !rows.is_empty() {
                let rest = rows.split_off(rows.len().min(BATCH));
                self.append(mem::replace(&mut rows, rest)).await;
            }
            batches.iter().for_each(|batch| batch.taken());
        }
    }

    /// Stores however often that fails: to repeat it is harmless.
    async fn append(&self, rows: Vec<AuditRow>) {
        let (mut pause, mut failing) = (PAUSES.0, false);
        while let Err(error) = self.store.append_audit(rows.clone()).await {
            if !mem::replace(&mut failing, true) {
                warn!(%error, "the store does not take audit events; trying again");
            }
            self.metrics.failure("store");
            sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
        if failing {
            info!("the store takes audit events again");
        }
    }
}
