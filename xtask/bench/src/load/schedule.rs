//! When calls at a fixed rate are due.

use std::time::{Duration, Instant};

/// One call in each interval, at a random moment of it: every round has the same number of calls.
///
/// A strict beat would measure itself: of calls each 250 µs, the answers that take 100 ms come in the moment in which
/// others are due, in every round or in none.
pub(super) struct Schedule {
    begin: Instant,
    /// Calls a second.
    rate: f64,
    rng: fastrand::Rng,
    /// How many calls were handed out, and when the one after them is due.
    taken: u64,
    next: Instant,
}

impl Schedule {
    pub(super) fn new(begin: Instant, rate: f64, seed: u64) -> Self {
        let mut schedule = Self { begin, rate, rng: fastrand::Rng::with_seed(seed), taken: 0, next: begin };
        schedule.next = schedule.draw();
        schedule
    }

    /// The next call, if it is due before some time.
    pub(super) fn take(&mut self, by: Instant) -> Option<Instant> {
        let due = self.next;
        if due >= by {
            return None;
        }
        self.taken += 1;
        self.next = self.draw();
        Some(due)
    }

    fn draw(&mut self) -> Instant {
        self.begin + Duration::from_secs_f64((self.taken as f64 + self.rng.f64()) / self.rate)
    }
}
