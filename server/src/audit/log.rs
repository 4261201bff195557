//! The log as the rest of the broker sees it: an event goes in, and is written when that returns.

use std::{fmt, io, path::PathBuf, sync::Arc, time::Duration};

use thiserror::Error as ThisError;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{
    AuditSettings, WhenDown,
    chain::Chain,
    event::AuditEvent,
    file::AuditFile,
    queue::{Batch, Queue, Queued},
    reader::AuditReader,
    refusals::Refusals,
    ring::Ring,
    store_sink::{StoreQueue, StoreSink},
    writer::{Output, Writer, Writers},
};
use crate::{
    error::{Error, ErrorKind, Result},
    metrics::AuditMetrics,
    store::SharedStore,
    time::{SharedClock, Timestamp},
    types::ReplicaId,
};

/// How often equal refusals are summed up.
const SWEEP: Duration = Duration::from_secs(1);

/// After what time a call that was refused for want of audit may be tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Why there is no audit log.
#[derive(Debug, ThisError)]
#[error("the audit log in {}: {error}", .path.display())]
pub struct AuditError {
    path: PathBuf,
    error: io::Error,
}

/// What a log is made of besides its settings.
#[derive(Debug)]
pub struct Makings {
    /// What time it is.
    pub clock: SharedClock,
    /// The name of the chain: random.
    pub chain: [u8; 16],
    /// Who this replica is.
    pub replica: ReplicaId,
    /// The store, for its table of events.
    pub store: SharedStore,
    /// What is counted.
    pub metrics: AuditMetrics,
}

/// The audit log of the process. Cheap to clone.
#[derive(Clone)]
pub struct AuditLog(Arc<Inner>);

struct Inner {
    when_down: WhenDown,
    timeout: Duration,
    clock: SharedClock,
    metrics: AuditMetrics,
    ring: Arc<Ring>,
    refusals: Refusals,
    has_file: bool,
    way: Way,
}

/// How events get to where they go.
enum Way {
    /// To memory alone, at once.
    Direct,
    /// By the writer.
    Queue(Arc<Queue>),
}

/// The ring of a log in memory alone, whose chain has begun with this line.
fn memory(chain: Chain, mut first: Vec<u8>, begun: Timestamp) -> Ring {
    // Its line break.
    first.pop();
    Ring::of_events(chain, (begun, first.into()))
}

/// Of an event that is on its way to the sinks.
#[derive(Debug)]
pub struct Receipt {
    batch: Arc<Batch>,
    queue: Arc<Queue>,
    timeout: Duration,
    stalled: bool,
}

impl Receipt {
    /// Waits until the event is written, and all before it. Cancel-safe: it is written in any case.
    ///
    /// # Errors
    ///
    /// `AuditDown`: that took too long.
    pub async fn written(self) -> Result<()> {
        self.queue.wake();
        timeout(self.timeout, self.batch.written())
            .await
            .map_err(|_| down("the audit log does not take events in time, and nothing is answered without"))
    }

    /// Whether the sinks have stalled, so that it may not be written in time.
    #[must_use]
    pub fn is_doubtful(&self) -> bool {
        self.stalled
    }

    /// Whether what this one waits for is written no sooner than what the other does.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.batch.number() >= other.batch.number()
    }
}

fn down(why: &'static str) -> Error {
    Error::new(ErrorKind::AuditDown, why).with_retry_after(RETRY)
}

impl fmt::Debug for AuditLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditLog").field("when_down", &self.0.when_down).finish_non_exhaustive()
    }
}

impl AuditLog {
    /// A log, what reads it, and its writers, which nothing is written without. Opens the file, and starts nothing.
    ///
    /// # Errors
    ///
    /// If the file cannot be opened.
    pub fn open(settings: &AuditSettings, makings: Makings) -> Result<(Self, AuditReader, Writers), AuditError> {
        let Makings { clock, chain, replica, store, metrics } = makings;
        let mut chain = Chain::new(chain, replica);
        let (mut outputs, mut after) = (vec![], None);
        if let Some(path) = &settings.file {
            let opened = AuditFile::open(path, settings.sync);
            let (file, last) = opened.map_err(|error| AuditError { path: path.clone(), error })?;
            outputs.push(Output::File(file));
            after = last;
        }
        if settings.stdout {
            let stdout = Output::stdout();
            outputs.push(stdout.map_err(|error| AuditError { path: "stdout".into(), error })?);
        }
        let mut first = Vec::new();
        let begun = clock.now();
        chain.start(&mut first, begun, after);
        let stored = settings.store.then(|| Arc::clone(&store));
        let ring;
        let (way, writers) = if settings.has_sink() {
            let store_queue = settings.store.then(|| Arc::new(StoreQueue::new(settings.when_down)));
            // The thread is one, with all that it writes to.
            let queue = Arc::new(Queue::new(1 + usize::from(settings.store)));
            let sink = store_queue.clone().map(|queue| StoreSink::new(queue, store, metrics.clone()));
            ring = Arc::new(Ring::of_lines());
            let writer = Writer {
                chain,
                outputs,
                store: store_queue,
                queue: Arc::clone(&queue),
                ring: Arc::clone(&ring),
                clock: Arc::clone(&clock),
                metrics: metrics.clone(),
                first: (first, begun),
            };
            (Way::Queue(queue), Writers::new(writer, sink))
        } else {
            ring = Arc::new(memory(chain, first, begun));
            (Way::Direct, Writers::none())
        };
        let reader = AuditReader::new(Arc::clone(&ring), stored, Arc::clone(&clock));
        let (when_down, timeout) = (settings.when_down, settings.timeout);
        let refusals = Refusals::default();
        let has_file = settings.file.is_some();
        let inner = Inner { when_down, timeout, clock, metrics, ring, refusals, has_file, way };
        Ok((Self(Arc::new(inner)), reader, writers))
    }

    /// A log that is in memory alone, for tests.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn in_memory(clock: SharedClock, replica: ReplicaId) -> Self {
        let mut chain = Chain::new([0; 16], replica);
        let (mut first, begun) = (Vec::new(), clock.now());
        chain.start(&mut first, begun, None);
        let ring = Arc::new(memory(chain, first, begun));
        Self(Arc::new(Inner {
            when_down: WhenDown::Closed,
            timeout: AuditSettings::TIMEOUT,
            clock,
            metrics: AuditMetrics::default(),
            ring,
            refusals: Refusals::default(),
            has_file: false,
            way: Way::Direct,
        }))
    }

    /// Reads what is in memory.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn in_memory_reader(&self) -> AuditReader {
        AuditReader::new(Arc::clone(&self.0.ring), None, Arc::clone(&self.0.clock))
    }

    /// Records an event before its answer leaves. Cancel-safe: the event is written in any case.
    ///
    /// # Errors
    ///
    /// `AuditDown` where the log is closed when it is down: a sink did not take the event in time, or there are too many
    /// that wait. It may still be written later; a call of which there is an event need not have been answered.
    pub async fn record(&self, event: AuditEvent) -> Result<()> {
        match self.put(event)? {
            Some(receipt) => receipt.written().await,
            None => Ok(()),
        }
    }

    /// Records an event whose answer is held back until the receipt says that the event is written; `None`: it may leave.
    /// The events of many calls are then written at once, and none of the calls waits by itself. Whoever holds answers back
    /// waits for a receipt that is [`Receipt::is_doubtful`] first, so that the caller can be told.
    ///
    /// # Errors
    ///
    /// `AuditDown`: there are too many events that wait.
    pub fn record_later(&self, event: AuditEvent) -> Result<Option<Receipt>> {
        self.put(event)
    }

    /// Records an event of this time as [`AuditLog::record_later`], where the sinks take what they get. `None`: nothing is
    /// recorded yet.
    #[must_use]
    pub fn record_if_flowing(&self, at: Timestamp, event: AuditEvent) -> Option<Option<Receipt>> {
        match &self.0.way {
            Way::Queue(queue) if self.0.when_down != WhenDown::Open => {
                let queued = queue.add_to_flowing(at, event)?;
                Some(Some(self.receipt(queue, queued)))
            }
            Way::Queue(_) => self.put(event).ok(),
            Way::Direct => {
                self.keep(at, event);
                Some(None)
            }
        }
    }

    /// Records an event that no answer waits for. If there is no room, it is lost, and counted.
    pub fn note(&self, event: AuditEvent) {
        let at = self.0.clock.now();
        match &self.0.way {
            Way::Direct => self.keep(at, event),
            Way::Queue(queue) if queue.add(at, event).is_some() => queue.wake(),
            Way::Queue(queue) => {
                self.0.metrics.lost.inc();
                queue.note_loss();
            }
        }
    }

    /// Records a refused call. Equal ones are summed up, so that a flood of them is not one of the log.
    pub fn refuse(&self, event: AuditEvent) {
        if let Some(first) = self.0.refusals.note(event) {
            self.note(first);
        }
    }

    /// Puts an event where it goes. What comes back is to be waited for.
    fn put(&self, event: AuditEvent) -> Result<Option<Receipt>> {
        if self.0.when_down == WhenDown::Open {
            self.note(event);
            return Ok(None);
        }
        let at = self.0.clock.now();
        match &self.0.way {
            Way::Direct => {
                self.keep(at, event);
                Ok(None)
            }
            Way::Queue(queue) => {
                let queued = queue
                    .add(at, event)
                    .ok_or_else(|| down("the audit log takes no more events, and nothing is answered without"))?;
                Ok(Some(self.receipt(queue, queued)))
            }
        }
    }

    fn receipt(&self, queue: &Arc<Queue>, queued: Queued) -> Receipt {
        let Queued { batch, stalled } = queued;
        Receipt { batch, queue: Arc::clone(queue), timeout: self.0.timeout, stalled }
    }

    fn keep(&self, at: Timestamp, event: AuditEvent) {
        self.0.metrics.written.inc();
        self.0.ring.add(at, event);
    }

    /// Has the file opened anew, because it was moved away.
    pub fn reopen(&self) {
        if let Way::Queue(queue) = &self.0.way
            && self.0.has_file
        {
            queue.reopen();
        }
    }

    /// Sums up refusals until it is told to stop. A worker.
    pub async fn sweep(self, stop: CancellationToken) {
        while timeout(SWEEP, stop.cancelled()).await.is_err() {
            self.sum_up();
            // For events whose answers nobody waits for any longer.
            if let Way::Queue(queue) = &self.0.way {
                queue.wake();
            }
        }
        self.sum_up();
    }

    fn sum_up(&self) {
        for event in self.0.refusals.sweep() {
            self.note(event);
        }
    }
}
