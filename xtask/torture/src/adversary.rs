//! What is done to the fleet, drawn from the seed: kills, stops, a database that crashes, stalls or is replaced, networks
//! that fail, and replicas that die by themselves in the midst of a refresh.
//!
//! The seed repeats what is done and in which order; the processes keep their own time.

mod hands;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{sleep, timeout},
};

use self::hands::{Blow, Hands, Link};
use crate::{database::Deed, fleet::Fleet, idp::Step, proxy::Weather};

/// How long a blow that is aimed at a step waits for a rotation to come to that step.
const AIM: Duration = Duration::from_secs(3);

/// Of a hundred or so deeds, how many are of which kind; and whether replicas fail by themselves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Menu {
    /// A blow at a replica whose rotation has come to some step.
    pub(crate) aimed: u32,
    /// A blow at any replica.
    pub(crate) blow: u32,
    /// The way to the database.
    pub(crate) network: u32,
    /// The way to the upstream.
    pub(crate) upstream: u32,
    /// The servers of the database.
    pub(crate) database: u32,
    /// Replicas are started with points of a refresh at which they die or stand still; takes a program that can.
    pub(crate) failpoints: bool,
}

impl Menu {
    /// Everything.
    pub(crate) const ALL: Self =
        Self { aimed: 30, blow: 22, network: 18, upstream: 14, database: 16, failpoints: true };
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
    menu: Menu,
    hands: Arc<Hands>,
}

impl Adversary {
    /// One that will act on `fleet`, with randomness of its own.
    pub(crate) fn new(
        fleet: Arc<Fleet>,
        blows: mpsc::UnboundedReceiver<(Step, usize)>,
        seed: u64,
        pause: Duration,
        menu: Menu,
    ) -> Self {
        let pause = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        let hands = Arc::new(Hands::new(Arc::clone(&fleet), seed ^ 3, menu.failpoints));
        Self { fleet, blows, rng: StdRng::seed_from_u64(seed), pause, menu, hands }
    }

    /// Does one thing after the other, some of them at the same time, until it is told to stop; then waits until all
    /// are undone.
    pub(crate) async fn run(mut self, stop: Arc<AtomicBool>) -> Damage {
        let (mut deeds, reviver) = (JoinSet::new(), Arc::clone(&self.hands));
        let reviver = tokio::spawn(async move { reviver.revive().await });
        while !stop.load(Ordering::Relaxed) {
            let pause = self.rng.random_range(self.pause / 10..=self.pause);
            sleep(Duration::from_millis(pause)).await;
            self.act(&mut deeds).await;
        }
        self.fleet.idp.arm(None);
        while deeds.join_next().await.is_some() {}
        reviver.abort();
        let _ = reviver.await;
        self.hands.make_sound().await;
        self.hands.damage()
    }

    async fn act(&mut self, deeds: &mut JoinSet<()>) {
        let replica = self.rng.random_range(0..self.fleet.replicas.len());
        let hands = Arc::clone(&self.hands);
        let Menu { aimed, blow, network, upstream, database, .. } = self.menu;
        let dice = self.rng.random_range(0..aimed + blow + network + upstream + database);
        if dice < aimed {
            self.aim(deeds).await;
        } else if dice < aimed + blow {
            let blow = self.blow();
            deeds.spawn(async move { hands.strike(replica, blow, "at any time").await });
        } else if dice < aimed + blow + network {
            let (weather, time) = (self.weather(true), self.between(100, 5000));
            deeds.spawn(async move { hands.spoil(Link::Database, replica, weather, time).await });
        } else if dice < aimed + blow + network + upstream {
            let (weather, time) = (self.weather(false), self.between(100, 4000));
            deeds.spawn(async move { hands.spoil(Link::Upstream, replica, weather, time).await });
        } else {
            let deed = self.deed();
            deeds.spawn(async move { hands.hurt_database(deed).await });
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

    /// Where `stalls`, also one that delivers after any time what was sent. At the upstream that would be a call whose
    /// caller has long given it up, beside its successor's: nobody could do anything about it.
    fn weather(&mut self, stalls: bool) -> Weather {
        match self.rng.random_range(0..if stalls { 5 } else { 4 }) {
            0 => Weather::Cut,
            1 => Weather::RequestsLost,
            2 => Weather::AnswersLost,
            3 => Weather::Slow(self.between(5, 200)),
            _ => Weather::Stalled,
        }
    }

    fn deed(&mut self) -> Deed {
        match self.rng.random_range(0..12) {
            0..3 => Deed::Crash,
            3..5 => Deed::Pause(self.between(100, 3000)),
            5..7 => Deed::Restart(self.between(0, 3000)),
            7..9 => Deed::Failover(self.between(0, 3000)),
            9..11 => Deed::FailoverFrozen(self.between(0, 6000)),
            _ => Deed::NoStandby(self.between(100, 6000)),
        }
    }

    fn between(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.rng.random_range(from..=to))
    }
}
