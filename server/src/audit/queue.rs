//! What waits to be written: bounded, taken as a whole, and released as a whole.
//!
//! Whoever adds an event gets the batch that it belongs to. The writer takes all that is there as one batch, and a new one
//! begins: so a busy log wakes its callers together, and costs none of them an allocation of its own.

use std::{
    mem,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::SetOnce;

use super::event::AuditEvent;
use crate::time::Timestamp;

/// How many events may wait.
pub(super) const ROOM: usize = 8192;

/// Events that are written together.
#[derive(Debug)]
pub(super) struct Batch {
    sinks: AtomicUsize,
    written: SetOnce<()>,
}

impl Batch {
    fn new(sinks: usize) -> Arc<Self> {
        Arc::new(Self { sinks: AtomicUsize::new(sinks), written: SetOnce::new() })
    }

    /// One of the sinks has taken it.
    pub(super) fn taken(&self) {
        if self.sinks.fetch_sub(1, Ordering::AcqRel) == 1 {
            // It is set by the last one alone.
            let _ = self.written.set(());
        }
    }

    /// Waits until all sinks have taken it. Cancel-safe.
    pub(super) async fn written(&self) {
        self.written.wait().await;
    }
}

/// What the writer is to do.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) events: Vec<(Timestamp, AuditEvent)>,
    pub(super) batch: Arc<Batch>,
    /// How many events found no room.
    pub(super) lost: u64,
    /// Whether this is the last of it.
    pub(super) last: bool,
}

#[derive(Debug)]
struct State {
    events: Vec<(Timestamp, AuditEvent)>,
    batch: Arc<Batch>,
    lost: u64,
    /// Whether nothing was taken yet: the beginning of the chain waits for no event.
    fresh: bool,
    asleep: bool,
    reopen: bool,
    closing: bool,
}

/// The queue.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    filled: Condvar,
    sinks: usize,
    /// Nothing is tried any longer.
    given_up: AtomicBool,
}

impl Queue {
    /// A batch is written once so many sinks have taken it.
    pub(super) fn new(sinks: usize) -> Self {
        let state = State {
            events: Vec::new(),
            batch: Batch::new(sinks),
            lost: 0,
            fresh: true,
            asleep: false,
            reopen: false,
            closing: false,
        };
        Self { state: Mutex::new(state), filled: Condvar::new(), sinks, given_up: AtomicBool::new(false) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an event. `None`: there is no room, or the log is closed.
    pub(super) fn add(&self, at: Timestamp, event: AuditEvent) -> Option<Arc<Batch>> {
        let mut state = self.lock();
        if state.events.len() >= ROOM || state.closing {
            return None;
        }
        state.events.push((at, event));
        let batch = Arc::clone(&state.batch);
        self.wake(state);
        Some(batch)
    }

    /// Notes that an event was lost for want of room.
    pub(super) fn note_loss(&self) {
        let mut state = self.lock();
        state.lost += 1;
        self.wake(state);
    }

    /// Has the file opened anew before anything else is written.
    pub(super) fn reopen(&self) {
        let mut state = self.lock();
        state.reopen = true;
        self.wake(state);
    }

    /// Takes nothing more; what is there is the last.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closing = true;
        self.wake(state);
    }

    /// Has the writer leave what it cannot write.
    pub(super) fn give_up(&self) {
        self.given_up.store(true, Ordering::Release);
    }

    pub(super) fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Acquire)
    }

    /// Whether the file is to be opened anew; asked once for each time.
    pub(super) fn is_to_reopen(&self) -> bool {
        mem::take(&mut self.lock().reopen)
    }

    /// A wake-up costs more than everything else here, and a writer that writes needs none.
    fn wake(&self, mut state: MutexGuard<'_, State>) {
        if mem::take(&mut state.asleep) {
            drop(state);
            self.filled.notify_one();
        }
    }

    /// All that waits, as soon as there is anything to do. `spare` is used for what comes next.
    pub(super) fn take(&self, spare: Vec<(Timestamp, AuditEvent)>) -> Work {
        let mut state = self.lock();
        while state.events.is_empty() && state.lost == 0 && !state.fresh && !state.reopen && !state.closing {
            state.asleep = true;
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        (state.asleep, state.fresh) = (false, false);
        Work {
            events: mem::replace(&mut state.events, spare),
            batch: mem::replace(&mut state.batch, Batch::new(self.sinks)),
            lost: mem::take(&mut state.lost),
            last: state.closing,
        }
    }
}

/// Rests between two attempts at a sink that fails.
pub(super) fn rest() {
    std::thread::sleep(Duration::from_millis(20));
}
