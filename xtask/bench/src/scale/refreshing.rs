//! A hundred thousand credentials that are refreshed ahead: what that costs, and how evenly it is spread.

use std::{thread, time::Duration};

use anyhow::{Context as _, Result};

use super::Findings;
use crate::{
    clock::now,
    contenders::{Host, Name, Tokencached},
};

/// The lifetime that the promise is made for.
const PROMISED: Duration = Duration::from_secs(3600);

/// Tokens of that lifetime are refreshed a quarter of it before they expire.
const WINDOW: u32 = 4;

/// When the first is due, as a share of the lifetime: all were minted because they were needed.
const FIRST: f64 = 0.4;

/// What the refreshes of one generation did.
#[derive(Clone, Debug)]
pub(crate) struct Refreshed {
    pub(crate) credentials: u32,
    /// How long tokens were valid here.
    pub(crate) lifetime: Duration,
    /// How long it took to get the first token of each.
    pub(crate) minting: Duration,
    /// CPU of one refresh, in microseconds.
    pub(crate) cost: f64,
    /// Refreshes in each second.
    pub(crate) seconds: Vec<u64>,
    /// How long the broker took to start, with so many credentials in its configuration.
    pub(crate) start: Duration,
}

impl Refreshed {
    /// The share of a core, with tokens of the promised lifetime.
    pub(crate) fn share(&self) -> f64 {
        f64::from(self.credentials) / (PROMISED.as_secs_f64() * self.turn()) * self.cost / 1e6
    }

    /// The peak second over the mean of the whole turn from one refresh of a token to its next.
    pub(crate) fn peak(&self) -> f64 {
        let peak = self.seconds.iter().max().copied().unwrap_or(0);
        peak as f64 / (f64::from(self.credentials) / (self.lifetime.as_secs_f64() * self.turn()))
    }

    /// How much of its lifetime a token is served: all but the window and half of the jitter.
    #[expect(clippy::unused_self, reason = "it belongs to the other figures")]
    fn turn(&self) -> f64 {
        1.0 - 1.0 / f64::from(WINDOW) - 0.05
    }
}

/// Measures with so many credentials, and lifetimes that are scaled down.
pub(super) fn measure(host: &Host, credentials: u32, lifetime: Duration, findings: &mut Findings) -> Result<()> {
    let setup = Tokencached { credentials, refresh_window: Some(lifetime / WINDOW), ..Tokencached::open("refresh") };
    host.upstream.set_lifetime(lifetime);
    let begun = now();
    let broker = setup.start(host, Name::Tokencached)?;
    let start = begun.elapsed();
    println!("{credentials} credentials: started in {:.1} s", start.as_secs_f64());
    let minted = now();
    broker.ask_all(credentials)?;
    let minting = minted.elapsed();
    println!("{credentials} tokens minted in {:.1} s", minting.as_secs_f64());

    // From the first that can be due to the last that can be, unless minting alone takes longer than that.
    let first = minted + lifetime.mul_f64(FIRST);
    thread::sleep(first.saturating_duration_since(now()));
    let end = minted + minting + lifetime.mul_f64(1.0 - 1.0 / f64::from(WINDOW)) + Duration::from_secs(1);
    let (before, spent) = (host.upstream.calls(), broker.family.cpu());
    let (mut seconds, mut seen, mut next) = (vec![], before, now());
    while now() < end {
        next += Duration::from_secs(1);
        thread::sleep(next.saturating_duration_since(now()));
        let calls = host.upstream.calls();
        seconds.push(calls - seen);
        seen = calls;
    }
    let spent = broker.family.cpu() - spent;
    let refreshes = seen - before;
    let cost = spent.as_secs_f64() * 1e6 / refreshes.max(1) as f64;
    println!("{refreshes} refreshes, {cost:.0} µs each");
    (refreshes > 0).then_some(()).context("nothing was refreshed")?;
    host.upstream.set_lifetime(Duration::from_secs(30 * 24 * 3600));
    findings.refreshed = Some(Refreshed { credentials, lifetime, minting, cost, seconds, start });
    Ok(())
}
