//! `[cache]`: how much is held in memory.

use super::reader::Section;

/// The cache in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheConfig {
    /// How many tokens it holds at most.
    pub max_tokens: u64,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self { max_tokens: 1_000_000 }
    }
}

impl CacheConfig {
    /// Reads the section; what is not there has its default.
    pub(super) fn read(section: &Section<'_>) -> Self {
        let max_tokens = section.integer("max_tokens", 1..1_000_000_001);
        Self { max_tokens: max_tokens.unwrap_or(Self::default().max_tokens) }
    }
}
