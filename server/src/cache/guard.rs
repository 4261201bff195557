//! The storm guard: an upstream that refuses one freshly minted token after another is not cured by minting more.
//!
//! That is what a mere permission error looks like when clients take it for a dead token. Past the limit rejections are
//! refused for a while, and the token that is at hand stays.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::{
    error::{Error, ErrorKind, Result},
    time::Timestamp,
    types::KeyHash,
};

/// How many rejections of freshly minted tokens are believed within the window.
const LIMIT: usize = 3;

/// The window, and the age up to which a token is freshly minted.
const WINDOW: Duration = Duration::from_secs(30);

/// Counts the rejections of freshly minted tokens, per key.
#[derive(Debug, Default)]
pub struct StormGuard(Mutex<HashMap<KeyHash, Vec<Timestamp>>>);

impl StormGuard {
    /// Counts the rejection of a token that was issued at `issued_at`.
    ///
    /// # Errors
    ///
    /// `TooManyInvalidations`, with the time until the next rejection is believed, if there were too many.
    pub fn admit(&self, key: KeyHash, issued_at: Timestamp, now: Timestamp) -> Result<()> {
        if now.since(issued_at) >= WINDOW {
            return Ok(());
        }
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Keys whose storms are over are dropped when any storm is looked at: the map holds a window's worth.
        counted.retain(|_, times| times.last().is_some_and(|last| now.since(*last) < WINDOW));
        let times = counted.entry(key).or_default();
        times.retain(|time| now.since(*time) < WINDOW);
        if times.len() < LIMIT {
            times.push(now);
            return Ok(());
        }
        let oldest = times.first().copied().unwrap_or(now);
        let message = "the upstream refuses freshly minted tokens: check permissions rather than minting more";
        Err(Error::new(ErrorKind::TooManyInvalidations, message).with_retry_after(oldest.after(WINDOW).since(now)))
    }

    /// Whether rejections of this key are being refused.
    #[must_use]
    pub fn is_tripped(&self, key: &KeyHash, now: Timestamp) -> bool {
        let counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counted.get(key).is_some_and(|times| times.iter().filter(|time| now.since(**time) < WINDOW).count() >= LIMIT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: KeyHash = KeyHash::from_bytes([1; 32]);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    #[test]
    fn the_fourth_rejection_of_a_fresh_token_within_30_s_is_refused_until_the_first_is_forgotten() {
        let guard = StormGuard::default();
        for second in [0, 5, 10] {
            assert_eq!(guard.admit(KEY, at(second), at(second)), Ok(()));
        }
        let refused = guard.admit(KEY, at(11), at(12)).expect_err("the fourth");
        assert_eq!(refused.kind(), ErrorKind::TooManyInvalidations);
        assert_eq!(refused.retry_after(), Some(Duration::from_secs(18)));
        assert!(guard.is_tripped(&KEY, at(12)));
        assert_eq!(guard.admit(KEY, at(30), at(30)), Ok(()));
    }

    #[test]
    fn old_tokens_and_other_keys_do_not_count() {
        let guard = StormGuard::default();
        for second in 0..10 {
            assert_eq!(guard.admit(KEY, at(-100), at(second)), Ok(()));
        }
        for key in 0..10 {
            assert_eq!(guard.admit(KeyHash::from_bytes([key; 32]), at(0), at(0)), Ok(()));
        }
        assert!(!guard.is_tripped(&KEY, at(10)));
    }
}
