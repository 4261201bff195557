//! What came of a load.

use std::{collections::BTreeMap, time::Duration};

use super::Histogram;
use crate::talk::Verdict;

/// Counts of what ended while it was counted, and how long each took.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// Answers with the token that was asked for.
    pub(crate) right: u64,
    /// Everything else, by what it was.
    pub(crate) wrong: BTreeMap<String, u64>,
    /// Bytes of the right answers.
    pub(crate) bytes: u64,
    /// Of right answers to keys that were warm, and to cold ones.
    pub(crate) warm: Histogram,
    pub(crate) cold: Histogram,
    /// How long was counted, and what the server used meanwhile.
    pub(crate) window: Duration,
    pub(crate) spent: Duration,
}

impl Tally {
    pub(super) fn add(&mut self, verdict: Verdict, cold: bool, took: Duration) {
        if let Verdict::Right(length) = verdict {
            self.right += 1;
            self.bytes += length as u64;
            if cold { self.cold.add(took) } else { self.warm.add(took) }
        } else {
            *self.wrong.entry(verdict.to_string()).or_default() += 1;
        }
    }

    /// Calls that were never answered.
    pub(super) fn lose(&mut self, calls: u64) {
        *self.wrong.entry("never answered".into()).or_default() += calls;
    }

    pub(super) fn over(mut self, window: Duration, spent: Duration) -> Self {
        (self.window, self.spent) = (window, spent);
        self
    }

    /// Right answers a second.
    pub(crate) fn throughput(&self) -> f64 {
        self.right as f64 / self.window.as_secs_f64()
    }

    /// What the server used for each right answer.
    pub(crate) fn cost(&self) -> Duration {
        Duration::from_secs_f64(self.spent.as_secs_f64() / self.right.max(1) as f64)
    }

    /// How much of a core the server used.
    pub(crate) fn load(&self) -> f64 {
        self.spent.as_secs_f64() / self.window.as_secs_f64()
    }

    /// What was not right, for people; empty if all was.
    pub(crate) fn faults(&self) -> String {
        let faults: Vec<String> = self.wrong.iter().map(|(what, count)| format!("{count} × {what}")).collect();
        faults.join(", ")
    }
}
