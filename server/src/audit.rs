//! The audit log: who got which token, who was refused, and why; written before the answer leaves.
//!
//! ```text
//! pipeline ─ record ─▶ queue (bounded) ─▶ writer thread ─ chain ─┬─▶ file, stdout   one write(2) for all that is queued
//!     ▲                                                          ├─▶ store          a task of its own
//!     └────────── released together, once every sink has it ◀────┴─▶ ring           what operators read without a store
//! ```
//!
//! Invariants: in `closed` mode [`AuditLog::record`] succeeds, and a [`Receipt`] is written, only if the kernel (or the
//! database) has the event, so that no death of the process loses it; it never waits longer than its time-out, whatever a
//! sink does; the queue is bounded. No event can hold a secret, see `event`.

mod chain;
mod event;
mod file;
mod json;
mod log;
mod queue;
mod reader;
mod refusals;
mod ring;
mod store_sink;
pub mod verify;
mod writer;

use std::{path::PathBuf, time::Duration};

pub use chain::{Line, parse};
pub use event::{Actor, AuditEvent, Kind, Reason, Rpc, TraceId};
pub use log::{AuditError, AuditLog, Makings, Receipt};
pub use reader::{AuditReader, Source};
pub use writer::{Running, Writers};

/// What becomes of a call whose event cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenDown {
    /// It is refused: no token without an event.
    Closed,
    /// It is answered, and the loss is counted.
    Open,
}

/// Where events go, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditSettings {
    /// A file of JSON lines.
    pub file: Option<PathBuf>,
    /// JSON lines on standard output.
    pub stdout: bool,
    /// The table of the store.
    pub store: bool,
    /// What becomes of calls while a sink takes nothing.
    pub when_down: WhenDown,
    /// How long a call waits for its event to be written.
    pub timeout: Duration,
    /// Whether the file is on the disk before a call is answered, so that not even a power cut loses an event.
    pub sync: bool,
    /// How long the store keeps events.
    pub keep: Duration,
}

impl AuditSettings {
    /// How long a call waits if nothing else is said.
    pub const TIMEOUT: Duration = Duration::from_millis(500);

    /// How long the store keeps events if nothing else is said.
    pub const KEEP: Duration = Duration::from_secs(90 * 24 * 3600);

    /// The last events in memory, and nowhere else: dev mode.
    #[must_use]
    pub const fn memory() -> Self {
        Self {
            file: None,
            stdout: false,
            store: false,
            when_down: WhenDown::Closed,
            timeout: Self::TIMEOUT,
            sync: false,
            keep: Self::KEEP,
        }
    }

    /// Whether events go anywhere but to memory.
    #[must_use]
    pub const fn has_sink(&self) -> bool {
        self.file.is_some() || self.stdout || self.store
    }
}

impl Default for AuditSettings {
    fn default() -> Self {
        Self { stdout: true, ..Self::memory() }
    }
}

#[cfg(test)]
mod tests;
