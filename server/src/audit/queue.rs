//! What waits to be written: bounded, taken as a whole, and released as a whole.
//!
//! Whoever adds an event gets the batch that it belongs to. The writer takes all that is there as one batch, and a new one
//! begins: so a busy log wakes its callers together, and costs none of them an allocation of its own.

use std::{
    collections::VecDeque,
    mem,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{sync::SetOnce, time::Instant};

use super::event::AuditEvent;
use crate::time::Timestamp;

/// How many events may wait.
pub(super) const ROOM: usize = 8192;

/// How long a batch may be on its way before the sinks are said to stall. They take far less as a rule.
const STALLED: Duration = Duration::from_millis(50);

/// Events that are written together.
#[derive(Debug)]
pub(super) struct Batch {
    /// Which one; a later batch is written later.
    number: u64,
    sinks: AtomicUsize,
    written: SetOnce<()>,
}

impl Batch {
    fn new(number: u64, sinks: usize) -> Arc<Self> {
        Arc::new(Self { number, sinks: AtomicUsize::new(sinks), written: SetOnce::new() })
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    fn is_written(&self) -> bool {
        self.written.initialized()
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

/// What became of an event.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) batch: Arc<Batch>,
    /// Whether the sinks have stalled: the batch may take long.
    pub(super) stalled: bool,
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
    /// The batches that were taken and when, the oldest first; those at the front may be written by now, or dropped by a sink
    /// that had no room for them, and then nobody has them any more.
    taken: VecDeque<(Instant, Weak<Batch>)>,
    lost: u64,
    /// Whether nothing was taken yet: the beginning of the chain waits for no event.
    fresh: bool,
    asleep: bool,
    reopen: bool,
    closing: bool,
}

impl State {
    fn add(&mut self, at: Timestamp, event: AuditEvent, stalled: bool) -> Option<Queued> {
        if self.events.len() >= ROOM || self.closing {
            return None;
        }
        self.events.push((at, event));
        Some(Queued { batch: Arc::clone(&self.batch), stalled })
    }

    /// Whether a batch that was taken is not written yet though it has had time enough.
    fn is_stalled(&mut self) -> bool {
        self.forget_what_is_over();
        self.taken.front().is_some_and(|(since, _)| since.elapsed() > STALLED)
    }

    fn forget_what_is_over(&mut self) {
        let is_over = |(_, batch): &mut (Instant, Weak<Batch>)| batch.upgrade().is_none_or(|batch| batch.is_written());
        while self.taken.pop_front_if(is_over).is_some() {}
    }
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
            batch: Batch::new(0, sinks),
            taken: VecDeque::new(),
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

    /// Adds an event; the writer may sleep on until [`Queue::wake`]. `None`: there is no room, or the log is closed.
    pub(super) fn add(&self, at: Timestamp, event: AuditEvent) -> Option<Queued> {
        let mut state = self.lock();
        let stalled = state.is_stalled();
        state.add(at, event, stalled)
    }

    /// The same, unless the sinks have stalled.
    pub(super) fn add_to_flowing(&self, at: Timestamp, event: AuditEvent) -> Option<Queued> {
        let mut state = self.lock();
        if state.is_stalled() { None } else { state.add(at, event, false) }
    }

    /// Has the writer see what was added.
    pub(super) fn wake(&self) {
        self.rouse(self.lock());
    }

    /// Notes that an event was lost for want of room.
    pub(super) fn note_loss(&self) {
        let mut state = self.lock();
        state.lost += 1;
        self.rouse(state);
    }

    /// Has the file opened anew before anything else is written.
    pub(super) fn reopen(&self) {
        let mut state = self.lock();
        state.reopen = true;
        self.rouse(state);
    }

    /// Takes nothing more; what is there is the last.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closing = true;
        self.rouse(state);
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
    fn rouse(&self, mut state: MutexGuard<'_, State>) {
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
            drop(self.filled.wait(state).unwrap_or_else(PoisonError::into_inner));
            // Where there is one processor for all, whoever else is about to add events does it first.
            std::thread::yield_now();
            state = self.lock();
        }
        (state.asleep, state.fresh) = (false, false);
        let next = Batch::new(state.batch.number + 1, self.sinks);
        let batch = mem::replace(&mut state.batch, next);
        state.forget_what_is_over();
        state.taken.push_back((Instant::now(), Arc::downgrade(&batch)));
        Work {
            events: mem::replace(&mut state.events, spare),
            batch,
            lost: mem::take(&mut state.lost),
            last: state.closing,
        }
    }
}

/// Rests between two attempts at a sink that fails.
pub(super) fn rest() {
    std::thread::sleep(Duration::from_millis(20));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Kind;

    #[test]
    fn nothing_is_kept_of_a_batch_that_is_written_or_that_a_sink_dropped() {
        let queue = Queue::new(1);
        let add = || queue.add(Timestamp::from_millis(0), AuditEvent::new(Kind::TokenIssued)).expect("there is room");
        let mut kept = vec![];
        for round in 0..100 {
            drop(add());
            let work = queue.take(vec![]);
            match round % 2 {
                0 => work.batch.taken(),
                _ => drop(work.batch),
            }
            kept.push(queue.lock().taken.len());
        }
        assert!(kept.iter().all(|kept| *kept <= 1), "{kept:?}");
        drop(add());
        let on_its_way = queue.take(vec![]);
        assert!(!add().stalled, "it has not had time enough");
        assert_eq!(queue.lock().taken.len(), 1);
        drop(on_its_way);
    }
}
