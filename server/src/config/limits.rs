//! `[limits]`: how much callers may demand of a replica.

use super::reader::Section;

/// How much callers may demand of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections of each listener at a time; a further one is closed at once.
    pub max_connections: usize,
    /// Calls in progress at a time, watches not counted once they are open; a further one is refused before anybody
    /// looks who makes it.
    pub max_calls: usize,
    /// Calls a second of all callers together. `None`: no limit.
    pub calls_per_second: Option<u32>,
    /// Calls a second of each caller, by its subject. `None`: no limit.
    pub calls_per_second_per_caller: Option<u32>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_connections: 8192, max_calls: 16_384, calls_per_second: None, calls_per_second_per_caller: None }
    }
}

impl Limits {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let default = Self::default();
        let count = |key, most: u64, otherwise: usize| {
            section.integer(key, 1..most + 1).and_then(|n| usize::try_from(n).ok()).unwrap_or(otherwise)
        };
        let rate = |key| section.integer(key, 1..1_000_000_001).and_then(|n| u32::try_from(n).ok());
        Self {
            max_connections: count("max_connections", 1_000_000, default.max_connections),
            max_calls: count("max_calls", 1_000_000, default.max_calls),
            calls_per_second: rate("calls_per_second"),
            calls_per_second_per_caller: rate("calls_per_second_per_caller"),
        }
    }
}
