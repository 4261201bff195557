//! The last events of this replica, in memory: what operators read where no store keeps them.
//!
//! Of a log that is in memory alone, events are kept as they came, and written out when somebody reads them: nobody reads
//! most of them, and to write and hash one costs more than to serve a token.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::sync::watch;

use super::{
    chain::{Chain, parse},
    event::AuditEvent,
};
use crate::{
    store::{AuditFilter, AuditRow},
    time::Timestamp,
};

/// How many are kept.
const KEPT: usize = 10_000;

/// A line as it was written, without its line break, and its time.
pub(super) type Written = (Timestamp, Bytes);

/// The ring.
#[derive(Debug)]
pub(super) struct Ring {
    unread: Mutex<Unread>,
    lines: Mutex<Lines>,
    added: watch::Sender<()>,
}

/// Events that nobody has read yet.
#[derive(Debug, Default)]
struct Unread {
    events: VecDeque<(Timestamp, AuditEvent)>,
    forgotten: u64,
}

#[derive(Debug)]
struct Lines {
    /// What writes out the events of a log in memory alone.
    chain: Option<Chain>,
    lines: VecDeque<Written>,
    /// The place of the last one.
    last: u64,
}

impl Ring {
    /// Of lines that are written elsewhere.
    pub(super) fn of_lines() -> Self {
        Self::new(None, VecDeque::new())
    }

    /// Of the events of a chain that is written nowhere else; it has begun with this line.
    pub(super) fn of_events(chain: Chain, first: Written) -> Self {
        Self::new(Some(chain), [first].into())
    }

    fn new(chain: Option<Chain>, lines: VecDeque<Written>) -> Self {
        let last = lines.len() as u64;
        Self {
            unread: Mutex::default(),
            lines: Mutex::new(Lines { chain, lines, last }),
            added: watch::Sender::new(()),
        }
    }

    /// Adds an event, and forgets the oldest.
    pub(super) fn add(&self, at: Timestamp, event: AuditEvent) {
        let mut unread = lock(&self.unread);
        // Dropped once the lock is released.
        let oldest = if unread.events.len() < KEPT { None } else { unread.events.pop_front() };
        unread.forgotten += u64::from(oldest.is_some());
        unread.events.push_back((at, event));
        drop(unread);
        self.tell();
    }

    /// Adds lines, and forgets the oldest.
    pub(super) fn add_lines(&self, added: impl IntoIterator<Item = Written>) {
        lock(&self.lines).extend(added);
        self.tell();
    }

    /// Whoever listens from now on finds what was added before.
    fn tell(&self) {
        if self.added.receiver_count() > 0 {
            self.added.send_replace(());
        }
    }

    /// The events after `after` that are wanted, oldest first, at most `limit`.
    pub(super) fn page(&self, after: u64, filter: &AuditFilter, limit: usize) -> Vec<AuditRow> {
        let later = self.later(after);
        let rows = later.into_iter().filter_map(|(id, at, line)| row(id, at, &line));
        rows.filter(|row| filter.admits(row)).take(limit).collect()
    }

    /// The lines after `after`, with their places.
    fn later(&self, after: u64) -> Vec<(u64, Timestamp, Bytes)> {
        let mut lines = lock(&self.lines);
        lines.write_out(std::mem::take(&mut *lock(&self.unread)));
        let first = lines.last - lines.lines.len() as u64 + 1;
        let skipped = usize::try_from((after + 1).saturating_sub(first)).unwrap_or(usize::MAX);
        let later = (first..).zip(&lines.lines).skip(skipped);
        later.map(|(id, (at, line))| (id, *at, line.clone())).collect()
    }

    /// Tells when something was added.
    pub(super) fn added(&self) -> watch::Receiver<()> {
        self.added.subscribe()
    }
}

impl Lines {
    fn extend(&mut self, added: impl IntoIterator<Item = Written>) {
        for line in added {
            if self.lines.len() == KEPT {
                self.lines.pop_front();
            }
            self.lines.push_back(line);
            self.last += 1;
        }
    }

    /// Gives the events a place in the chain. Those that were forgotten before had one that nobody sees.
    fn write_out(&mut self, unread: Unread) {
        let Some(mut chain) = self.chain.take() else { return };
        if unread.forgotten > 0 {
            chain.skip(unread.forgotten);
            self.lines.clear();
            self.last += unread.forgotten;
        }
        self.extend(unread.events.into_iter().map(|(at, event)| {
            let mut line = Vec::new();
            chain.append(&mut line, &event, at);
            line.pop();
            (at, line.into())
        }));
        self.chain = Some(chain);
    }
}

/// A line as the store would keep it.
fn row(id: u64, at: Timestamp, bytes: &[u8]) -> Option<AuditRow> {
    let text = std::str::from_utf8(bytes).ok()?;
    let line = parse(text)?;
    Some(AuditRow {
        id,
        chain: line.chain.into_owned(),
        sequence: line.sequence,
        at,
        kind: line.kind?.as_str().into(),
        subject: line.subject.into_owned(),
        credential: line.credential.into_owned(),
        line: text.to_owned(),
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{audit::Kind, types::ReplicaId};

    #[test]
    fn events_are_written_out_when_they_are_read_and_each_has_one_place_for_good() {
        let mut chain = Chain::new([7; 16], ReplicaId::new("r"));
        let at = Timestamp::from_millis(0);
        let mut first = Vec::new();
        chain.start(&mut first, at, None);
        first.pop();
        let ring = Ring::of_events(chain, (at, first.into()));
        let mut count = 0;
        let mut add = |events: u64| {
            for _ in 0..events {
                count += 1;
                ring.add(at, AuditEvent { count: Some(count), ..AuditEvent::new(Kind::TokenIssued) });
            }
        };
        let places = |after: u64| {
            let rows = ring.page(after, &AuditFilter::default(), usize::MAX);
            rows.iter()
                .map(|row| (row.id, row.sequence, parse(&row.line).and_then(|line| line.count)))
                .collect::<Vec<_>>()
        };
        add(2);
        assert_eq!(places(0), [(1, 0, None), (2, 1, Some(1)), (3, 2, Some(2))]);
        assert_eq!(places(2), [(3, 2, Some(2))]);
        add(1);
        assert_eq!(places(2), [(3, 2, Some(2)), (4, 3, Some(3))]);
        // More than there is room for, before anybody reads again.
        let kept = KEPT as u64;
        add(kept + 5);
        let all = places(0);
        assert_eq!((all.len(), all.first()), (KEPT, Some(&(10, 9, Some(9)))));
        assert_eq!(all.last(), Some(&(kept + 9, kept + 8, Some(kept + 8))));
        add(1);
        assert_eq!(places(kept + 9), [(kept + 10, kept + 9, Some(kept + 9))]);
        assert_eq!(places(0).len(), KEPT);
    }
}
