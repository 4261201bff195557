//! Asking the upstream while the store does not answer.
//!
//! Only where no refresh token rotates, only for a token that this replica has served before, and only once nothing else
//! will do: in the token's last stretch, or when it was rejected or has expired. The store's lease is missed, so each
//! replica may ask once; and the generation goes on from the last one that is known here.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout};
use tracing::warn;

use super::{Attempt, Base, grant, refusal::STORE_PAUSE};
use crate::{
    bug::{self, Bug},
    cache::{
        entry::{self, Freshness, freshness},
        memory::Entry,
    },
    error::{Error, ErrorKind, Result},
    provider::{GrantUse, Rotation},
    store::{Commit, Fence, GrantUpdate, TokenRow},
    types::{Generation, Token},
};

/// How long a replica that is out of touch waits for the store: it is likely to wait in vain.
const OUT_OF_TOUCH: Duration = Duration::from_secs(1);

impl Attempt {
    /// Whether the upstream may be asked, and its token served, without the store: where that can cost no refresh token.
    pub(super) fn may_go_alone(&self) -> bool {
        match self.credential.provider.capabilities().grant {
            GrantUse::None | GrantUse::Refresh(Rotation::None) => true,
            GrantUse::Refresh(Rotation::Grace(_) | Rotation::Strict) => bug::has(Bug::RotatesWithoutTheStore),
        }
    }

    /// What the store knows of the key; sooner given up where it has not been heard of for a while.
    pub(super) async fn read_row(&self) -> Result<Option<TokenRow>> {
        let load = self.parts.store.load(self.want.key.hash());
        if self.parts.trust.term().is_some() {
            return load.await;
        }
        let silent = |_| Error::new(ErrorKind::StoreDown, "the store has not answered for a while");
        timeout(OUT_OF_TOUCH, load).await.unwrap_or_else(|elapsed| Err(silent(elapsed)))
    }

    /// Brings a token although the store failed with `down`, if one is needed now and may be had.
    pub(super) async fn go_alone(&self, down: Error) -> Result<Arc<Entry>> {
        let Some(row) = self.last_known() else { return Err(down) };
        if !self.is_needed(&row) {
            return Err(self.wait_for_the_last_stretch(down, &row));
        }
        self.keep_spacing(Some(&row)).await;
        let seat = self.enter_alone()?;
        let base = Base::of(Some(row));
        let started = Instant::now();
        let result = self.mint_alone(&base).await;
        self.leave_alone(seat);
        self.record(started, &result);
        result.map_err(|error| self.refuse_alone(error))
    }

    /// What this replica knows of the key by itself.
    fn last_known(&self) -> Option<TokenRow> {
        let hash = self.want.key.hash();
        let entry = self.parts.memory.latest(&hash).filter(|entry| entry.config == self.credential.config)?;
        let floor = self.parts.memory.floor(&hash);
        // The one below the floor is known to have been minted, here or elsewhere.
        let rejected = Generation::new(floor.get().saturating_sub(1));
        Some(TokenRow {
            key: self.want.key.clone(),
            generation: entry.token.generation.max(rejected),
            min_generation: floor,
            token: Some(entry.token.clone()),
            config: entry.config,
            failures: None,
            last_used_at: entry.last_used(),
        })
    }

    /// Whether the token that there is will not do any more. One that is merely due can wait for the store.
    fn is_needed(&self, row: &TokenRow) -> bool {
        row.token.as_ref().is_none_or(|token| {
            token.generation < row.min_generation
                || Some(token.generation) == self.want.avoid
                || match freshness(token, self.parts.clock.now(), self.want.min_validity) {
                    Freshness::Fresh | Freshness::RefreshDue => false,
                    Freshness::Urgent | Freshness::Expired => true,
                }
        })
    }

    /// Has the next attempt come no later than the time from which the upstream may be asked alone.
    fn wait_for_the_last_stretch(&self, down: Error, row: &TokenRow) -> Error {
        // Just after its beginning: at that very time it has not begun.
        let urgent_at = row.token.as_ref().map(|token| entry::urgent_at(token).after(Duration::from_millis(1)));
        match urgent_at.filter(|at| *at < self.parts.clock.now().after(STORE_PAUSE)) {
            Some(urgent_at) => self.refuse(down, urgent_at),
            None => down,
        }
    }

    async fn mint_alone(&self, base: &Base) -> Result<Arc<Entry>> {
        let sent = match self.credential.provider.capabilities().grant {
            GrantUse::None => None,
            GrantUse::Refresh(_) => Some(grant::configured(self).await?),
        };
        let sent_at = self.parts.clock.now();
        let mut minted = self.ask(sent.clone()).await.map_err(|failure| failure.error)?;
        // Which version of the grant was sent is not known here: what came back is kept beside it.
        let new = minted.grant.take().filter(|new| Some(new) != sent.as_ref());
        let at = self.parts.clock.now();
        let update = sent.zip(new).map(|(sent, refresh_token)| GrantUpdate {
            base_version: 0,
            as_of: 0,
            sent: sent.into(),
            refresh_token: refresh_token.into(),
            late: None,
            refused: vec![],
            intent: None,
            at,
        });
        let token = self.judge(base, minted, sent_at)?;
        warn!(
            credential = %self.want.key.credential(), generation = %token.generation, fingerprint = %token.fingerprint,
            "minted without the store"
        );
        Ok(self.serve_unstored(Commit {
            key: self.want.key.clone(),
            token,
            fence: Fence::Above,
            config: self.credential.config,
            last_used_at: self.last_used(),
            grant: update,
        }))
    }

    /// Serves a token that the store could not take; it is stored later.
    pub(super) fn serve_unstored(&self, commit: Commit) -> Arc<Entry> {
        let entry = self.entry_of(commit.token.clone()).unstored();
        self.parts.pending.store_later(commit);
        self.parts.keep(entry)
    }

    /// A token of the key, as it is held in memory.
    pub(super) fn entry_of(&self, token: Token) -> Entry {
        let key = self.want.key.named(&self.credential.name);
        Entry::new(key, token, self.credential.config, self.last_used())
    }

    /// When the upstream may be asked again: as always, but counted from what this replica alone has seen.
    fn refuse_alone(&self, error: Error) -> Error {
        let attempts = self.parts.history.of(&self.want.key.hash());
        let failed = attempts.iter().take_while(|attempt| attempt.error.is_some()).count();
        let count = u32::try_from(failed).unwrap_or(u32::MAX).max(1);
        let delay = self.parts.rng.with(|rng| entry::retry_delay(&error, count, rng));
        self.refuse(error, self.parts.clock.now().after(delay))
    }
}
