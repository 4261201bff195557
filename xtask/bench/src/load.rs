//! The generator of load: one thread that keeps many connections busy, and an honest count of what came of it.
//!
//! It is meant to be alone on a core, and to take a fraction of what the server takes, so that the server is what is
//! measured.

mod histogram;
mod line;
mod plan;
mod schedule;
mod tally;
mod watchers;

#[cfg(test)]
mod tests;

pub(crate) use self::{
    histogram::Histogram,
    plan::{Keys, Pace, Plan},
    tally::Tally,
    watchers::Watchers,
};

use std::{
    collections::VecDeque,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use mio::{Events, Poll, Token};

use self::{line::Line, schedule::Schedule};
use crate::{
    clock::now,
    talk::{Talk, Verdict},
};

/// Connections that are opened before others are waited for: a listener's backlog is finite.
const OPENING: usize = 64;

/// How long connections may take to open.
const PATIENCE: Duration = Duration::from_secs(20);

/// Does it with conversations that `talk` begins, each with so many slots. `cost` is what the server has used so far,
/// asked for when the count begins and when it ends.
pub(crate) fn run<T: Talk>(plan: &Plan, talk: impl Fn(usize) -> T, cost: impl Fn() -> Duration) -> Result<Tally> {
    let mut load = Load::open(plan, talk)?;
    match plan.pace {
        Pace::Once | Pace::Herd => load.once(cost),
        Pace::Closed | Pace::Rate(_) => load.steady(cost),
    }
}

/// Load under way.
struct Load<'a, T> {
    plan: &'a Plan,
    poll: Poll,
    events: Events,
    lines: Vec<Line<T>>,
    rng: fastrand::Rng,
    /// The next cold key, and how many calls were begun.
    cold: u32,
    begun: u32,
    /// Of a fixed rate: what was due and found no free stream, and whose turn it is.
    late: VecDeque<Instant>,
    turn: usize,
    ended: Vec<(usize, Verdict)>,
    /// What counts: from when on.
    since: Option<Instant>,
    tally: Tally,
}

impl<'a, T: Talk> Load<'a, T> {
    fn open(plan: &'a Plan, talk: impl Fn(usize) -> T) -> Result<Self> {
        let cold = plan.keys.cold.map_or(0, |(_, first)| first);
        let mut load = Self {
            plan,
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            lines: vec![],
            rng: fastrand::Rng::with_seed(plan.seed),
            cold,
            begun: 0,
            late: VecDeque::new(),
            turn: 0,
            ended: vec![],
            since: None,
            tally: Tally::default(),
        };
        let deadline = now() + PATIENCE;
        while load.lines.len() < plan.connections {
            for _ in 0..OPENING.min(plan.connections - load.lines.len()) {
                let token = Token(load.lines.len());
                let line = Line::open(plan, talk(plan.streams), load.poll.registry(), token);
                load.lines.push(line.with_context(|| format!("cannot connect to {}", plan.address))?);
            }
            while !load.lines.iter().all(Line::is_open) {
                ensure!(now() < deadline, "{} did not open all connections in {PATIENCE:?}", plan.address);
                ensure!(load.lines.iter().all(Line::is_alive), "{} closed a connection at once", plan.address);
                load.listen(Some(Duration::from_millis(100)), |_, _, _| ())?;
            }
        }
        Ok(load)
    }

    /// Waits for what servers say, and takes it in. Lines with something new are handed to `then`, with the calls that
    /// ended, and flushed.
    fn listen(
        &mut self,
        wait: Option<Duration>,
        mut then: impl FnMut(&mut Self, usize, &[(usize, Verdict)]),
    ) -> Result<bool> {
        let polled = self.poll.poll(&mut self.events, wait);
        if let Err(error) = polled {
            ensure!(error.kind() == std::io::ErrorKind::Interrupted, "cannot wait: {error}");
        }
        let ready: Vec<_> = self.events.iter().map(|event| (event.token().0, event.is_read_closed())).collect();
        for (index, closed) in &ready {
            let mut ended = std::mem::take(&mut self.ended);
            self.lines[*index].read(*closed, &mut ended);
            then(self, *index, &ended);
            self.lines[*index].write();
            ended.clear();
            self.ended = ended;
        }
        Ok(!ready.is_empty())
    }

    /// Counts a call that ended.
    fn count(&mut self, index: usize, slot: usize, verdict: Verdict, at: Instant) {
        let (key, due) = self.lines[index].free(slot);
        let Some(since) = self.since else { return };
        // What was due before the count began is not the measured time's.
        let rated = matches!(self.plan.pace, Pace::Rate(_));
        if rated && due < since {
            return;
        }
        let cold = self.plan.keys.cold.is_some_and(|(_, first)| key >= first);
        self.tally.add(verdict, cold, at.saturating_duration_since(due));
    }

    fn key(&mut self) -> u32 {
        self.begun = self.begun.wrapping_add(1);
        let Keys { first, warm, cold } = self.plan.keys;
        match cold {
            Some((every, _)) if self.begun.is_multiple_of(every) => {
                self.cold += 1;
                self.cold - 1
            }
            _ => self.rng.u32(first..first + warm),
        }
    }

    /// Keeps the pace for the time of the plan.
    fn steady(&mut self, cost: impl Fn() -> Duration) -> Result<Tally> {
        let begin = now();
        let (count_from, end) = (begin + self.plan.warm_up, begin + self.plan.warm_up + self.plan.measured);
        let mut costs = None;
        let mut schedule = match self.plan.pace {
            Pace::Rate(rate) => Some(Schedule::new(begin, rate, self.plan.seed)),
            _ => None,
        };
        if schedule.is_none() {
            (0..self.lines.len()).for_each(|index| self.refill(index, now()));
        }
        loop {
            let at = now();
            if costs.is_none() && at >= count_from {
                costs = Some((cost(), at));
                self.since = Some(count_from);
            }
            if at >= end {
                break;
            }
            ensure!(self.lines.iter().any(Line::is_alive), "{} closed every connection", self.plan.address);
            match &mut schedule {
                Some(schedule) => self.keep(schedule, at)?,
                None => drop(self.listen(Some(Duration::from_millis(5)), Self::again)?),
            }
        }
        let (before, since) = costs.context("the load ended before the count began")?;
        let window = now() - since;
        let spent = cost().saturating_sub(before);
        if let Some(mut schedule) = schedule {
            // A generator that was held up itself makes up for it.
            self.fall_due(&mut schedule, end);
            // What is still out, or never went out, was due and counts; of a closed loop it is the next round's.
            self.drain()?;
        }
        self.since = None;
        Ok(std::mem::take(&mut self.tally).over(window, spent))
    }

    /// A closed loop: what ended begins anew.
    fn again(&mut self, index: usize, ended: &[(usize, Verdict)]) {
        let at = now();
        for (slot, verdict) in ended {
            self.count(index, *slot, *verdict, at);
        }
        self.refill(index, at);
    }

    fn refill(&mut self, index: usize, at: Instant) {
        while self.lines[index].has_free() {
            let key = self.key();
            if !self.lines[index].ask(key, at) {
                break;
            }
        }
        self.lines[index].write();
    }

    /// A fixed rate: makes the calls that are due, and looks for answers.
    fn keep(&mut self, schedule: &mut Schedule, at: Instant) -> Result<()> {
        self.fall_due(schedule, at);
        let sent = self.send_late();
        let heard = self.listen(Some(Duration::ZERO), Self::settle)?;
        if !sent && !heard {
            // Others may have work on this core: the upstream of the broker, for one.
            thread::yield_now();
        }
        Ok(())
    }

    /// Takes note of the calls that are due by some time.
    fn fall_due(&mut self, schedule: &mut Schedule, by: Instant) {
        while let Some(due) = schedule.take(by) {
            self.late.push_back(due);
        }
    }

    fn settle(&mut self, index: usize, ended: &[(usize, Verdict)]) {
        let at = now();
        for (slot, verdict) in ended {
            self.count(index, *slot, *verdict, at);
        }
    }

    /// Sends what is due, in turn over the lines. Whether there was anything that could be sent.
    fn send_late(&mut self) -> bool {
        let mut sent = false;
        'due: while let Some(due) = self.late.front().copied() {
            for _ in 0..self.lines.len() {
                self.turn = (self.turn + 1) % self.lines.len();
                if self.lines[self.turn].has_free() {
                    let key = self.key();
                    if self.lines[self.turn].ask(key, due) {
                        self.lines[self.turn].write();
                        self.late.pop_front();
                        sent = true;
                        continue 'due;
                    }
                }
            }
            break;
        }
        sent
    }

    /// Waits for the answers that are due.
    fn drain(&mut self) -> Result<()> {
        let deadline = now() + self.plan.patience;
        while !self.late.is_empty() || self.lines.iter().any(Line::is_busy) {
            if now() > deadline {
                let left = self.late.len() + self.lines.iter().map(Line::busy).sum::<usize>();
                self.tally.lose(left.try_into()?);
                break;
            }
            self.send_late();
            self.listen(Some(Duration::from_millis(1)), Self::settle)?;
        }
        Ok(())
    }

    /// Makes each call once.
    fn once(&mut self, cost: impl Fn() -> Duration) -> Result<Tally> {
        let (before, since) = (cost(), now());
        self.since = Some(since);
        (0..self.lines.len()).for_each(|index| self.next_keys(index));
        let mut heard = now();
        while self.lines.iter().any(Line::is_busy) {
            ensure!(now() < heard + self.plan.patience, "{} has stopped to answer", self.plan.address);
            let any = self.listen(Some(Duration::from_millis(100)), |this, index, ended| {
                this.settle(index, ended);
                this.next_keys(index);
            })?;
            if any {
                heard = now();
            }
        }
        let (window, spent) = (now() - since, cost().saturating_sub(before));
        Ok(std::mem::take(&mut self.tally).over(window, spent))
    }

    fn next_keys(&mut self, index: usize) {
        let Keys { first, warm, .. } = self.plan.keys;
        let herd = self.plan.pace == Pace::Herd;
        let all = if herd { self.plan.connections * self.plan.streams } else { warm as usize };
        while (self.begun as usize) < all && self.lines[index].has_free() {
            let key = if herd { first } else { first + self.begun };
            if !self.lines[index].ask(key, now()) {
                break;
            }
            self.begun += 1;
        }
        self.lines[index].write();
    }
}
