//! Freshness and the timing of attempts: pure functions of a token, the rules and a time.
//!
//! What is random is drawn once, when a token is minted or an attempt fails, and stored: jitter drawn at every check
//! would collapse to its earliest value.

use std::time::Duration;

use rand::{Rng, RngExt as _};

use crate::{
    error::{Error, ErrorKind},
    time::Timestamp,
    types::Token,
};

/// The least time between two attempts for one key, whatever asks for them.
pub const MIN_SPACING: Duration = Duration::from_secs(1);

/// After the first failure; it doubles with each further one.
const BACKOFF_BASE: Duration = Duration::from_secs(5);

/// The longest time between two attempts that only the broker's own backoff spaces, and the time between attempts where
/// the upstream refuses the request as configured.
const BACKOFF_MAX: Duration = Duration::from_secs(300);

/// How often a lost grant is looked at again. It costs no upstream call: only a new grant leads to one.
const LOST_GRANT_CHECK: Duration = Duration::from_secs(30);

/// The bounds of an upstream's Retry-After.
const RETRY_AFTER: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);

/// Idle keys are refreshed ahead for at least this long after the last call.
const MIN_IDLE_WINDOW: Duration = Duration::from_secs(3600);

/// The last stretch of a long-lived token, in which callers wait for its replacement.
const MAX_URGENT: Duration = Duration::from_secs(60);

/// What a token is good for at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Serve it.
    Fresh,
    /// Serve it, and replace it in the background.
    RefreshDue,
    /// Wait for its replacement, within the caller's deadline; serve it if that fails and it lasts long enough.
    Urgent,
    /// Never serve it.
    Expired,
}

/// When a token's last stretch begins.
#[must_use]
pub fn urgent_at(token: &Token) -> Timestamp {
    token.expires_at.before(MAX_URGENT.min(token.lifetime() / 10))
}

/// The freshness of a token for a caller that needs it to last for `min_validity`.
#[must_use]
pub fn freshness(token: &Token, now: Timestamp, min_validity: Duration) -> Freshness {
    let left = token.expires_at.since(now);
    if left.is_zero() {
        Freshness::Expired
    } else if left < min_validity || now > urgent_at(token) {
        Freshness::Urgent
    } else if now >= token.refresh_at {
        Freshness::RefreshDue
    } else {
        Freshness::Fresh
    }
}

/// Whether a token may be served to a caller that needs it to last for `min_validity`.
#[must_use]
pub fn is_servable(token: &Token, now: Timestamp, min_validity: Duration) -> bool {
    let left = token.expires_at.since(now);
    !left.is_zero() && left >= min_validity
}

/// How a token came to be minted, which decides how far its replacement is spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mint {
    /// Ahead of its predecessor's end, at a time that was spread already.
    Ahead,
    /// Because it was needed: by callers that came to a cold cache, or after a rejection. Many are then minted together.
    Needed,
}

/// When a token that is valid from `issued_at` to `expires_at` is to be replaced: the refresh window before its expiry,
/// and up to a tenth of its lifetime earlier, so that tokens minted together are not replaced together; of those that were
/// minted when they were needed, from two fifths of its lifetime on, for a fleet that starts mints all of its tokens in a
/// minute, and a tenth of an hour would have the upstream replace them all in the next such minutes.
///
/// The tiers are those of the AWS SDKs. The window is at most a third of the lifetime, for else a short-lived token
/// would be due at once.
pub fn refresh_at(
    issued_at: Timestamp,
    expires_at: Timestamp,
    window: Option<Duration>,
    mint: Mint,
    rng: &mut impl Rng,
) -> Timestamp {
    let lifetime = expires_at.since(issued_at);
    let minutes = |m: u64| Duration::from_secs(60 * m);
    let tier = match lifetime {
        short if short <= minutes(20) => minutes(5),
        medium if medium < minutes(90) => minutes(15),
        _ => minutes(60),
    };
    let window = window.unwrap_or(tier).min(lifetime / 3);
    let latest = expires_at.before(window);
    let jitter = match mint {
        Mint::Ahead => lifetime / 10,
        Mint::Needed => latest.since(issued_at.after(lifetime * 2 / 5)),
    };
    latest.before(up_to(jitter, rng))
}

/// How long after the last call a key is still refreshed ahead.
#[must_use]
pub fn idle_window(token: &Token, configured: Option<Duration>) -> Duration {
    configured.unwrap_or_else(|| token.lifetime().saturating_mul(2).max(MIN_IDLE_WINDOW))
}

/// How long after the failure number `count` (from 1) the next attempt may be made: what the upstream asked for, within
/// bounds, else exponential backoff with full jitter.
pub fn retry_delay(error: &Error, count: u32, rng: &mut impl Rng) -> Duration {
    match (error.kind(), error.retry_after()) {
        (ErrorKind::NeedsReauth | ErrorKind::ConfigTampered, _) => LOST_GRANT_CHECK,
        (ErrorKind::Misconfigured, _) => BACKOFF_MAX,
        (_, Some(asked)) => asked.clamp(*RETRY_AFTER.start(), *RETRY_AFTER.end()),
        (_, None) => {
            let doublings = count.saturating_sub(1).min(16);
            let ceiling = BACKOFF_BASE.saturating_mul(1 << doublings).min(BACKOFF_MAX);
            MIN_SPACING + up_to(ceiling - MIN_SPACING, rng)
        }
    }
}

/// How long to wait where the upstream has returned the token that there is already, with `left` of it: ever shorter, for
/// a new one may come at any time before its end, and at last until its end, when it is taken again.
#[must_use]
pub fn repeat_delay(left: Duration) -> Duration {
    if left < 2 * BACKOFF_BASE { left } else { left / 2 }
}

/// Whether the next attempt is yet to wait for its time. One further away than any failure puts it was noted by a clock
/// that has been set back since, and means nothing.
#[must_use]
pub fn is_too_early(next_attempt_at: Timestamp, now: Timestamp) -> bool {
    let wait = next_attempt_at.since(now);
    !wait.is_zero() && wait <= *RETRY_AFTER.end()
}

/// Uniform between zero and `max`, both included, in milliseconds.
pub fn up_to(max: Duration, rng: &mut impl Rng) -> Duration {
    let max = u64::try_from(max.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(rng.random_range(0..=max))
}

#[cfg(test)]
mod tests;
