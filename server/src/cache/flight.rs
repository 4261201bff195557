//! Single flight: one task per key, whose result all who ask meanwhile share.
//!
//! The task is its own: a caller that goes away or times out never cancels it. A panic in it is an error for all who
//! wait, and ends nothing else.

pub mod attempt;
pub mod budget;
mod grant;

use std::{
    collections::{HashMap, hash_map},
    fmt,
    future::Future,
    hash::Hash,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Waker},
};

use futures::FutureExt as _;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::{
    error::{Error, Result},
    trace,
};

type Landing<V> = watch::Receiver<Option<Result<V>>>;

/// The flights under way, by key.
pub struct Flights<K, V> {
    // A lock shared across keys, but taken on misses alone.
    airborne: Arc<Mutex<HashMap<K, Landing<V>>>>,
    tasks: TaskTracker,
}

impl<K, V> Flights<K, V>
where
    K: Copy + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// None under way; their tasks will run on `tasks`.
    #[must_use]
    pub fn new(tasks: TaskTracker) -> Self {
        Self { airborne: Arc::default(), tasks }
    }

    /// Joins the flight of `key`, or starts `flight` as a task of its own.
    pub fn join<F>(&self, key: K, flight: impl FnOnce() -> F) -> Ticket<V>
    where
        F: Future<Output = Result<V>> + Send + 'static,
    {
        let mut airborne = lock(&self.airborne);
        let slot = match airborne.entry(key) {
            hash_map::Entry::Occupied(flying) => return Ticket { landing: flying.get().clone(), leads: false },
            hash_map::Entry::Vacant(slot) => slot,
        };
        let (landed, landing) = watch::channel(None);
        slot.insert(landing.clone());
        drop(airborne);

        // Boxed before anything is made of it: it is large, and each layer around it would move it.
        let flight = AssertUnwindSafe(Box::pin(flight())).catch_unwind();
        let airborne = Arc::clone(&self.airborne);
        let mut flight = Box::pin(self.tasks.track_future(trace::carry(async move {
            let result = flight.await.unwrap_or_else(|_| Err(Error::bug("a flight panicked")));
            // Gone from the map before the result is told: who asks from now on finds the result in memory.
            lock(&airborne).remove(&key);
            landed.send_replace(Some(result));
        })));
        // Its first step is taken here: as a task it would wait behind all who have come meanwhile, thousands where they
        // want the same token, and the upstream would be asked so much later. What it waits for it waits for anew as a task.
        if flight.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            tokio::spawn(flight);
        }
        Ticket { landing, leads: true }
    }

    /// How many flights are under way.
    #[must_use]
    pub fn len(&self) -> usize {
        lock(&self.airborne).len()
    }

    /// Whether none is under way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<K, V> fmt::Debug for Flights<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flights").field("airborne", &lock(&self.airborne).len()).finish()
    }
}

/// A flight's map holds nothing that a panic could leave half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A place on a flight. Dropping it cancels nothing.
#[derive(Clone, Debug)]
pub struct Ticket<V> {
    landing: Landing<V>,
    leads: bool,
}

impl<V: Clone> Ticket<V> {
    /// Whether this call started the flight.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.leads
    }

    /// Waits for the result.
    ///
    /// # Errors
    ///
    /// What the flight failed with.
    pub async fn wait(mut self) -> Result<V> {
        match self.landing.wait_for(Option::is_some).await {
            Ok(result) => result.clone().unwrap_or_else(|| Err(Error::bug("a flight landed without a result"))),
            Err(_) => Err(Error::bug("a flight was aborted")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::{sync::Notify, task::yield_now};

    use super::*;

    #[tokio::test]
    async fn all_who_ask_meanwhile_share_one_flight() {
        let flights = Flights::new(TaskTracker::new());
        let (calls, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let tickets: Vec<_> = (0..100)
            .map(|_| {
                let (calls, gate) = (Arc::clone(&calls), Arc::clone(&gate));
                flights.join(1, || async move {
                    gate.notified().await;
                    Ok(calls.fetch_add(1, Ordering::SeqCst))
                })
            })
            .collect();
        gate.notify_one();
        for ticket in tickets {
            assert_eq!(ticket.wait().await, Ok(0));
        }
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        assert!(flights.is_empty());
    }

    #[tokio::test]
    async fn a_flight_has_set_out_before_those_who_came_meanwhile_have_their_turn() {
        let (flights, set_out) = (Flights::new(TaskTracker::new()), Arc::new(AtomicUsize::new(0)));
        let out = Arc::clone(&set_out);
        let ticket = flights.join(1, || async move {
            out.store(1, Ordering::SeqCst);
            yield_now().await;
            Ok(out.load(Ordering::SeqCst))
        });
        assert_eq!(set_out.load(Ordering::SeqCst), 1);
        assert_eq!(ticket.wait().await, Ok(1));
    }

    #[tokio::test]
    async fn a_flight_goes_on_when_everybody_has_left() {
        let tasks = TaskTracker::new();
        let flights = Flights::new(tasks.clone());
        let (gate, landed) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
        let (g, l) = (Arc::clone(&gate), Arc::clone(&landed));
        drop(flights.join(1, || async move {
            g.notified().await;
            l.store(1, Ordering::SeqCst);
            Ok(())
        }));
        gate.notify_one();
        tasks.close();
        tasks.wait().await;
        assert_eq!(landed.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_panic_is_an_error_for_all_who_wait_and_the_key_can_fly_again() {
        let flights: Flights<u8, u8> = Flights::new(TaskTracker::new());
        let first = flights.join(1, || async {
            yield_now().await;
            panic!("on purpose")
        });
        let second = flights.join(1, || async { Ok(2) });
        assert_eq!(first.wait().await.map_err(|e| e.kind()), Err(crate::error::ErrorKind::Bug));
        assert!(second.wait().await.is_err());
        assert_eq!(flights.join(1, || async { Ok(3) }).wait().await, Ok(3));
        // In the step that its caller takes.
        let at_once = flights.join(1, || async { panic!("on purpose") });
        assert_eq!(at_once.wait().await.map_err(|e| e.kind()), Err(crate::error::ErrorKind::Bug));
        assert!(flights.is_empty());
    }
}
