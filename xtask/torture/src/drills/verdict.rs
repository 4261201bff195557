//! What a drill has measured, and whether it is what was promised.

use std::time::Duration;

/// How many broken promises are shown.
const SHOWN: usize = 12;

/// The figures of a drill, and the promises that did not hold.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// Times are printed and not judged.
    lenient: bool,
    lines: Vec<String>,
    broken: Vec<String>,
}

impl Verdict {
    /// Nothing measured yet.
    pub(crate) fn new(lenient: bool) -> Self {
        Self { lenient, lines: vec![], broken: vec![] }
    }

    /// Notes a figure.
    pub(crate) fn figure(&mut self, what: &str, value: impl std::fmt::Display) {
        self.lines.push(format!("  {value:>10}  {what}"));
    }

    /// Something must hold; `otherwise` says what does not.
    pub(crate) fn require(&mut self, holds: bool, otherwise: impl Into<String>) {
        if !holds {
            self.broken.push(otherwise.into());
        }
    }

    /// Notes the times that something took, of which one, by its rank from 0 to 1, must not exceed a limit.
    pub(crate) fn times(&mut self, what: &str, mut times: Vec<Duration>, rank: f64, limit: Duration) {
        times.sort_unstable();
        let (Some(longest), Some(judged), Some(median)) = (times.last(), at(&times, rank), at(&times, 0.5)) else {
            self.require(false, format!("{what}: nothing was measured"));
            return;
        };
        let name = if rank < 1.0 { format!("p{:.0} {judged:.1?}, ", rank * 100.0) } else { String::new() };
        let count = times.len();
        self.lines
            .push(format!("  {what}: median {median:.1?}, {name}max {longest:.1?} of {count}, limit {limit:.1?}"));
        let text = format!("{what}: {judged:.1?} is longer than {limit:.1?}");
        if self.lenient && judged > limit {
            self.lines.push(format!("  NOT JUDGED: {text}"));
        }
        self.require(self.lenient || judged <= limit, text);
    }

    /// Whether all that was promised held.
    pub(crate) fn holds(&self) -> bool {
        self.broken.is_empty()
    }

    /// In one word.
    pub(crate) fn word(&self) -> &'static str {
        if self.holds() { "passed" } else { "FAILED" }
    }

    /// The figures, and what did not hold.
    pub(crate) fn describe(&self) -> String {
        let mut text: String = self.lines.iter().map(|line| format!("{line}\n")).collect();
        for broken in self.broken.iter().take(SHOWN) {
            text.push_str(&format!("BROKEN: {broken}\n"));
        }
        if self.broken.len() > SHOWN {
            text.push_str(&format!("BROKEN: and {} more\n", self.broken.len() - SHOWN));
        }
        text
    }
}

/// The time at a rank from 0 to 1 of times in order (nearest rank).
fn at(sorted: &[Duration], rank: f64) -> Option<Duration> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a rank between none and all of them"
    )]
    let nearest = (sorted.len() as f64 * rank).ceil() as usize;
    sorted.get(nearest.clamp(1, sorted.len().max(1)) - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_at_a_rank_is_judged_unless_the_drill_is_lenient() {
        let times = || (1..=100).map(Duration::from_millis).collect::<Vec<_>>();
        let holds = |lenient, rank, limit| {
            let mut verdict = Verdict::new(lenient);
            verdict.times("it", times(), rank, Duration::from_millis(limit));
            verdict.holds()
        };
        assert!(holds(false, 0.99, 99) && !holds(false, 0.99, 98));
        assert!(holds(false, 1.0, 100) && !holds(false, 1.0, 99));
        assert!(holds(true, 1.0, 1));
    }

    #[test]
    fn nothing_measured_is_nothing_held() {
        let mut verdict = Verdict::new(true);
        verdict.times("it", vec![], 1.0, Duration::from_secs(1));
        assert!(!verdict.holds());
    }
}
