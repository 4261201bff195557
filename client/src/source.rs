//! Keeps one token at hand: fresh from the broker's stream, kept while the broker is away, never expired, never one that the
//! upstream refused.

use std::{fmt, ops::Deref, sync::Arc, time::Duration};

use arc_swap::Guard;

use crate::{Refusal, Result, Selector, Token};

mod flight;
mod state;
mod watcher;

pub(crate) use self::watcher::Watcher;
use self::{
    flight::{Outcome, Shared},
    state::{Held, State},
};

/// A token that is kept at hand. Cheap to clone; clones share it, and it is let go with the last of them.
///
/// One task per client holds the stream (`WatchTokens`) that brings the tokens of all sources; it reconnects for ever.
/// What the stream does not bring is asked for (`GetToken`). While the broker is away, the last token is handed out until it
/// expires.
#[derive(Clone)]
pub struct TokenSource(Arc<Shared>);

/// A token in passing: keep it for a moment only, and take a [`CurrentToken::to_arc`] for longer.
pub struct CurrentToken(Guard<Option<Arc<Held>>>);

impl TokenSource {
    /// The token, if a valid one is at hand. Takes no lock, allocates nothing, and costs nanoseconds.
    #[must_use]
    #[inline]
    pub fn current(&self) -> Option<CurrentToken> {
        self.0.state.current().map(CurrentToken)
    }

    /// The token; if none is at hand, the broker is asked for it, until the deadline where that may help. However many wait,
    /// one asks.
    ///
    /// Cancel-safe: what was begun goes on, for others.
    ///
    /// # Errors
    ///
    /// What the broker says, or why it cannot be asked.
    pub async fn get(&self) -> Result<Arc<Token>> {
        if let Some(token) = self.current() {
            return Ok(token.to_arc());
        }
        match self.0.renew(None).await? {
            Outcome::Token(token) => Ok(token),
            // Somebody else's report was not believed meanwhile.
            Outcome::Kept => self.current().map(|token| token.to_arc()).ok_or_else(flight::gone),
        }
    }

    /// Reports that the upstream refused a token, and returns its replacement. However many report one token, one call is
    /// made. `None`: the token stays in use, because by the broker's configuration this answer does not mean a dead token, or
    /// because the upstream refuses fresh tokens as well (`TOO_MANY_INVALIDATIONS`), which as a rule means a permission.
    ///
    /// Otherwise a token that was refused with 401 is not handed out again by this source, even if the broker is away.
    ///
    /// Cancel-safe: what was begun goes on, for others.
    ///
    /// # Errors
    ///
    /// What the broker says, or why it cannot be asked.
    pub async fn rejected(&self, token: &Token, refusal: impl Into<Refusal>) -> Result<Option<Arc<Token>>> {
        let refusal = refusal.into();
        if refusal.is_plain() {
            self.0.state.withhold(token.generation, &token.fingerprint);
        }
        if let Some(newer) = self.current().filter(|current| current.generation > token.generation) {
            return Ok(Some(newer.to_arc()));
        }
        match self.0.renew(Some((token.generation, refusal))).await? {
            Outcome::Token(token) => Ok(Some(token)),
            Outcome::Kept => {
                self.0.state.absolve(token.generation);
                Ok(None)
            }
        }
    }

    /// What is kept.
    #[must_use]
    pub fn selector(&self) -> &Selector {
        &self.0.selector
    }
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenSource").field("selector", &self.0.selector).finish_non_exhaustive()
    }
}

impl CurrentToken {
    /// For longer.
    #[must_use]
    pub fn to_arc(&self) -> Arc<Token> {
        Arc::clone(&self.held().token)
    }

    #[inline]
    fn held(&self) -> &Held {
        self.0.as_ref().expect("only a guard of a token is made into this")
    }
}

impl Deref for CurrentToken {
    type Target = Token;

    #[inline]
    fn deref(&self) -> &Token {
        &self.held().token
    }
}

impl fmt::Debug for CurrentToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

/// Builds a [`TokenSource`].
#[must_use]
pub struct SourceBuilder {
    watcher: Arc<Watcher>,
    selector: Selector,
    deadline: Duration,
    on_token: Option<Observer>,
}

pub(crate) type Observer = Box<dyn Fn(&Token) + Send + Sync>;

impl SourceBuilder {
    pub(crate) fn new(watcher: Arc<Watcher>, selector: Selector) -> Self {
        Self { deadline: watcher.deadline(), watcher, selector, on_token: None }
    }

    /// How long [`TokenSource::get`] and [`TokenSource::rejected`] ask for a token while the broker cannot give one.
    /// Default: the client's deadline.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Calls `observe` with each new token, in order, e.g. to keep it in a file. Whoever waits for the token waits for this
    /// as well, so it must not block for long.
    pub fn on_token(mut self, observe: impl Fn(&Token) + Send + Sync + 'static) -> Self {
        self.on_token = Some(Box::new(observe));
        self
    }

    /// The source. The broker is asked at once, in the background.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    #[must_use]
    pub fn build(self) -> TokenSource {
        let state = State::new(self.on_token);
        let shared = Arc::new(Shared::new(Arc::clone(&self.watcher), self.selector, state, self.deadline));
        self.watcher.join(&shared);
        TokenSource(shared)
    }
}

impl fmt::Debug for SourceBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceBuilder").field("selector", &self.selector).finish_non_exhaustive()
    }
}
