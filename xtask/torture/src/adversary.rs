//! What is done to the fleet, drawn from the seed: kills, stops, a database that crashes or stalls, networks that fail.
//!
//! The seed repeats what is done and in which order; the processes keep their own time.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::{
    sync::{Mutex as AsyncMutex, mpsc},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{fleet::Fleet, idp::Step, proxy::Weather};

/// How long a blow that is aimed at a step waits for a rotation to come to that step.
const AIM: Duration = Duration::from_secs(3);

/// What is done to a replica.
#[derive(Clone, Copy, Debug)]
enum Blow {
    /// SIGKILL, and started again after a while.
    Kill(Duration),
    /// SIGSTOP, and SIGCONT after a while.
    Stop(Duration),
    /// SIGTERM, and started again.
    Terminate,
    /// Its way to the database, for a while.
    Network(Weather, Duration),
}

/// What was done, in counts, and what went wrong that must not.
#[derive(Clone, Debug, Default)]
pub(crate) struct Damage {
    pub(crate) deeds: BTreeMap<String, u64>,
    pub(crate) failures: Vec<String>,
}

/// The adversary. Nothing is broken any more when [`Self::run`] has returned.
#[derive(Debug)]
pub(crate) struct Adversary {
    fleet: Arc<Fleet>,
    blows: mpsc::UnboundedReceiver<(Step, usize)>,
    rng: StdRng,
    /// The longest time between two deeds, in milliseconds.
    pause: u64,
    hands: Arc<Hands>,
}

/// What the deeds under way share.
#[derive(Debug)]
struct Hands {
    fleet: Arc<Fleet>,
    /// One deed at a time for each replica's process, for each network, and for the database.
    processes: Vec<Arc<AsyncMutex<()>>>,
    networks: Vec<Arc<AsyncMutex<()>>>,
    database: Arc<AsyncMutex<()>>,
    damage: Mutex<Damage>,
}

impl Adversary {
    /// One that will act on `fleet`, with randomness of its own.
    pub(crate) fn new(
        fleet: Arc<Fleet>,
        blows: mpsc::UnboundedReceiver<(Step, usize)>,
        seed: u64,
        pause: Duration,
    ) -> Self {
        let one_each = || fleet.replicas.iter().map(|_| Arc::default()).collect();
        let pause = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        let hands = Hands {
            fleet: Arc::clone(&fleet),
            processes: one_each(),
            networks: one_each(),
            database: Arc::default(),
            damage: Mutex::default(),
        };
        Self { fleet, blows, rng: StdRng::seed_from_u64(seed), pause, hands: Arc::new(hands) }
    }

    /// Does one thing after the other, some of them at the same time, until it is told to stop; then waits until all
    /// are undone.
    pub(crate) async fn run(mut self, stop: Arc<AtomicBool>) -> Damage {
        let mut deeds = JoinSet::new();
        while !stop.load(Ordering::Relaxed) {
            let pause = self.rng.random_range(self.pause / 10..=self.pause);
            sleep(Duration::from_millis(pause)).await;
            self.act(&mut deeds).await;
        }
        self.fleet.idp.arm(None);
        while deeds.join_next().await.is_some() {}
        std::mem::take(&mut *self.hands.damage.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn act(&mut self, deeds: &mut JoinSet<()>) {
        let replica = self.rng.random_range(0..self.fleet.replicas.len());
        let hands = Arc::clone(&self.hands);
        match self.rng.random_range(0..93) {
            0..35 => self.aim(deeds).await,
            35..60 => {
                let blow = self.blow();
                deeds.spawn(async move { hands.strike(replica, blow, "at any time").await });
            }
            60..80 => {
                let blow = self.weather();
                deeds.spawn(async move { hands.strike(replica, blow, "").await });
            }
            80..88 => drop(deeds.spawn(async move { hands.crash_database().await })),
            _ => {
                let pause = self.between(100, 3000);
                deeds.spawn(async move { hands.pause_database(pause).await });
            }
        }
    }

    /// Strikes the replica whose rotation comes next to a step, at that step.
    async fn aim(&mut self, deeds: &mut JoinSet<()>) {
        let step = [Step::Received, Step::Rotated, Step::Answered][self.rng.random_range(0..3)];
        let blow = self.blow();
        let late = Duration::from_micros(if step == Step::Answered { self.rng.random_range(0..8000) } else { 0 });
        while self.blows.try_recv().is_ok() {}
        self.fleet.idp.arm(Some(step));
        let Ok(Some((step, replica))) = timeout(AIM, self.blows.recv()).await else {
            self.fleet.idp.arm(None);
            return;
        };
        let hands = Arc::clone(&self.hands);
        deeds.spawn(async move {
            sleep(late).await;
            hands.strike(replica, blow, &format!("at {step:?}").to_lowercase()).await;
        });
    }

    fn blow(&mut self) -> Blow {
        match self.rng.random_range(0..10) {
            0..5 => Blow::Kill(self.between(0, 1500)),
            5..9 => Blow::Stop(self.between(100, 8000)),
            _ => Blow::Terminate,
        }
    }

    fn weather(&mut self) -> Blow {
        let weather = match self.rng.random_range(0..3) {
            0 => Weather::Cut,
            1 => Weather::Stalled,
            _ => Weather::Slow(self.between(5, 200)),
        };
        Blow::Network(weather, self.between(100, 5000))
    }

    fn between(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.rng.random_range(from..=to))
    }
}

impl Hands {
    /// Strikes a replica, unless it is being hurt in this way already, and undoes it after a while.
    async fn strike(&self, replica: usize, blow: Blow, point: &str) {
        let guarded = if matches!(blow, Blow::Network(..)) { &self.networks } else { &self.processes };
        let Ok(_guard) = guarded[replica].try_lock() else { return };
        let (history, target) = (&self.fleet.history, format!("r{replica} {point}"));
        let name = match blow {
            Blow::Kill(_) => format!("kill -9 {point}"),
            Blow::Stop(_) => format!("stop {point}"),
            Blow::Terminate => "terminate".to_owned(),
            Blow::Network(Weather::Slow(_), _) => "network slow".to_owned(),
            Blow::Network(weather, _) => format!("network {weather:?}").to_lowercase(),
        };
        self.count(&name);
        history.fault(&name, &target);
        if let Err(error) = self.carry_out(replica, blow).await {
            self.fail(format!("{name} of r{replica}: {error:#}"));
        }
        history.fault(&format!("end of {name}"), &target);
    }

    async fn carry_out(&self, index: usize, blow: Blow) -> Result<()> {
        let replica = &self.fleet.replicas[index];
        match blow {
            Blow::Kill(down) => {
                replica.kill().await?;
                sleep(down).await;
                replica.start().await
            }
            Blow::Stop(pause) => {
                replica.signal("STOP").await?;
                sleep(pause).await;
                replica.signal("CONT").await
            }
            Blow::Terminate => {
                let ended = replica.terminate().await;
                replica.start().await?;
                ended
            }
            Blow::Network(weather, time) => {
                self.fleet.proxies[index].set(weather);
                sleep(time).await;
                self.fleet.proxies[index].set(Weather::Fair);
                Ok(())
            }
        }
    }

    async fn crash_database(&self) {
        let Ok(_guard) = self.database.try_lock() else { return };
        if !self.fleet.database.can_be_hurt() {
            return;
        }
        self.count("database crash");
        self.fleet.history.fault("crash", "database");
        if let Err(error) = self.fleet.database.crash().await {
            // It may be recovering from the last one.
            self.fleet.history.fault("no crash", &format!("database: {error:#}"));
        }
    }

    async fn pause_database(&self, pause: Duration) {
        let Ok(_guard) = self.database.try_lock() else { return };
        if !self.fleet.database.can_be_hurt() {
            return;
        }
        self.count("database stopped");
        self.fleet.history.fault("stop", "database");
        if let Err(error) = self.fleet.database.pause(pause).await {
            self.fail(format!("stopping the database: {error:#}"));
        }
        self.fleet.history.fault("end of stop", "database");
    }

    fn count(&self, deed: &str) {
        let mut damage = self.damage.lock().unwrap_or_else(PoisonError::into_inner);
        *damage.deeds.entry(deed.to_owned()).or_default() += 1;
    }

    fn fail(&self, text: String) {
        self.damage.lock().unwrap_or_else(PoisonError::into_inner).failures.push(text);
    }
}
