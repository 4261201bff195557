//! Claims of clients: a generation that a client has seen elsewhere, and that this replica has not heard of yet.
//!
//! A client that changes replica says which generation it holds, and is not answered with an older one if the store has a
//! newer. A claim may be false, and then must not cost much: the store is looked at once for all who ask, and again only a
//! second later; the upstream is never asked for it.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::{Parts, TokenCache, entry::MIN_SPACING, memory::Look, within};
use crate::{
    credential::Credential,
    error::Result,
    types::{Generation, TokenKey},
};

/// How long a caller waits for a look at the store, and for its turn. Then it is served what there is, as degraded.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is known of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// The claimed generation exists: what is older will not do.
    True,
    /// The store did not have it after the claim was made.
    False,
    /// The store does not answer.
    Unknown,
}

impl TokenCache {
    /// Whether a claimed generation exists. Brings what the store has into memory, unless it is there.
    pub(super) async fn judge_claim(
        &self,
        credential: &Arc<Credential>,
        key: &TokenKey,
        claim: Generation,
        deadline: Instant,
    ) -> Standing {
        let (hash, made_at) = (key.hash(), self.parts.clock.uptime());
        let deadline = deadline.min(Instant::now() + PATIENCE);
        loop {
            let held = self.parts.memory.get(&hash).map_or(Generation::NONE, |entry| entry.token.generation);
            if claim <= held || claim < self.parts.memory.floor(&hash) {
                return Standing::True;
            }
            let last = self.parts.memory.last_look(&hash);
            if let Some(standing) = last.and_then(|look| judge(&look, claim, made_at)) {
                return standing;
            }
            let look = Looker { parts: Arc::clone(&self.parts), credential: Arc::clone(credential), key: key.clone() };
            let ticket = self.looks.join(hash, || look.run(claim));
            match within(deadline, ticket.wait()).await {
                Ok(found) if claim <= found => return Standing::True,
                // The look may have begun before the claim was made.
                Ok(_) => {}
                Err(_) => return Standing::Unknown,
            }
        }
    }
}

/// What a look says of a claim. Only one that was begun after the claim was made can show that it is false.
fn judge(look: &Look, claim: Generation, made_at: Duration) -> Option<Standing> {
    match look.found {
        Some(found) if claim <= found => Some(Standing::True),
        Some(_) => (made_at <= look.at).then_some(Standing::False),
        None => (made_at < look.at + MIN_SPACING).then_some(Standing::Unknown),
    }
}

/// One look at the store, for all who ask meanwhile.
struct Looker {
    parts: Arc<Parts>,
    credential: Arc<Credential>,
    key: TokenKey,
}

impl Looker {
    /// The generation of the row.
    async fn run(self, claim: Generation) -> Result<Generation> {
        let (hash, clock) = (self.key.hash(), &self.parts.clock);
        if let Some(last) = self.parts.memory.last_look(&hash) {
            sleep((last.at + MIN_SPACING).saturating_sub(clock.uptime())).await;
        }
        let at = clock.uptime();
        let loaded = self.parts.store.load(hash).await;
        let found = loaded.as_ref().ok().map(|row| row.as_ref().map_or(Generation::NONE, |row| row.generation));
        // One that found what was claimed costs the next claim no wait.
        if found.is_none_or(|found| found < claim) {
            self.parts.memory.note_look(hash, Look { at, found });
        }
        if let Some(row) = loaded? {
            self.parts.take_in(&self.credential, row, Duration::ZERO);
        }
        Ok(found.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_look_begun_after_the_claim_shows_that_it_is_false() {
        let (claim, at) = (Generation::new(5), Duration::from_secs(100));
        let of = |found: Option<u64>, made_at| judge(&Look { at, found: found.map(Generation::new) }, claim, made_at);
        assert_eq!(of(Some(4), at), Some(Standing::False));
        assert_eq!(of(Some(4), at + Duration::from_millis(1)), None);
        assert_eq!(of(Some(5), at + MIN_SPACING), Some(Standing::True));
        assert_eq!(of(None, at + MIN_SPACING / 2), Some(Standing::Unknown), "it has just failed");
        assert_eq!(of(None, at + MIN_SPACING), None);
    }
}
