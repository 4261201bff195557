//! Who writes: a thread of the operating system, so that a file or a pipe that stalls never holds up the runtime.

use std::{
    fs::File,
    io::{self, Write as _},
    os::fd::AsFd as _,
    sync::Arc,
    thread,
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    runtime::Handle,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{
    chain::Chain,
    event::{AuditEvent, Kind},
    file::AuditFile,
    queue::{Queue, Work, rest},
    ring::{Ring, Written},
    store_sink::{StoreQueue, StoreSink},
};
use crate::{
    metrics::AuditMetrics,
    store::AuditRow,
    time::{SharedClock, Timestamp},
};

/// Where the thread writes to.
#[derive(Debug)]
pub(super) enum Output {
    File(AuditFile),
    Stdout(File),
}

impl Output {
    const fn name(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Stdout(_) => "stdout",
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.write(bytes),
            Self::Stdout(file) => file.write(bytes),
        }
    }

    fn settle(&mut self) -> io::Result<()> {
        match self {
            Self::File(file) => file.settle(),
            Self::Stdout(_) => Ok(()),
        }
    }

    /// Standard output, past the buffer of the standard library, which would keep what the kernel has not.
    pub(super) fn stdout() -> io::Result<Self> {
        Ok(Self::Stdout(File::from(io::stdout().as_fd().try_clone_to_owned()?)))
    }
}

/// The thread's work.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) chain: Chain,
    pub(super) outputs: Vec<Output>,
    pub(super) store: Option<Arc<StoreQueue>>,
    pub(super) queue: Arc<Queue>,
    pub(super) ring: Arc<Ring>,
    pub(super) clock: SharedClock,
    pub(super) metrics: AuditMetrics,
    /// The event with which the chain begins, not yet written.
    pub(super) first: (Vec<u8>, Timestamp),
}

impl Writer {
    /// Writes until the queue is closed and empty. Callers are told in a task of `runtime`: woken from here, each would push
    /// this thread from its processor before the next one is woken.
    fn run(mut self, runtime: &Handle) {
        let (bytes, begun) = (std::mem::take(&mut self.first.0), self.first.1);
        let mut sheet = Sheet { bytes, lines: vec![], rows: vec![] };
        sheet.close(&self.chain, &AuditEvent::new(Kind::Started), begun, self.store.is_some());
        let mut spare = Vec::new();
        loop {
            let Work { mut events, batch, lost, last } = self.queue.take(spare);
            let begun = Instant::now();
            if lost > 0 {
                let event = AuditEvent { count: Some(lost), ..AuditEvent::new(Kind::Lost) };
                self.add(&mut sheet, &event, self.clock.now());
            }
            for (at, event) in &events {
                self.add(&mut sheet, event, *at);
            }
            if last {
                self.add(&mut sheet, &AuditEvent::new(Kind::Stopped), self.clock.now());
            }
            for output in &mut self.outputs {
                if !write(output, &sheet.bytes, &self.queue, &self.metrics) {
                    return;
                }
            }
            if let Some(store) = &self.store {
                store.add(std::mem::take(&mut sheet.rows), Arc::clone(&batch), &self.queue, &self.metrics);
            }
            let lines = sheet.tear_off();
            self.metrics.written.inc_by(lines.len() as u64);
            self.ring.add_lines(lines);
            runtime.spawn(async move { batch.taken() });
            self.metrics.write_duration.observe(begun.elapsed().as_secs_f64());
            events.clear();
            spare = events;
            if last {
                return;
            }
        }
    }

    fn add(&mut self, sheet: &mut Sheet, event: &AuditEvent, at: Timestamp) {
        self.chain.append(&mut sheet.bytes, event, at);
        sheet.close(&self.chain, event, at, self.store.is_some());
    }
}

/// What is written at once.
#[derive(Debug)]
struct Sheet {
    bytes: Vec<u8>,
    /// The time of each line, and where it ends, its line break included.
    lines: Vec<(Timestamp, usize)>,
    /// The same for the store.
    rows: Vec<AuditRow>,
}

impl Sheet {
    /// Ends a line, which is that of this event.
    fn close(&mut self, chain: &Chain, event: &AuditEvent, at: Timestamp, is_stored: bool) {
        let begin = self.lines.last().map_or(0, |(_, end)| *end);
        self.lines.push((at, self.bytes.len()));
        if is_stored {
            self.rows.push(chain.row(event, at, &self.bytes[begin..]));
        }
    }

    /// All lines without their line breaks; the next sheet is as large.
    fn tear_off(&mut self) -> Vec<Written> {
        let next = Vec::with_capacity(self.bytes.len());
        let bytes = Bytes::from(std::mem::replace(&mut self.bytes, next));
        let mut begin = 0;
        let lines = self.lines.drain(..).map(|(at, end)| {
            let line = bytes.slice(begin..end - 1);
            begin = end;
            (at, line)
        });
        lines.collect()
    }
}

/// Writes all of it, however often the sink fails meanwhile. False: it was given up.
fn write(output: &mut Output, bytes: &[u8], queue: &Queue, metrics: &AuditMetrics) -> bool {
    let (mut done, mut failing) = (0, false);
    loop {
        if let Output::File(file) = output
            && queue.is_to_reopen()
        {
            // A line that was begun in the old file is written whole in the new one.
            done = bytes[..done].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            match file.reopen() {
                Ok(()) => info!("the audit file was opened anew"),
                Err(error) => {
                    warn!(%error, "the audit file cannot be opened anew; trying again");
                    metrics.failure("file");
                    if !queue.is_given_up() {
                        queue.reopen();
                        rest();
                        continue;
                    }
                }
            }
        }
        let progress = if done < bytes.len() { output.write(&bytes[done..]) } else { output.settle().map(|()| 0) };
        match progress {
            Ok(_) if done == bytes.len() => {
                if failing {
                    info!(sink = output.name(), "the audit log is written again");
                }
                return true;
            }
            Ok(written) if written > 0 => done += written,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(_) | Err(_) => {
                let error = progress.err();
                if !std::mem::replace(&mut failing, true) {
                    let error = error.map(|error| error.to_string());
                    warn!(sink = output.name(), error, "the audit log cannot be written; trying again");
                }
                metrics.failure(output.name());
                if queue.is_given_up() {
                    error!(sink = output.name(), "the audit log is left with events that were not written");
                    return false;
                }
                rest();
            }
        }
    }
}

/// What an [`super::AuditLog`] is written by, not yet started.
#[derive(Debug, Default)]
pub struct Writers(Option<(Writer, Option<StoreSink>)>);

impl Writers {
    pub(super) fn new(writer: Writer, store: Option<StoreSink>) -> Self {
        Self(Some((writer, store)))
    }

    /// Of a log that is in memory alone.
    pub(super) fn none() -> Self {
        Self(None)
    }

    /// Starts writing. To be called within a runtime.
    ///
    /// # Errors
    ///
    /// If the operating system gives no thread.
    pub fn start(self) -> io::Result<Running> {
        let Some((writer, store)) = self.0 else { return Ok(Running(None)) };
        let queue = Arc::clone(&writer.queue);
        let (written, stored) = (CancellationToken::new(), CancellationToken::new());
        let (ended, runtime) = (written.clone().drop_guard(), Handle::current());
        thread::Builder::new().name("audit".into()).spawn(move || {
            // Dropped even if it panics.
            let _ended = ended;
            writer.run(&runtime);
        })?;
        let store = store.map(|sink| {
            let (queue, ended) = (sink.queue(), stored.clone().drop_guard());
            tokio::spawn(async move {
                let _ended = ended;
                sink.run().await;
            });
            (queue, stored)
        });
        Ok(Running(Some(Parts { queue, written, store })))
    }
}

#[derive(Debug)]
struct Parts {
    queue: Arc<Queue>,
    /// Cancelled when the thread has ended.
    written: CancellationToken,
    /// Likewise, when the task has.
    store: Option<(Arc<StoreQueue>, CancellationToken)>,
}

/// Writers at work.
#[derive(Debug)]
pub struct Running(Option<Parts>);

impl Running {
    /// Waits until one ends that was not told to: a defect.
    pub async fn ended_early(&self) {
        let Some(parts) = &self.0 else { return std::future::pending().await };
        let stored = async {
            match &parts.store {
                Some((_, stored)) => stored.cancelled().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = parts.written.cancelled() => {}
            () = stored => {}
        }
    }

    /// Ends the chain, and writes all that is left, for as long as `limit` a sink.
    pub async fn stop(self, limit: Duration) {
        let Some(parts) = self.0 else { return };
        parts.queue.close();
        if timeout(limit, parts.written.cancelled()).await.is_err() {
            error!("the last audit events were not written");
        }
        parts.queue.give_up();
        if let Some((queue, stored)) = parts.store {
            queue.close();
            if timeout(limit, stored.cancelled()).await.is_err() {
                error!("the store has not taken the last audit events");
            }
        }
    }
}
