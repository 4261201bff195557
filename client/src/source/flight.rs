//! Asks the broker for a token: once, however many wait, and in a task of its own, so that none of them can call it off.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::{
    Watcher,
    state::{Offered, State, Word},
};
use crate::{
    Error, ErrorKind, Freshness, GetToken, Refusal, Rejection, Result, Selector, Token,
    backoff::{Backoff, up_to},
    client, clock,
};

/// The pauses between two attempts, where the broker names none.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// How long an error that only a person can mend is remembered, so that a loop does not become a storm.
const REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(60);

/// The broker's reason where an upstream refuses fresh tokens: it does not take this report for a dead token.
const UNBELIEVED: &str = "TOO_MANY_INVALIDATIONS";

/// A source: its state, and how it is brought up to date.
pub(crate) struct Shared {
    pub(super) watcher: Arc<Watcher>,
    pub(super) selector: Selector,
    pub(super) state: State,
    deadline: Duration,
    flight: Mutex<Option<Flight>>,
}

/// A question that is under way, or that was answered with an error a moment ago.
struct Flight {
    /// The generation that it reports; 0: none.
    reports: u64,
    landed: watch::Receiver<Option<Result<Outcome>>>,
    /// Until when its error stands for others.
    rests_until: Option<Instant>,
}

impl Flight {
    /// Whether somebody who reports this generation may join. What is under way takes everybody, who then looks whether it
    /// was for them; an error stands for a while for all who ask for the same.
    fn takes(&self, reports: u64) -> bool {
        match &*self.landed.borrow() {
            None => true,
            Some(Ok(Outcome::Kept)) if reports == 0 => false,
            Some(_) => self.reports >= reports && self.rests_until.is_some_and(|until| Instant::now() < until),
        }
    }
}

/// How long an outcome stands for others.
fn rest(outcome: &Result<Outcome>) -> Option<Duration> {
    match outcome {
        Err(error) if !error.is_transient() => Some(error.retry_after().unwrap_or(REST).min(LONGEST_REST)),
        _ => None,
    }
}

pub(super) fn gone() -> Error {
    Error::new(ErrorKind::Unavailable, "the token was refused or has expired while it arrived")
}

/// What came of asking.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// This is the token.
    Token(Arc<Token>),
    /// The refusal does not mean a dead token.
    Kept,
}

impl Shared {
    pub(super) fn new(watcher: Arc<Watcher>, selector: Selector, state: State, deadline: Duration) -> Self {
        Self { watcher, selector, state, deadline, flight: Mutex::default() }
    }

    /// Asks for a token, and reports the one that was refused.
    pub(super) async fn renew(self: &Arc<Self>, report: Option<(u64, Refusal)>) -> Result<Outcome> {
        let reported = report.as_ref().map_or(0, |(generation, _)| *generation);
        loop {
            let (mut landed, covers) = self.join(report.as_ref());
            let outcome = match landed.wait_for(Option::is_some).await {
                Ok(outcome) => outcome.clone().expect("it was waited for"),
                Err(_) => Err(Error::new(ErrorKind::Internal, "the runtime ended before the broker was asked")),
            };
            if covers {
                return outcome;
            }
            // It asked before this refusal; its answer may do all the same.
            if let Some(token) = self.state.above(reported) {
                return Ok(Outcome::Token(token));
            }
        }
    }

    /// Boards the flight that is under way, or begins one. Whether it reports what is to be reported.
    fn join(self: &Arc<Self>, report: Option<&(u64, Refusal)>) -> (watch::Receiver<Option<Result<Outcome>>>, bool) {
        let reports = report.map_or(0, |(generation, _)| *generation);
        let mut flight = self.flight.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = &*flight
            && flight.takes(reports)
        {
            return (flight.landed.clone(), flight.reports >= reports);
        }
        let (land, landed) = watch::channel(None);
        *flight = Some(Flight { reports, landed: landed.clone(), rests_until: None });
        let (shared, report) = (Arc::clone(self), report.cloned());
        tokio::spawn(async move {
            let outcome = shared.fly(report).await;
            let mut flight = shared.flight.lock().unwrap_or_else(PoisonError::into_inner);
            match (rest(&outcome), &mut *flight) {
                (Some(rest), Some(flight)) => flight.rests_until = Some(Instant::now() + rest),
                _ => *flight = None,
            }
            drop(flight);
            let unbelieved = |error: &Error| reports != 0 && error.reason() == Some(UNBELIEVED);
            land.send_replace(Some(match outcome {
                Err(error) if unbelieved(&error) => Ok(Outcome::Kept),
                outcome => outcome,
            }));
        });
        (landed, true)
    }

    /// Asks until there is an answer that waiting does not better.
    async fn fly(&self, report: Option<(u64, Refusal)>) -> Result<Outcome> {
        let until = Instant::now() + self.deadline;
        let reported = report.as_ref().map_or(0, |(generation, _)| *generation);
        let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
        let mut taken = self.state.subscribe();
        loop {
            let error = match self.ask(report.as_ref()).await {
                Err(error) if error.is_transient() => error,
                done => return done,
            };
            let pause = error.retry_after().map_or_else(|| backoff.pause(), |delay| delay + up_to(delay / 4));
            if Instant::now() + pause >= until {
                return Err(error);
            }
            tokio::select! {
                () = sleep(pause) => {}
                Ok(()) = taken.changed() => {}
            }
            // The stream may have brought it.
            if let Some(token) = self.state.above(reported) {
                return Ok(Outcome::Token(token));
            }
        }
    }

    async fn ask(&self, report: Option<&(u64, Refusal)>) -> Result<Outcome> {
        let connection = &self.watcher.connection;
        if let Some((generation, refusal)) = report
            && !refusal.is_plain()
        {
            let rejection = refusal.rejection(Rejection::of_generation(self.selector.clone(), *generation));
            let answer = client::invalidate(connection, rejection).await?;
            if answer.min_generation <= *generation {
                return Ok(Outcome::Kept);
            }
            self.state.raise_floor(answer.min_generation);
        }
        let (named, refused) = self.state.highest();
        let get = GetToken::of(self.selector.clone());
        let conditional = match refused {
            true => get.clone().rejected_generation(named),
            false => get.clone().if_generation_not(named),
        };
        // Before the call, so that its duration makes a token expire too early rather than too late.
        let asked_at = clock::now_millis();
        let mut answer = client::get_token(connection, conditional).await?;
        if answer.token.is_none() && self.state.current().is_none() {
            // What the broker calls current has expired here: it is needed again, with the broker's time.
            answer = client::get_token(connection, get).await?;
        }
        if let Some(time) = answer.server_time {
            self.watcher.note_clock(clock::millis(time).saturating_sub(asked_at));
        }
        if let Some(token) = answer.token {
            let verified = answer.freshness == Freshness::Verified;
            match self.take(token, Word::Answer { named, verified }) {
                Offered::Taken | Offered::Known => {}
                Offered::Older if self.state.above(0).is_some() => {}
                Offered::Older => {
                    let message = "the replica that answered knows only a token that the upstream refused";
                    return Err(Error::new(ErrorKind::Unavailable, message));
                }
                Offered::Expired => {
                    let message = "the broker's token has expired on this machine's clock: compare the clocks";
                    return Err(Error::new(ErrorKind::Unavailable, message));
                }
            }
        }
        let token = self.state.above(0);
        token.map(Outcome::Token).ok_or_else(gone)
    }

    pub(super) fn take(&self, token: Token, word: Word) -> Offered {
        self.state.offer(token, word, self.watcher.clock_ahead())
    }
}
