//! Brings the tokens of all sources of a client over one stream, which it opens again for ever, on whichever replica is well.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};
use tokio_stream::{StreamExt as _, StreamMap};

use super::{
    flight::Shared,
    state::{Offered, Word},
};
use crate::{Selector, TokenEvent, TokenEvents, TokenUpdate, backoff::Backoff, client, connection::Connection};

/// The pauses between two attempts to open the stream.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// A stream that lived so long was in order.
const PROVEN: Duration = Duration::from_secs(5);

/// How long is waited for more sources before the stream is opened anew for them: their first tokens are asked for anyway.
const SETTLE: Duration = Duration::from_millis(100);

/// The most selectors of one stream.
const SELECTORS: usize = 1000;

/// The clocks of the broker and of this machine are thought to agree if they differ by less, in milliseconds.
const AGREED: i64 = 1000;

/// One per client. It works while there are sources.
#[derive(Debug)]
pub(crate) struct Watcher {
    pub(super) connection: Connection,
    members: Mutex<Members>,
    changed: Notify,
    /// By how many milliseconds the broker's clock is ahead of this machine's.
    ahead: AtomicI64,
}

#[derive(Debug, Default)]
struct Members {
    sources: Vec<Weak<Shared>>,
    works: bool,
}

/// The sources of each selector.
type Sources = HashMap<Selector, Vec<Weak<Shared>>>;

/// Why a stream was left.
enum Left {
    /// There are other sources now.
    Changed,
    /// It ended, or could not be opened.
    Lost,
}

impl Watcher {
    pub(crate) fn new(connection: Connection) -> Arc<Self> {
        let (members, changed) = (Mutex::default(), Notify::new());
        Arc::new(Self { connection, members, changed, ahead: AtomicI64::new(0) })
    }

    pub(super) fn deadline(&self) -> Duration {
        self.connection.deadline
    }

    /// Brings a source up to date from now on, for as long as it lives.
    pub(super) fn join(self: &Arc<Self>, source: &Arc<Shared>) {
        let mut members = self.members();
        members.sources.push(Arc::downgrade(source));
        if members.works {
            self.changed.notify_one();
        } else {
            members.works = true;
            tokio::spawn(Arc::clone(self).work());
        }
    }

    /// See [`Shared`]'s end.
    fn left(&self) {
        self.changed.notify_one();
    }

    pub(super) fn note_clock(&self, ahead: i64) {
        self.ahead.store(if ahead.abs() < AGREED { 0 } else { ahead }, Ordering::Relaxed);
    }

    pub(super) fn clock_ahead(&self) -> i64 {
        self.ahead.load(Ordering::Relaxed)
    }

    /// Works until there is no source.
    async fn work(self: Arc<Self>) {
        let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
        while let Some(sources) = self.sources() {
            let begun = Instant::now();
            match self.follow(&sources).await {
                Left::Changed => {
                    sleep(SETTLE).await;
                    backoff.reset();
                }
                Left::Lost => {
                    if begun.elapsed() >= PROVEN {
                        backoff.reset();
                    }
                    ask_for_due(&sources);
                    tokio::select! {
                        () = sleep(backoff.pause()) => {}
                        () = self.changed.notified() => {}
                    }
                }
            }
        }
    }

    /// The sources that live, or none, after which somebody else has to begin to work.
    fn sources(&self) -> Option<Sources> {
        let mut members = self.members();
        let mut sources = Sources::new();
        members.sources.retain(|member| member.strong_count() > 0);
        for (member, source) in members.sources.iter().filter_map(|member| Some((member, member.upgrade()?))) {
            sources.entry(source.selector.clone()).or_default().push(Weak::clone(member));
        }
        members.works = !sources.is_empty();
        members.works.then_some(sources)
    }

    /// Hands on what the stream brings, until it ends or does not fit the sources any more.
    async fn follow(&self, sources: &Sources) -> Left {
        let mut streams = StreamMap::new();
        let selectors: Vec<Selector> = sources.keys().cloned().collect();
        for (number, page) in selectors.chunks(SELECTORS).enumerate() {
            let opened = tokio::select! {
                opened = client::watch(&self.connection, page.iter().cloned()) => opened,
                () = self.changed.notified() => return Left::Changed,
            };
            let Ok(stream) = opened else { return Left::Lost };
            streams.insert(number, ended_by(stream));
        }
        loop {
            tokio::select! {
                event = streams.next() => match event {
                    Some((_, Some(event))) => hand_on(sources, &event),
                    _ => return Left::Lost,
                },
                () = self.changed.notified() => return Left::Changed,
            }
        }
    }

    fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.watcher.left();
    }
}

/// A stream that says when it ends: the map of streams forgets one that has ended without a word.
fn ended_by(events: TokenEvents) -> impl tokio_stream::Stream<Item = Option<TokenEvent>> + Unpin {
    events.map(Result::ok).chain(tokio_stream::once(None))
}

fn hand_on(sources: &Sources, event: &TokenEvent) {
    let members = sources.get(&event.selector).map(Vec::as_slice).unwrap_or_default();
    for source in members.iter().filter_map(Weak::upgrade) {
        match &event.update {
            TokenUpdate::Token(token) => {
                if source.take(token.clone(), Word::Stream) == Offered::Older {
                    ask(&source);
                }
            }
            TokenUpdate::Invalidated { min_generation } => source.state.raise_floor(*min_generation),
            // Whoever asks hears why.
            TokenUpdate::Unavailable(_) => {}
        }
    }
}

/// Without the stream a source asks for what will be needed soon.
fn ask_for_due(sources: &Sources) {
    for source in sources.values().flatten().filter_map(Weak::upgrade) {
        if source.state.is_due() {
            ask(&source);
        }
    }
}

fn ask(source: &Arc<Shared>) {
    let source = Arc::clone(source);
    // Nobody waits for it; what it brings is taken.
    tokio::spawn(async move { source.renew(None).await });
}
