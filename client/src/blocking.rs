//! For programs without an async runtime: a handle whose calls block, with a thread of its own that keeps the token fresh.
//!
//! ```no_run
//! use tokencache_client::{Client, Refusal, blocking::BlockingSource};
//!
//! # fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let source = BlockingSource::new(Client::builder().endpoint("http://127.0.0.1:50051"), "github-ci")?;
//! let session = ureq::Agent::new_with_config(ureq::Agent::config_builder().http_status_as_error(false).build());
//! let answer = source.send(
//!     |token| session.get("https://api.example/user").header("authorization", token.authorization().expose()).call(),
//!     |answer| (answer.status() == 401).then(|| Refusal::status(401)),
//! )??;
//! # Ok(()) }
//! ```

use std::{fmt, sync::Arc, thread};

use tokio::{
    runtime::{Builder as RuntimeBuilder, Handle},
    sync::oneshot,
};

use crate::{Builder, CurrentToken, Error, ErrorKind, Refusal, Result, Selector, SourceBuilder, Token, TokenSource};

/// A [`TokenSource`] whose calls block. Cheap to clone; the thread ends with the last clone.
///
/// Not for use inside an async runtime, whose threads it would hold up: use [`TokenSource`] there.
#[derive(Clone)]
pub struct BlockingSource {
    source: TokenSource,
    runtime: Handle,
    max_replays: u32,
    _thread: Arc<Running>,
}

/// Ends the thread when it is dropped.
struct Running(Option<(oneshot::Sender<()>, thread::JoinHandle<()>)>);

impl BlockingSource {
    /// Keeps a token at hand.
    ///
    /// # Errors
    ///
    /// As [`Builder::build`]; [`ErrorKind::Internal`] if the operating system gives no thread.
    pub fn new(client: Builder, selector: impl Into<Selector>) -> Result<Self> {
        Self::with(client, selector, |source| source)
    }

    /// The same, with options of the source.
    ///
    /// # Errors
    ///
    /// As [`BlockingSource::new`].
    pub fn with(
        client: Builder,
        selector: impl Into<Selector>,
        options: impl FnOnce(SourceBuilder) -> SourceBuilder,
    ) -> Result<Self> {
        let system = |error: std::io::Error| Error::new(ErrorKind::Internal, format!("cannot start a thread: {error}"));
        let runtime = RuntimeBuilder::new_current_thread().enable_all().build().map_err(system)?;
        let handle = runtime.handle().clone();
        let source = {
            let _inside = handle.enter();
            options(client.build()?.source_builder(selector)).build()
        };
        let (stop, stopped) = oneshot::channel();
        let run = move || drop(runtime.block_on(stopped));
        let thread = thread::Builder::new().name("tokencache".into()).spawn(run).map_err(system)?;
        Ok(Self { source, runtime: handle, max_replays: 1, _thread: Arc::new(Running(Some((stop, thread)))) })
    }

    /// How often [`BlockingSource::send`] sends a request again at most. Default: 1.
    #[must_use]
    pub fn max_replays(mut self, replays: u32) -> Self {
        self.max_replays = replays;
        self
    }

    /// The token, if a valid one is at hand. Does not block.
    #[must_use]
    pub fn current(&self) -> Option<CurrentToken> {
        self.source.current()
    }

    /// As [`TokenSource::get`].
    ///
    /// # Errors
    ///
    /// As [`TokenSource::get`].
    pub fn get(&self) -> Result<Arc<Token>> {
        match self.current() {
            Some(token) => Ok(token.to_arc()),
            None => self.runtime.block_on(self.source.get()),
        }
    }

    /// As [`TokenSource::rejected`].
    ///
    /// # Errors
    ///
    /// As [`TokenSource::rejected`].
    pub fn rejected(&self, token: &Token, refusal: impl Into<Refusal>) -> Result<Option<Arc<Token>>> {
        self.runtime.block_on(self.source.rejected(token, refusal))
    }

    /// Sends a request with the token, and again with another one where `refused` says so of the answer. The last answer is
    /// returned, whatever it is.
    ///
    /// # Errors
    ///
    /// If there is no token to begin with.
    pub fn send<T>(&self, send: impl Fn(&Token) -> T, refused: impl Fn(&T::Answer) -> Option<Refusal>) -> Result<T>
    where
        T: Sent,
    {
        let mut token = self.get()?;
        let mut replays = 0;
        loop {
            let sent = send(&token);
            let Some(refusal) = sent.answer().and_then(&refused).filter(|_| replays < self.max_replays.max(1)) else {
                return Ok(sent);
            };
            match self.rejected(&token, refusal) {
                Ok(Some(newer)) if replays < self.max_replays => token = newer,
                _ => return Ok(sent),
            }
            replays += 1;
        }
    }
}

/// What became of sending a request: a result, of which only an answer can be a refusal.
pub trait Sent {
    /// The upstream's answer.
    type Answer;

    /// The answer, if there was one.
    fn answer(&self) -> Option<&Self::Answer>;
}

impl<A, E> Sent for Result<A, E> {
    type Answer = A;

    fn answer(&self) -> Option<&A> {
        self.as_ref().ok()
    }
}

impl fmt::Debug for BlockingSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockingSource").field("source", &self.source).finish_non_exhaustive()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.0.take() {
            // An error says that the thread has ended.
            let _ = stop.send(());
            let _ = thread.join();
        }
    }
}
