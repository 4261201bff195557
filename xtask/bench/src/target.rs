//! What was promised, and whether it holds.

use std::fmt::Write as _;

/// Whether less or more is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    AtMost,
    AtLeast,
}

/// A promise, and what was measured.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) what: String,
    pub(crate) bound: Bound,
    pub(crate) limit: f64,
    /// `None`: it could not be measured in this run.
    pub(crate) figure: Option<f64>,
    pub(crate) decimals: usize,
    pub(crate) unit: &'static str,
}

impl Target {
    pub(crate) fn at_most(what: impl Into<String>, limit: f64, figure: Option<f64>) -> Self {
        Self { what: what.into(), bound: Bound::AtMost, limit, figure, decimals: 2, unit: "×" }
    }

    pub(crate) fn at_least(what: impl Into<String>, limit: f64, figure: Option<f64>) -> Self {
        Self { bound: Bound::AtLeast, ..Self::at_most(what, limit, figure) }
    }

    /// In another unit, with so many decimals.
    pub(crate) fn in_unit(self, unit: &'static str, decimals: usize) -> Self {
        Self { unit, decimals, ..self }
    }

    /// Whether it holds; `None` if it was not measured.
    pub(crate) fn met(&self) -> Option<bool> {
        let figure = self.figure?;
        Some(match self.bound {
            Bound::AtMost => figure <= self.limit,
            Bound::AtLeast => figure >= self.limit,
        })
    }

    fn verdict(&self) -> &'static str {
        match self.met() {
            Some(true) => "met",
            Some(false) => "**missed**",
            None => "not measured",
        }
    }

    fn wanted(&self) -> String {
        let sign = if self.bound == Bound::AtMost { '≤' } else { '≥' };
        format!("{sign} {}{}", self.limit, self.unit)
    }

    fn measured(&self) -> String {
        self.figure.map_or_else(|| "–".to_owned(), |figure| format!("{figure:.*}{}", self.decimals, self.unit))
    }
}

/// A table of promises.
pub(crate) fn table(targets: &[Target]) -> String {
    let mut table = "| promise | target | measured | |\n|---|---|---|---|\n".to_owned();
    for target in targets {
        let (what, wanted, measured) = (&target.what, target.wanted(), target.measured());
        // Writing to a string does not fail.
        let _ = writeln!(table, "| {what} | {wanted} | {measured} | {} |", target.verdict());
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_is_met_on_its_own_side_of_the_limit() {
        assert_eq!(Target::at_most("a", 2.0, Some(2.0)).met(), Some(true));
        assert_eq!(Target::at_most("a", 2.0, Some(2.1)).met(), Some(false));
        assert_eq!(Target::at_least("a", 2.0, Some(1.9)).met(), Some(false));
        assert_eq!(Target::at_least("a", 2.0, None).met(), None);
    }

    #[test]
    fn a_missed_promise_stands_out() {
        let targets =
            [Target::at_most("memory", 800.0, Some(900.0)).in_unit(" B", 0), Target::at_least("speed", 7.0, None)];
        let table = table(&targets);
        assert!(table.contains("| memory | ≤ 800 B | 900 B | **missed** |"), "{table}");
        assert!(table.contains("| speed | ≥ 7× | – | not measured |"), "{table}");
    }
}
