//! The recorded history of a run: what clients asked and got, what the upstream saw, what was broken when.

use std::{
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Result;
use serde::Serialize;

use crate::clock::Clock;

/// A call of `GetToken`. Times are microseconds since the run began.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Get {
    pub(crate) client: u32,
    pub(crate) replica: usize,
    pub(crate) credential: String,
    pub(crate) begun: u64,
    pub(crate) ended: u64,
    pub(crate) min_validity_ms: i64,
    /// `if_generation_not`; 0: not sent.
    pub(crate) held: u64,
    /// `rejected_generation`; 0: not sent.
    pub(crate) rejected: u64,
    pub(crate) answer: Answer,
}

/// What `GetToken` answered.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// A token; `expires_at` and `server_time` are milliseconds since the Unix epoch.
    Token { generation: u64, verified: bool, expires_at: i64, server_time: i64 },
    /// The client's copy is still the current one.
    NotModified { verified: bool },
    /// No token.
    Failed { code: String, reason: String },
}

impl Get {
    /// The generation that this answer tells the client to use, and whether it is verified.
    pub(crate) fn generation(&self) -> Option<(u64, bool)> {
        match self.answer {
            Answer::Token { generation, verified, .. } => Some((generation, verified)),
            Answer::NotModified { verified } => Some((self.held, verified)),
            Answer::Failed { .. } => None,
        }
    }
}

/// A call of `InvalidateToken`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) client: u32,
    pub(crate) replica: usize,
    pub(crate) credential: String,
    pub(crate) begun: u64,
    pub(crate) ended: u64,
    pub(crate) generation: u64,
    /// What was answered, if it was acknowledged.
    pub(crate) acknowledged: Option<Acknowledged>,
}

/// The answer to a report.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Acknowledged {
    pub(crate) invalidated: bool,
    pub(crate) min_generation: u64,
}

/// One thing that happened.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub(crate) enum Event {
    Get(Get),
    Report(Report),
    /// A token was presented to the protected API. Expiries are milliseconds since the Unix epoch.
    Use {
        client: u32,
        credential: String,
        generation: u64,
        status: u16,
        claimed_expiry: i64,
        expiry: i64,
    },
    /// A watch told of a token.
    Watched {
        stream: u64,
        replica: usize,
        credential: String,
        generation: u64,
    },
    /// The token endpoint was asked: one line when the call is received, redeemed, ended.
    Upstream {
        call: usize,
        replica: usize,
        credential: String,
        refresh: String,
        step: String,
    },
    /// Something was broken, or mended.
    Fault {
        deed: String,
        target: String,
    },
    /// A person logged in again after a loss was reported.
    LoggedIn {
        credential: String,
        reported: String,
    },
}

/// One line of the history.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Record {
    /// Microseconds since the run began.
    pub(crate) at: u64,
    #[serde(flatten)]
    pub(crate) event: Event,
}

/// The history, written by everybody. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct History {
    clock: Clock,
    records: Arc<Mutex<Vec<Record>>>,
}

impl History {
    /// An empty one.
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, records: Arc::default() }
    }

    /// Its clock.
    pub(crate) fn clock(&self) -> Clock {
        self.clock
    }

    /// Adds what just happened.
    pub(crate) fn add(&self, event: Event) {
        // The time is read under the lock, so that the records are in its order.
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.push(Record { at: self.clock.now(), event });
    }

    /// Adds a fault, or its end.
    pub(crate) fn fault(&self, deed: &str, target: &str) {
        self.add(Event::Fault { deed: deed.to_owned(), target: target.to_owned() });
    }

    /// All that happened so far.
    pub(crate) fn records(&self) -> Vec<Record> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Writes a history as JSON lines.
pub(crate) fn write(records: &[Record], path: &Path) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut file = BufWriter::new(File::create(path)?);
    for record in records {
        serde_json::to_writer(&mut file, record)?;
        file.write_all(b"\n")?;
    }
    Ok(file.flush()?)
}
