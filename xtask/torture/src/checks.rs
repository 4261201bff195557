//! What must hold of a run, decided after it from the history and from the truth.

mod calls;
mod grants;

use std::collections::BTreeMap;

pub(crate) use self::{calls::check_calls, grants::check_grants};

/// How many witnesses of each kind are shown.
const WITNESSES: usize = 5;

/// What was found: violations by their kind, and counts for a person.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    violations: BTreeMap<&'static str, Vec<String>>,
    counts: BTreeMap<String, u64>,
}

impl Findings {
    /// Something that must not be.
    pub(crate) fn violation(&mut self, kind: &'static str, witness: impl Into<String>) {
        self.violations.entry(kind).or_default().push(witness.into());
    }

    /// Something that may be, and of which a person wants to know how often it was.
    pub(crate) fn count(&mut self, what: &str, by: usize) {
        *self.counts.entry(what.to_owned()).or_default() += u64::try_from(by).unwrap_or(u64::MAX);
    }

    /// How often something was.
    pub(crate) fn counted(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or_default()
    }

    /// Everything that was counted.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (&str, u64)> {
        self.counts.iter().map(|(what, count)| (what.as_str(), *count))
    }

    /// Whether nothing was violated.
    pub(crate) fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }

    /// The violations in words, with the first witnesses.
    pub(crate) fn describe(&self) -> String {
        let mut text = String::new();
        for (kind, witnesses) in &self.violations {
            text.push_str(&format!("VIOLATED: {kind}, {} times\n", witnesses.len()));
            for witness in witnesses.iter().take(WITNESSES) {
                text.push_str(&format!("    {witness}\n"));
            }
        }
        text
    }

    #[cfg(test)]
    fn kinds(&self) -> Vec<&'static str> {
        self.violations.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests;
