//! Hears what the other replicas did: reads the events, applies them, and says so.
//!
//! Events are polled; notifications only hasten the next look. Ids are given before they commit, so that a lower one may
//! appear after a higher: what is missing is looked for again for as long as the store promises that it may appear.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt as _, stream};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{TokenCache, trust::TTL};
use crate::{
    bug::{self, Bug},
    error::Result,
    store::{Applied, EVENT_PATIENCE, Event, EventKind, Heartbeat},
    types::{KeyHash, ReplicaId},
};

/// How often a sign of life is sent: three may be lost before the lease lapses.
const BEAT: Duration = Duration::from_millis(500);

/// The longest time between two looks at the events.
const POLL: Duration = Duration::from_secs(1);

/// How often it is looked at the start whether there is a first lease.
const FIRST_LOOK: Duration = Duration::from_millis(10);

/// How often the replicas are counted.
const CENSUS: Duration = Duration::from_secs(10);

/// How many events are read at a time.
const PAGE: u32 = 1000;

/// How many replaced tokens are loaded at once.
const LOADS: usize = 8;

/// The events that have been read.
#[derive(Debug, Default)]
struct Reading {
    /// All up to this one have been read or will never appear.
    complete: u64,
    /// Those read above it.
    above: BTreeSet<u64>,
    /// When each missing one below the highest was first missed.
    missed: BTreeMap<u64, Duration>,
    /// The last replacement of each key that is yet to be loaded.
    replaced: BTreeMap<KeyHash, Event>,
}

impl Reading {
    fn from(horizon: u64) -> Self {
        Self { complete: horizon, ..Self::default() }
    }

    /// Notes that an event was read. False: it had been read before.
    fn note(&mut self, id: u64) -> bool {
        id > self.complete && self.above.insert(id)
    }

    /// Notes what is missing now, and gives up what could no longer appear when the events were `asked` for.
    fn settle(&mut self, asked: Duration, now: Duration) {
        let highest = self.above.last().copied().unwrap_or(self.complete);
        for id in self.complete + 1..highest {
            if !self.above.contains(&id) {
                self.missed.entry(id).or_insert(now);
            }
        }
        self.missed.retain(|id, since| !self.above.contains(id) && asked < *since + EVENT_PATIENCE);
        let end = self.missed.first_key_value().map_or(highest, |(id, _)| id - 1);
        self.complete = self.complete.max(end);
        self.above.retain(|id| *id > self.complete);
    }

    fn applied(&self) -> Applied {
        let through = self.above.last().copied().unwrap_or(self.complete);
        let missing = if bug::has(Bug::GapsIgnored) { vec![] } else { self.missed.keys().copied().collect() };
        Applied { through, missing }
    }
}

/// The worker.
#[derive(Debug)]
pub struct Fleet {
    cache: Arc<TokenCache>,
    replica: ReplicaId,
    hint: Arc<Notify>,
}

impl Fleet {
    /// Keeps `cache` informed as `replica`; `hint` is called when there may be news.
    #[must_use]
    pub fn new(cache: Arc<TokenCache>, replica: ReplicaId, hint: Arc<Notify>) -> Self {
        Self { cache, replica, hint }
    }

    /// Runs until it is told to stop; then takes its leave, so that nobody waits for it.
    pub async fn run(self, stop: CancellationToken) {
        let mut reading = None;
        let (mut polled, mut counted) = (Duration::ZERO, None);
        while !stop.is_cancelled() {
            if let Err(error) = self.turn(&mut reading, &mut polled).await {
                debug!(%error, "out of touch with the other replicas");
            }
            self.take_census(&mut counted).await;
            tokio::select! {
                () = stop.cancelled() => {}
                () = sleep(BEAT) => {}
                () = self.hint.notified() => polled = Duration::ZERO,
            }
        }
        // First: from the farewell on nobody waits for this replica, and a call may still be on its way.
        self.cache.parts.trust.give_up();
        if let Err(error) = self.cache.parts.store.leave(self.replica.clone()).await {
            debug!(%error, "left without a word; the others wait for the lease to lapse");
        }
    }

    /// One turn: look at the events if it is time, then a sign of life; after a lapse the other way round.
    async fn turn(&self, reading: &mut Option<Reading>, polled: &mut Duration) -> Result<()> {
        let (store, clock, trust) = (&self.cache.parts.store, &self.cache.parts.clock, &self.cache.parts.trust);
        let reading = match reading {
            Some(reading) => reading,
            None => reading.insert(Reading::from(store.event_horizon(EVENT_PATIENCE).await?)),
        };
        let live = trust.term().is_some();
        let due = clock.uptime() >= *polled + POLL && !bug::has(Bug::NotifyOnly);
        if *polled == Duration::ZERO || (live && due) {
            self.look(reading).await?;
            *polled = clock.uptime();
        }
        let sent = clock.uptime();
        self.beat(reading).await?;
        let sent = if bug::has(Bug::LeaseFromAnswer) { clock.uptime() } else { sent };
        if live && trust.prolong(sent) {
            return Ok(());
        }
        if bug::has(Bug::NoCatchUp) {
            trust.win(sent);
        }
        // Others wait for us from the beat on; what was rejected before it, this look finds.
        self.look(reading).await?;
        *polled = clock.uptime();
        trust.win(sent);
        info!(replica = %self.replica, "in touch with the other replicas");
        self.beat(reading).await
    }

    /// Counts the replicas for whoever scrapes, if it is time. What fails here has failed the sign of life as well.
    async fn take_census(&self, counted: &mut Option<Duration>) {
        let parts = &self.cache.parts;
        let now = parts.clock.uptime();
        if parts.trust.term().is_none() || counted.is_some_and(|at| now < at + CENSUS) {
            return;
        }
        *counted = Some(now);
        if let Ok(replicas) = parts.store.replicas().await {
            let live = replicas.iter().filter(|replica| !replica.remaining.is_zero()).count();
            parts.metrics.fleet.replicas(live, replicas.len() - live);
        }
    }

    async fn beat(&self, reading: &Reading) -> Result<()> {
        let beat = Heartbeat {
            replica: self.replica.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            ttl: TTL,
            applied: reading.applied(),
        };
        self.cache.parts.store.heartbeat(beat).await
    }

    /// Reads and applies all events that the store shows. Rejections first, for somebody waits for them.
    async fn look(&self, reading: &mut Reading) -> Result<()> {
        let mut rejections = 0;
        let read = self.read(reading, &mut rejections).await;
        if rejections > 0 && self.cache.parts.trust.term().is_some() {
            let known = self.cache.parts.store.applied(self.replica.clone(), reading.applied()).await?;
            if !known {
                self.beat(reading).await?;
            }
        }
        // What was read before a page that failed is loaded all the same.
        self.load(reading).await;
        read
    }

    /// Reads page by page; should one fail, what is missing is not said to be applied.
    async fn read(&self, reading: &mut Reading, rejections: &mut usize) -> Result<()> {
        let mut after = reading.complete;
        let live = self.cache.parts.trust.term().is_some();
        loop {
            let asked = self.cache.parts.clock.uptime();
            let page = self.cache.parts.store.events(after, PAGE).await?;
            let full = page.len() == PAGE as usize;
            for event in page {
                after = event.id;
                if !reading.note(event.id) {
                    continue;
                }
                // What happened before this replica was in touch is no measure of how fast it hears.
                let lag = live.then(|| self.cache.parts.clock.now().since(event.at));
                self.cache.parts.metrics.fleet.event(event.kind.as_text(), lag);
                match event.kind {
                    EventKind::Rejected => {
                        *rejections += 1;
                        self.cache.hear_of_rejection(&event);
                    }
                    EventKind::Committed => drop(reading.replaced.insert(event.key, event)),
                    EventKind::GrantLost => {
                        info!(credential = %event.credential, "a grant was found lost: a person has to log in again");
                    }
                    EventKind::Other => {}
                }
            }
            reading.settle(asked, self.cache.parts.clock.uptime());
            self.cache.parts.metrics.fleet.missing.set(i64::try_from(reading.missed.len()).unwrap_or(i64::MAX));
            if !full {
                return Ok(());
            }
        }
    }

    /// Loads the replacements of the tokens that this replica holds or that are watched here. One that fails is loaded
    /// after the next look.
    async fn load(&self, reading: &mut Reading) {
        let wanted = std::mem::take(&mut reading.replaced).into_values().filter(|event| self.cache.wants(event));
        let loads = wanted.map(|event| async move {
            let error = self.cache.load_replacement(&event).await.err()?;
            warn!(credential = %event.credential, %error, "a replaced token was not loaded");
            Some((event.key, event))
        });
        let failed: Vec<_> = stream::iter(loads).buffer_unordered(LOADS).collect().await;
        reading.replaced.extend(failed.into_iter().flatten());
    }
}

impl TokenCache {
    /// Waits until this replica is in touch with the others, for this long at most.
    pub async fn in_touch(&self, patience: Duration) {
        let look = async {
            while self.parts.trust.term().is_none() {
                sleep(FIRST_LOOK).await;
            }
        };
        // Out of touch it serves as well, and says so.
        let _ = timeout(patience, look).await;
    }

    fn hear_of_rejection(&self, event: &Event) {
        if self.parts.memory.raise_floor(event.key, event.min_generation) {
            self.parts.hub.invalidated(&event.key, event.min_generation);
        }
    }

    /// Whether an event's token is newer than the one held, or is watched and not held.
    fn wants(&self, event: &Event) -> bool {
        match self.parts.memory.get(&event.key) {
            Some(held) => held.token.generation < event.generation,
            None => self.parts.hub.watchers(&event.key) > 0,
        }
    }

    async fn load_replacement(&self, event: &Event) -> Result<()> {
        let used = self.parts.memory.get(&event.key).map(|held| held.last_used());
        if let Some(mut row) = self.parts.store.load(event.key).await? {
            row.last_used_at = used.unwrap_or(row.last_used_at).max(row.last_used_at);
            self.take_in(row, Duration::ZERO);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(100);

    #[test]
    fn what_is_missing_is_neither_applied_nor_forgotten() {
        let mut reading = Reading::from(10);
        for id in [11, 13, 14] {
            assert!(reading.note(id));
        }
        reading.settle(START, START);
        assert_eq!(reading.complete, 11);
        let applied = reading.applied();
        assert_eq!((applied.through, applied.missing.as_slice()), (14, &[12][..]));
        assert!(applied.contains(13) && !applied.contains(12) && !applied.contains(15));

        assert!(reading.note(12), "it commits late");
        assert!(!reading.note(13), "it was read before");
        reading.settle(START, START);
        assert_eq!((reading.complete, reading.applied()), (14, Applied { through: 14, missing: vec![] }));
    }

    #[test]
    fn an_id_whose_transaction_must_have_ended_is_given_up() {
        let mut reading = Reading::from(0);
        reading.note(2);
        reading.settle(START, START);
        assert_eq!(reading.applied().missing, [1]);
        reading.settle(START + EVENT_PATIENCE, START + EVENT_PATIENCE);
        assert_eq!((reading.complete, reading.applied().missing), (2, vec![]));
    }

    #[test]
    fn an_id_is_not_given_up_for_the_time_that_the_look_took() {
        let mut reading = Reading::from(0);
        reading.note(2);
        reading.settle(START, START + Duration::from_secs(5));
        let asked = START + EVENT_PATIENCE;
        reading.settle(asked, asked + Duration::from_secs(9));
        assert_eq!(reading.applied().missing, [1], "it was first missed after five seconds");
        reading.settle(asked + Duration::from_secs(5), asked + Duration::from_secs(9));
        assert_eq!((reading.complete, reading.applied().missing), (2, vec![]));
    }
}
