//! Which token is held: the rules by which one displaces another, and who may read it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::{ArcSwapOption, Guard};
use tokio::sync::watch;

use super::Observer;
use crate::{Token, clock};

/// A token and when it expires on this machine's clock, in milliseconds since 1970.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) token: Arc<Token>,
    expires: i64,
}

/// Who says that a token is the current one.
#[derive(Clone, Copy, Debug)]
pub(super) enum Word {
    /// The stream of a replica, which may lag.
    Stream,
    /// An answer to a call that named the highest generation seen so far.
    Answer {
        /// That one.
        named: u64,
        /// No acknowledged rejection of the token exists, and none newer.
        verified: bool,
    },
}

/// What became of a token that was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offered {
    Taken,
    /// It is the one held.
    Known,
    /// It is older than what was seen. Either the replica lags, or the broker has begun to count anew: an answer tells.
    Older,
    /// It has expired.
    Expired,
}

pub(crate) struct State {
    held: ArcSwapOption<Held>,
    facts: Mutex<Facts>,
    /// Counts what was taken.
    taken: watch::Sender<u64>,
    observer: Option<Observer>,
}

#[derive(Debug, Default)]
struct Facts {
    /// The lowest generation that may be handed out.
    floor: u64,
    /// The highest generation that was seen, in use or refused.
    highest: u64,
    /// The refused tokens' last fingerprint: the same token must not come back under another number.
    refused: String,
    /// The token that was refused last, for the broker may not believe it.
    withheld: Option<Arc<Held>>,
}

impl State {
    pub(super) fn new(observer: Option<Observer>) -> Self {
        let (taken, _) = watch::channel(0);
        Self { held: ArcSwapOption::empty(), facts: Mutex::default(), taken, observer }
    }

    /// The token, unless it has expired.
    #[inline]
    pub(super) fn current(&self) -> Option<Guard<Option<Arc<Held>>>> {
        let guard = self.held.load();
        match &*guard {
            Some(held) if clock::now_millis() < held.expires => Some(guard),
            _ => None,
        }
    }

    /// The same if it is newer than a generation.
    pub(super) fn above(&self, generation: u64) -> Option<Arc<Token>> {
        let guard = self.current()?;
        let held = guard.as_ref()?;
        (held.token.generation > generation).then(|| Arc::clone(&held.token))
    }

    /// The highest generation that was seen, 0 if none was, and whether it was refused. Whoever asks has to say so, for only
    /// then is an answer with a lower one the word that the broker counts anew.
    pub(super) fn highest(&self) -> (u64, bool) {
        let facts = self.facts();
        (facts.highest, facts.floor > facts.highest)
    }

    /// Whether a token must be asked for if the stream does not bring it: there is none, or it is in the last fifth of its
    /// life or its last minute.
    pub(super) fn is_due(&self) -> bool {
        let Some(guard) = self.current() else { return true };
        let Some(held) = guard.as_ref() else { return true };
        let issued = held.token.issued_at.map_or(held.expires, clock::millis);
        let margin = (held.expires.saturating_sub(issued) / 5).clamp(0, 60_000);
        clock::now_millis() >= held.expires.saturating_sub(margin)
    }

    /// Takes a token, if it is better than what is held. `ahead`: by how many milliseconds the broker's clock is ahead.
    pub(super) fn offer(&self, token: Token, word: Word, ahead: i64) -> Offered {
        let mut facts = self.facts();
        let expires = clock::millis(token.expires_at).saturating_sub(ahead);
        if expires <= clock::now_millis() {
            return Offered::Expired;
        }
        let current = self.current().and_then(|guard| guard.as_ref().cloned());
        // The broker counts anew when it has lost its store. It alone can say so, and only of what it was asked about.
        let counts_anew = matches!(word, Word::Answer { named, verified: true } if named >= facts.highest);
        let is_older = token.generation < facts.floor
            || token.generation < current.as_ref().map_or(0, |held| held.token.generation);
        if (is_older && !counts_anew) || (!facts.refused.is_empty() && token.fingerprint == facts.refused) {
            return Offered::Older;
        }
        if current.is_some_and(|held| held.token.fingerprint == token.fingerprint && held.expires == expires) {
            return Offered::Known;
        }
        facts.highest = if is_older { token.generation } else { facts.highest.max(token.generation) };
        facts.floor = facts.floor.min(token.generation);
        let token = Arc::new(token);
        self.held.store(Some(Arc::new(Held { token: Arc::clone(&token), expires })));
        if let Some(observe) = &self.observer {
            // Under the lock, so that the observer sees the tokens in their order.
            observe(&token);
        }
        drop(facts);
        self.taken.send_modify(|count| *count += 1);
        Offered::Taken
    }

    /// No longer hands out this generation or an older one: the upstream refused it.
    pub(super) fn withhold(&self, generation: u64, fingerprint: &str) {
        let mut facts = self.facts();
        if generation >= facts.floor {
            facts.refused = fingerprint.to_owned();
            facts.withheld = self.held.load_full().filter(|held| held.token.generation == generation);
        }
        self.raise(&mut facts, generation.saturating_add(1));
    }

    /// Takes that back: the broker does not believe it, and has no other one to give.
    pub(super) fn absolve(&self, generation: u64) {
        let mut facts = self.facts();
        let is_last = facts.floor == generation.saturating_add(1);
        if let Some(held) = facts.withheld.take_if(|held| is_last && held.token.generation == generation) {
            facts.floor = generation;
            facts.refused.clear();
            self.held.store(Some(held));
        }
    }

    /// The same, as the broker says it.
    pub(super) fn raise_floor(&self, min_generation: u64) {
        self.raise(&mut self.facts(), min_generation);
    }

    fn raise(&self, facts: &mut Facts, floor: u64) {
        facts.floor = facts.floor.max(floor);
        facts.highest = facts.highest.max(floor.saturating_sub(1));
        if let Some(held) = self.held.load_full().filter(|held| held.token.generation < facts.floor) {
            // An answer that was on its way may still bring it.
            facts.refused.clone_from(&held.token.fingerprint);
            self.held.store(None);
        }
    }

    /// Counts what is taken from now on.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.taken.subscribe()
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        // An observer that panics leaves the facts as they are.
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
