//! Finds what was changed in audit lines: edited, dropped, doubled, reordered, or cut off.
//!
//! What no chain can tell: lines that are missing after the last one that is there, and a chain that was written anew as a
//! whole by somebody who knows how. `docs/audit.md` says what to do about it.

use std::{
    collections::HashMap,
    fmt,
    io::{self, BufRead},
};

use super::{
    chain::{Hash, VERSION, checked_hash, decode, parse},
    event::Kind,
};
use crate::store::AuditRow;

/// The longest line that is read.
const MAX_LINE: usize = 1024 * 1024;

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// `file:line`, or the place of a row.
    pub place: String,
    /// What is the matter.
    pub message: String,
    /// Whether the chain is broken there. Otherwise it can be explained by a crash.
    pub broken: bool,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let weight = if self.broken { "" } else { "note: " };
        write!(f, "{}: {weight}{}", self.place, self.message)
    }
}

/// What a verification found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// In the order of the lines.
    pub findings: Vec<Finding>,
    /// How many events are in order.
    pub events: u64,
    /// How many chains begin among them.
    pub chains: u64,
    /// Whether the last chain has no end: its process runs, was killed, or its last lines were cut off.
    pub open: bool,
}

impl Report {
    /// Whether no chain is broken.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        !self.findings.iter().any(|finding| finding.broken)
    }

    /// Whether nothing at all is to be said, not even that the last chain is open.
    #[must_use]
    pub fn is_spotless(&self) -> bool {
        self.findings.is_empty() && !self.open
    }
}

/// The last line of a chain that was in order.
#[derive(Clone, Debug)]
struct Last {
    chain: String,
    sequence: u64,
    hash: Hash,
    stopped: bool,
}

/// Reads lines in their order. Several files are one, if they are read in the order in which they were written.
#[derive(Debug)]
pub struct Verifier {
    /// Whether what came before may be missing.
    partial: bool,
    last: Option<Last>,
    /// A damaged line. It may have been torn by a crash, if the next chain says so.
    damaged: Option<String>,
    report: Report,
}

impl Verifier {
    /// With `partial` it is no fault that a chain begins in its middle, because older files or rows were deleted.
    #[must_use]
    pub fn new(partial: bool) -> Self {
        Self { partial, last: None, damaged: None, report: Report::default() }
    }

    /// Reads a file.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub fn read(&mut self, name: &str, mut file: impl BufRead) -> io::Result<()> {
        let mut line = Vec::new();
        for number in 1_u64.. {
            line.clear();
            let read = io::Read::take(&mut file, MAX_LINE as u64).read_until(b'\n', &mut line)?;
            if read == 0 {
                break;
            }
            let place = format!("{name}:{number}");
            match line.strip_suffix(b"\n") {
                Some(line) => self.line(place, line, number == 1),
                None if line.len() == MAX_LINE => {
                    self.broken(&place, "longer than any line can be");
                    return Ok(());
                }
                None => self.note(
                    place,
                    "the last line has no end: it is being written, a crash has torn it, or it was cut off",
                ),
            }
        }
        Ok(())
    }

    fn line(&mut self, place: String, bytes: &[u8], is_first: bool) {
        let Some(hash) = checked_hash(bytes) else {
            if let Some(place) = self.damaged.replace(place) {
                self.broken(&place, "damaged: its hash does not fit");
            }
            return;
        };
        let Some(line) = std::str::from_utf8(bytes).ok().and_then(parse).filter(|line| line.v == VERSION) else {
            self.broken(&place, "not an event that this version knows");
            return;
        };
        let previous = line.previous.as_deref().map(|digits| decode(digits.as_bytes()));
        match self.last.take() {
            Some(last) if last.chain == line.chain => {
                if let Some(damaged) = self.damaged.take() {
                    self.broken(&damaged, "damaged: its hash does not fit");
                }
                let expected = last.sequence.checked_add(1);
                if expected != Some(line.sequence) {
                    let message = format!("event {} follows event {}", line.sequence, last.sequence);
                    self.broken(&place, &message);
                } else if previous != Some(Some(last.hash)) {
                    self.broken(&place, "it does not follow the line before it: `previous` is not that one's hash");
                } else if last.stopped {
                    self.broken(&place, "the chain goes on after its end");
                }
            }
            last => self.begin(&place, &line, last, is_first),
        }
        self.report.events += 1;
        let stopped = line.kind == Some(Kind::Stopped);
        self.last = Some(Last { chain: line.chain.into_owned(), sequence: line.sequence, hash, stopped });
    }

    /// The first line that is seen of a chain.
    fn begin(&mut self, place: &str, line: &super::Line<'_>, last: Option<Last>, is_first: bool) {
        self.report.chains += 1;
        let after = line.after.as_deref().map(|digits| decode(digits.as_bytes()));
        let follows = after.is_some() && after == Some(last.as_ref().map(|last| last.hash));
        if let Some(damaged) = self.damaged.take() {
            // Whoever began the chain found the line before it cut off, and said which one was the last whole one.
            match follows {
                true => self.note(damaged, "torn by a crash: the event was never acknowledged"),
                false => self.broken(&damaged, "damaged: its hash does not fit"),
            }
        }
        if line.kind != Some(Kind::Started) || line.sequence != 0 || line.previous.is_some() {
            let message = format!("a chain begins with event {}: what came before is missing", line.sequence);
            if last.is_none() && self.partial {
                self.note(place.into(), &message);
            } else {
                self.broken(place, &message);
            }
            return;
        }
        match (&last, after) {
            (None, Some(_)) if self.partial => self.note(place.into(), "what came before in this file is missing"),
            (None, Some(_)) => self.broken(place, "what came before in this file is missing"),
            (Some(_), Some(_)) if !follows => self.broken(place, "it does not follow the line before it"),
            (Some(_), None) if !is_first => self.broken(place, "it does not say that it follows the line before it"),
            _ => {}
        }
        if let Some(last) = last.filter(|last| !last.stopped) {
            let message =
                format!("the chain before it has no end after event {}: its process was killed", last.sequence);
            self.note(place.into(), &message);
        }
    }

    fn broken(&mut self, place: &str, message: &str) {
        self.report.findings.push(Finding { place: place.into(), message: message.into(), broken: true });
    }

    fn note(&mut self, place: String, message: &str) {
        self.report.findings.push(Finding { place, message: message.into(), broken: false });
    }

    /// What was found.
    #[must_use]
    pub fn finish(mut self) -> Report {
        if let Some(place) = self.damaged.take() {
            self.broken(&place, "damaged: its hash does not fit");
        }
        self.report.open = self.last.as_ref().is_some_and(|last| !last.stopped);
        self.report
    }
}

/// Reads the rows of a store, in which the chains of all replicas are mingled, and older rows were deleted.
#[derive(Debug, Default)]
pub struct RowVerifier {
    chains: HashMap<String, Verifier>,
    mismatched: Vec<Finding>,
}

impl RowVerifier {
    /// Reads a row. Those of a chain have to come in the order of their places.
    pub fn read(&mut self, row: &AuditRow) {
        let place = format!("row {}", row.id);
        let told = parse(&row.line);
        let agrees = told.as_ref().is_some_and(|line| {
            line.chain == row.chain
                && line.sequence == row.sequence
                && line.kind.is_some_and(|kind| kind.as_str() == row.kind)
                && line.subject == row.subject
                && line.credential == row.credential
                && line.time == super::chain::rfc3339(row.at)
        });
        if told.is_some() && !agrees {
            let message = "the columns do not say what the line says".into();
            self.mismatched.push(Finding { place: place.clone(), message, broken: true });
        }
        let chain = self.chains.entry(row.chain.clone()).or_insert_with(|| Verifier::new(true));
        // Files join chains, which a store does not.
        chain.line(place, row.line.as_bytes(), true);
    }

    /// What was found in all chains.
    #[must_use]
    pub fn finish(self) -> Report {
        let mut all = Report { findings: self.mismatched, ..Report::default() };
        for report in self.chains.into_values().map(Verifier::finish) {
            all.findings.extend(report.findings);
            all.events += report.events;
            all.chains += report.chains;
            all.open |= report.open;
        }
        all
    }
}
