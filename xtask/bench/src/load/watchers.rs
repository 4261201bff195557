//! Streams that stay open, and what arrives on them.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{Load, Plan};
use crate::{
    clock::now,
    talk::{Talk, Verdict},
};

/// Open streams.
pub(crate) struct Watchers<'a, T> {
    load: Load<'a, T>,
}

/// What arrived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrived {
    pub(crate) messages: u64,
    /// Since the process began, as `Instant`s are.
    pub(crate) first: Instant,
    pub(crate) last: Instant,
}

impl<'a, T: Talk> Watchers<'a, T> {
    /// Opens every stream of a plan, each with the plan's first key.
    pub(crate) fn open(plan: &'a Plan, talk: impl Fn(usize) -> T) -> Result<Self> {
        let mut load = Load::open(plan, talk)?;
        let key = plan.keys.first;
        for line in &mut load.lines {
            while line.has_free() {
                ensure!(line.ask(key, now()), "the server takes too little");
            }
            line.write();
        }
        Ok(Self { load })
    }

    /// Waits for so many messages over all streams, and then as long as `after` for one too many. Anything but a message
    /// is an error.
    pub(crate) fn wait_for(&mut self, messages: u64, patience: Duration, after: Duration) -> Result<Arrived> {
        let begun = now();
        let mut arrived = Arrived { messages: 0, first: begun, last: begun };
        let mut fault = None;
        loop {
            let late = arrived.messages >= messages && now() > arrived.last + after;
            if late || now() > begun + patience {
                return Ok(arrived);
            }
            self.load.listen(Some(Duration::from_millis(5)), |_, _, ended| {
                let at = now();
                for (_, verdict) in ended {
                    match verdict {
                        Verdict::Right(_) => {
                            if arrived.messages == 0 {
                                arrived.first = at;
                            }
                            (arrived.messages, arrived.last) = (arrived.messages + 1, at);
                        }
                        other => fault = Some(*other),
                    }
                }
            })?;
            if let Some(fault) = fault {
                anyhow::bail!("a watch ended: {fault}");
            }
        }
    }
}
