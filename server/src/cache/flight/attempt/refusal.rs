//! What a failed attempt leaves behind, and when the next one may be made.

use std::time::Duration;

use tokio::time::sleep;
use tracing::{debug, warn};

use super::{Attempt, Base, Why};
use crate::{
    bug::{self, Bug},
    cache::{
        entry::{self, MIN_SPACING},
        memory::Refusal,
    },
    error::{Error, ErrorKind, Result},
    provider::{GrantUse, Rotation},
    store::{FailedAttempt, Failures, TokenRow},
    time::Timestamp,
};

/// How long nobody asks a store that has just failed.
pub(super) const STORE_PAUSE: Duration = Duration::from_secs(1);

/// How often at least a lost answer is asked for again before the upstream ceases to give it.
const ATTEMPTS_IN_GRACE: u32 = 4;

impl Attempt {
    /// Records a failed attempt, here and in the store, and says when the next may be made.
    pub(super) async fn fail(&self, base: &Base, error: Error) -> Error {
        let now = self.parts.clock.now();
        match error.kind() {
            ErrorKind::StoreDown => return self.pause_for_store(error),
            // The upstream was not asked: another replica may do so at once.
            ErrorKind::Draining => return error,
            // Nor was it here: another replica may have the key. What is recorded holds all of them back.
            ErrorKind::KeyMissing => {
                let delay = self.parts.rng.with(|rng| entry::retry_delay(&error, 1, rng));
                return self.refuse(error, now.after(delay));
            }
            _ => {}
        }
        let before = base.row.as_ref().and_then(|row| row.failures.as_ref()).map_or(0, |failures| failures.count);
        let count = before.saturating_add(1);
        let delay = self.parts.rng.with(|rng| entry::retry_delay(&error, count, rng)).min(self.longest_delay(&error));
        let (next_attempt_at, config) = (now.after(delay), self.credential.config);
        let failures = Failures {
            count,
            kind: error.kind(),
            message: error.message().to_owned(),
            at: now,
            next_attempt_at,
            config,
        };
        warn!(
            credential = %self.want.key.credential(), reason = error.kind().reason(), %error,
            failures = count, retry_in_s = delay.as_secs(), "the upstream gave no token"
        );
        let attempt = FailedAttempt { key: self.want.key.clone(), base: base.generation, failures };
        if let Err(error) = self.parts.store.record_failure(attempt).await {
            debug!(%error, "a failed attempt was not recorded");
        }
        self.refuse(error, next_attempt_at)
    }

    /// Where a lost answer can be had again for a while only, several attempts fall into that time.
    fn longest_delay(&self, error: &Error) -> Duration {
        match self.credential.provider.capabilities().grant {
            GrantUse::Refresh(Rotation::Grace(grace))
                if !error.kind().is_permanent() && error.retry_after().is_none() =>
            {
                (grace / ATTEMPTS_IN_GRACE).max(MIN_SPACING)
            }
            _ => Duration::MAX,
        }
    }

    pub(in crate::cache::flight) fn refuse(&self, error: Error, next_attempt_at: Timestamp) -> Error {
        let refusal = Refusal { error, next_attempt_at };
        let told = refusal.to_error(self.parts.clock.now());
        self.parts.memory.refuse(self.want.key.hash(), refusal);
        self.parts.schedule.at(self.want.key.clone(), next_attempt_at);
        told
    }

    pub(in crate::cache::flight) fn pause_for_store(&self, error: Error) -> Error {
        let next_attempt_at = self.parts.clock.now().after(STORE_PAUSE);
        self.refuse(error, next_attempt_at)
    }

    /// Honours the one `next_attempt_at` of the key. A rejection may spend one attempt in spite of it (later reports of
    /// the same token are no rejections any more), and so may an operator.
    pub(super) fn check_gate(&self, row: Option<&TokenRow>) -> Result<()> {
        let failures = row.and_then(|row| row.failures.as_ref());
        let Some(failures) = failures.filter(|failures| failures.config == self.credential.config) else {
            return Ok(());
        };
        // A person may have mended what only a person can mend, and restarted the broker for it.
        let stale = failures.kind.is_permanent() && failures.at < self.parts.started_at;
        let exempt = matches!(self.want.why, Why::Rejection | Why::Operator);
        let ignored = bug::has(Bug::NextAttemptIgnored);
        if exempt || stale || ignored || !entry::is_too_early(failures.next_attempt_at, self.parts.clock.now()) {
            return Ok(());
        }
        Err(self.refuse(Error::new(failures.kind, failures.message.clone()), failures.next_attempt_at))
    }

    /// Waits until a second has passed since the last attempt, failed or not.
    pub(super) async fn keep_spacing(&self, row: Option<&TokenRow>) {
        let succeeded = row.and_then(|row| row.token.as_ref()).map(|token| token.issued_at);
        let failed = row.and_then(|row| row.failures.as_ref()).map(|failures| failures.at);
        if let Some(last) = succeeded.max(failed) {
            let earliest = last.after(MIN_SPACING);
            sleep(earliest.since(self.parts.clock.now()).min(MIN_SPACING)).await;
        }
    }
}
