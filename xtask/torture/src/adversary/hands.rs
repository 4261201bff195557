//! The adversary's hands: they carry out what was decided, at most one deed of a kind at a time for each replica, and
//! undo it.

use std::{
    os::unix::process::ExitStatusExt as _,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Result, ensure};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::{sync::Mutex as AsyncMutex, time::sleep};

use super::Damage;
use crate::{
    database::Deed,
    fleet::Fleet,
    proxy::{Proxy, Weather},
};

/// SIGKILL, SIGTERM.
const KILLED: i32 = 9;
const TERMINATED: i32 = 15;

/// A younger process may not have come to taking signals yet: it has begun nothing that it would have to end.
const NEWBORN: Duration = Duration::from_secs(2);

/// How often it is looked whether a replica has ended by itself.
const LOOK: Duration = Duration::from_millis(100);

/// The points of a refresh, and how long a flight may stand still there at most, in milliseconds. From the journalling of
/// an intent to its call it is short: successors count the time of the call from the journal.
const POINTS: [(&str, u64); 9] = [
    ("before-claim", 4000),
    ("after-claim", 4000),
    ("before-intent", 4000),
    ("after-intent", 900),
    ("before-post", 900),
    ("after-post", 4000),
    ("before-commit", 4000),
    ("after-commit", 4000),
    ("before-release", 4000),
];

/// What is done to a replica's process.
#[derive(Clone, Copy, Debug)]
pub(super) enum Blow {
    /// SIGKILL, and started again after a while.
    Kill(Duration),
    /// SIGSTOP, and SIGCONT after a while.
    Stop(Duration),
    /// SIGTERM, and started again.
    Terminate,
}

/// A way out of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    Database,
    Upstream,
}

/// What the deeds under way share.
#[derive(Debug)]
pub(super) struct Hands {
    fleet: Arc<Fleet>,
    processes: Vec<AsyncMutex<()>>,
    networks: Vec<AsyncMutex<()>>,
    upstreams: Vec<AsyncMutex<()>>,
    database: AsyncMutex<()>,
    damage: Mutex<Damage>,
    /// Draws at which points of a refresh a life fails; `None`: at none.
    fates: Option<Mutex<StdRng>>,
}

impl Hands {
    pub(super) fn new(fleet: Arc<Fleet>, seed: u64, failpoints: bool) -> Self {
        let one_each = || fleet.replicas.iter().map(|_| AsyncMutex::new(())).collect();
        Self {
            processes: one_each(),
            networks: one_each(),
            upstreams: one_each(),
            database: AsyncMutex::default(),
            damage: Mutex::default(),
            fates: failpoints.then(|| Mutex::new(StdRng::seed_from_u64(seed))),
            fleet,
        }
    }

    /// What was done so far; forgets it.
    pub(super) fn damage(&self) -> Damage {
        std::mem::take(&mut *self.damage.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Strikes a replica, unless it is being hurt in this way already, and undoes it after a while.
    pub(super) async fn strike(&self, index: usize, blow: Blow, point: &str) {
        let Ok(_guard) = self.processes[index].try_lock() else { return };
        let name = match blow {
            Blow::Kill(_) => format!("kill -9 {point}"),
            Blow::Stop(_) => format!("stop {point}"),
            Blow::Terminate => "terminate".to_owned(),
        };
        let begun = self.begin(&name, &format!("r{index} {point}"));
        let done = self.carry_out(index, blow).await;
        self.end(begun, done);
    }

    async fn carry_out(&self, index: usize, blow: Blow) -> Result<()> {
        let replica = &self.fleet.replicas[index];
        match blow {
            Blow::Kill(down) => {
                replica.kill().await?;
                sleep(down).await;
                self.start(index).await
            }
            Blow::Stop(pause) => {
                replica.signal("STOP").await?;
                sleep(pause).await;
                replica.signal("CONT").await
            }
            Blow::Terminate => {
                let newborn = replica.age() < NEWBORN;
                let ended = replica.terminate().await;
                self.start(index).await?;
                let Some(status) = ended? else { return Ok(()) };
                let by_itself = self.fates.is_some() && status.signal() == Some(KILLED);
                let too_early = newborn && status.signal() == Some(TERMINATED);
                ensure!(status.success() || by_itself || too_early, "it ended with {status}");
                Ok(())
            }
        }
    }

    /// Spoils a replica's way to the database or to the upstream for a while.
    pub(super) async fn spoil(&self, link: Link, index: usize, weather: Weather, time: Duration) {
        let (guards, proxies, words): (_, &[Proxy], _) = match link {
            Link::Database => (&self.networks, &self.fleet.proxies, "network"),
            Link::Upstream => (&self.upstreams, &self.fleet.upstreams, "upstream network"),
        };
        let Ok(_guard) = guards[index].try_lock() else { return };
        let name = match weather {
            Weather::Slow(_) => format!("{words} slow"),
            weather => format!("{words} {weather:?}").to_lowercase(),
        };
        let begun = self.begin(&name, &format!("r{index} "));
        proxies[index].set(weather);
        sleep(time).await;
        proxies[index].set(Weather::Fair);
        self.end(begun, Ok(()));
    }

    /// Does something to the database's servers, unless something is being done to them.
    pub(super) async fn hurt_database(&self, deed: Deed) {
        let Ok(_guard) = self.database.try_lock() else { return };
        if !self.fleet.database.can_be_hurt() {
            return;
        }
        let begun = self.begin(deed.name(), "database");
        let done = self.fleet.hurt_database(deed).await;
        self.end(begun, done);
    }

    /// Starts anew whatever replica has ended by itself, for ever.
    pub(super) async fn revive(&self) {
        loop {
            for (index, guard) in self.processes.iter().enumerate() {
                if let Ok(_guard) = guard.try_lock() {
                    self.look_after(index).await;
                }
            }
            sleep(LOOK).await;
        }
    }

    async fn look_after(&self, index: usize) {
        match self.fleet.replicas[index].bury().await {
            Ok(None) => return,
            Ok(Some(status)) if self.fates.is_some() && status.signal() == Some(KILLED) => {
                let begun = self.begin("kill -9 by itself at a point of a refresh", &format!("r{index} "));
                self.end(begun, Ok(()));
            }
            Ok(Some(status)) => self.fail(format!("r{index} ended by itself with {status}")),
            Err(error) => self.fail(format!("looking at r{index}: {error:#}")),
        }
        if let Err(error) = self.start(index).await {
            self.fail(format!("starting r{index}: {error:#}"));
        }
    }

    /// Ends the lives that fail by themselves, and starts sound ones.
    pub(super) async fn make_sound(&self) {
        if self.fates.is_none() {
            return;
        }
        for (index, replica) in self.fleet.replicas.iter().enumerate() {
            replica.set_failpoints("");
            let begun = self.begin("kill -9 at the end", &format!("r{index} "));
            let done = async {
                replica.kill().await?;
                replica.start().await
            };
            let done = done.await;
            self.end(begun, done);
        }
    }

    /// Starts the next life of a replica, with its fate.
    async fn start(&self, index: usize) -> Result<()> {
        let replica = &self.fleet.replicas[index];
        if let Some(fates) = &self.fates {
            let fate = draw_fate(&mut fates.lock().unwrap_or_else(PoisonError::into_inner));
            replica.set_failpoints(&fate);
        }
        replica.start().await
    }

    /// Notes the beginning of a deed.
    fn begin(&self, name: &str, target: &str) -> (String, String) {
        let mut damage = self.damage.lock().unwrap_or_else(PoisonError::into_inner);
        *damage.deeds.entry(name.to_owned()).or_default() += 1;
        drop(damage);
        self.fleet.history.fault(name, target);
        (name.to_owned(), target.to_owned())
    }

    /// Notes the end of a deed.
    fn end(&self, (name, target): (String, String), done: Result<()>) {
        if let Err(error) = done {
            self.fail(format!("{name}, {target}: {error:#}"));
        }
        self.fleet.history.fault(&format!("end of {name}"), &target);
    }

    fn fail(&self, text: String) {
        self.damage.lock().unwrap_or_else(PoisonError::into_inner).failures.push(text);
    }
}

/// At which points a life fails: as a rule at two, by a kill in one of some dozens of refreshes or a pause in one of some.
fn draw_fate(rng: &mut StdRng) -> String {
    let orders = (0..2).map(|_| {
        let (point, longest) = POINTS[rng.random_range(0..POINTS.len())];
        if rng.random_bool(0.7) {
            format!("{point}=kill@{:.3}", rng.random_range(0.01..0.08))
        } else {
            format!("{point}=pause:{}ms@{:.3}", rng.random_range(50..=longest), rng.random_range(0.02..0.15))
        }
    });
    orders.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fate_is_repeated_by_its_seed_and_reads_as_the_broker_wants_it() {
        let fate = |seed| draw_fate(&mut StdRng::seed_from_u64(seed));
        assert_eq!(fate(1), fate(1));
        let fates: Vec<String> = (0..50).map(fate).collect();
        for order in fates.iter().flat_map(|fate| fate.split(',')) {
            let (point, rest) = order.split_once('=').expect("POINT=ACTION");
            assert!(POINTS.iter().any(|(known, _)| *known == point), "{order}");
            let (action, probability) = rest.split_once('@').expect("ACTION@PROBABILITY");
            assert!(action == "kill" || (action.starts_with("pause:") && action.ends_with("ms")), "{order}");
            assert!(probability.parse::<f64>().is_ok_and(|p| p > 0.0 && p < 1.0), "{order}");
        }
    }
}
