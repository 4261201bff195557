//! No token leaves before its event is on record: a connection's bytes are held back until then, all calls of a turn
//! together.
//!
//! So a hit needs no task of its own to wait in, and the writer of the audit log wakes once for the events of all
//! connections that had their turn. With client certificates, grants and an audit file, and 64 connections of 32 streams
//! each, that took the CPU time of a hit from 19.5 to 11.9 µs. If the log takes nothing in time, the connection ends with
//! what it held: nobody learns a token that is not on record. Calls that come while the log stalls are told so instead, see
//! [`Receipt::is_doubtful`].

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use tokio::task::yield_now;

use crate::{audit::Receipt, error::Result};

/// What a connection's next bytes wait for. Cheap to clone; all clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Hold(Arc<Mutex<Option<Receipt>>>);

impl Hold {
    /// Until this event is written, too. The answer to its call may be given to the connection from now on.
    pub(super) fn until(&self, receipt: Receipt) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_ref().is_none_or(|last| receipt.covers(last)) {
            *last = Some(receipt);
        }
    }

    fn take(&self) -> Option<Receipt> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The connection's side of it.
pub(super) struct Held {
    hold: Hold,
    opening: Option<Pin<Box<dyn Future<Output = Result<()>> + Send>>>,
    /// Something is not on record, and never leaves.
    is_shut: bool,
}

impl Held {
    pub(super) fn new(hold: Hold) -> Self {
        Self { hold, opening: None, is_shut: false }
    }

    /// Whether something is waited for.
    pub(super) fn is_closed(&self) -> bool {
        self.opening.is_some()
    }

    /// Waits until all events are written of what was answered before. After an error there is nothing but errors.
    pub(super) fn poll_open(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.is_shut {
                return Poll::Ready(Err(io::Error::other("the audit log did not take events in time")));
            }
            if let Some(opening) = &mut self.opening {
                let opened = ready!(opening.as_mut().poll(context));
                self.opening = None;
                self.is_shut = opened.is_err();
                continue;
            }
            let Some(receipt) = self.hold.take() else { return Poll::Ready(Ok(())) };
            self.opening = Some(Box::pin(async {
                // Whoever else is ready has a turn first: its events are then written along.
                yield_now().await;
                receipt.written().await
            }));
        }
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Held").field("is_closed", &self.is_closed()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, future::poll_fn, path::Path, time::Duration};

    use tempfile::TempDir;

    use super::*;
    use crate::{
        audit::{AuditEvent, AuditLog, AuditSettings, Kind, Makings, Running},
        error::ErrorKind,
        metrics::AuditMetrics,
        store::MemoryTokenStore,
        time::SystemClock,
        types::ReplicaId,
    };

    fn log(file: &Path) -> (AuditLog, Running) {
        let timeout = Duration::from_millis(100);
        let settings = AuditSettings { file: Some(file.into()), timeout, ..AuditSettings::memory() };
        let store = Arc::new(MemoryTokenStore::new(Arc::new(SystemClock)));
        let (chain, replica, metrics) = ([1; 16], ReplicaId::new("r"), AuditMetrics::default());
        let makings = Makings { clock: Arc::new(SystemClock), chain, replica, store, metrics };
        let (log, _, writers) = AuditLog::open(&settings, makings).expect("a log");
        (log, writers.start().expect("a thread"))
    }

    fn event(count: u64) -> AuditEvent {
        AuditEvent { count: Some(count), ..AuditEvent::new(Kind::TokenIssued) }
    }

    async fn opened(held: &mut Held) -> io::Result<()> {
        poll_fn(|context| held.poll_open(context)).await
    }

    #[tokio::test]
    async fn what_is_held_back_leaves_once_its_events_are_written() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("audit.jsonl");
        let (log, running) = log(&path);
        let hold = Hold::default();
        let mut held = Held::new(hold.clone());
        assert!(opened(&mut held).await.is_ok(), "there is nothing to wait for");
        for count in 0..100 {
            let receipts = [log.record_later(event(2 * count)), log.record_later(event(2 * count + 1))];
            let [first, second] = receipts.map(|receipt| receipt.expect("there is room"));
            // In whatever order the calls end.
            second.into_iter().chain(first).for_each(|receipt| hold.until(receipt));
            opened(&mut held).await.expect("it is written");
            let last = format!("\"count\":{}", 2 * count + 1);
            assert!(fs::read_to_string(&path).unwrap().contains(&last), "{last} is not written");
        }
        running.stop(Duration::from_secs(60)).await;
    }

    #[tokio::test]
    async fn what_is_not_on_record_in_time_never_leaves_and_later_calls_are_told() {
        let (log, running) = log(Path::new("/dev/full"));
        let hold = Hold::default();
        let mut held = Held::new(hold.clone());
        let receipt = log.record_later(event(1)).expect("nothing is known of the sink yet");
        hold.until(receipt.expect("it is not written yet"));
        assert!(opened(&mut held).await.is_err());
        assert!(opened(&mut held).await.is_err(), "nor later, when whoever hangs up says its last words");
        let later = log.record_later(event(2)).expect("there is room").expect("it is not written yet");
        assert!(later.is_doubtful());
        assert_eq!(later.written().await.map_err(|error| error.kind()), Err(ErrorKind::AuditDown));
        running.stop(Duration::from_millis(10)).await;
    }
}
