//! Sheds calls before anybody looks who makes them: no more are in progress than the replica can hold, and no more come
//! in a second than it is told to take.

use std::{sync::Arc, time::Duration};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

use super::status;
use crate::{
    error::{Error, ErrorKind},
    metrics::Sampled,
};

/// When one that was refused may come again.
const COME_AGAIN: Duration = Duration::from_millis(500);

/// Why a call was shed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

/// Sheds calls. Cheap to clone; all clones count together.
#[derive(Clone, Debug)]
pub struct Shed {
    room: Arc<Semaphore>,
    rate: Option<Arc<DefaultDirectRateLimiter>>,
    size: usize,
    shed: Family<ReasonLabels, Counter>,
    /// Members of the family above: nothing is looked up while there is too much to do.
    overloaded: Counter,
    too_fast: Counter,
}

impl Shed {
    /// Takes so many calls at once, and so many a second.
    #[must_use]
    pub fn new(max_calls: usize, per_second: Option<u32>) -> Self {
        let quota = per_second.and_then(std::num::NonZeroU32::new).map(Quota::per_second);
        let size = max_calls.min(Semaphore::MAX_PERMITS);
        let shed: Family<ReasonLabels, Counter> = Family::default();
        let of = |reason| shed.get_or_create_owned(&ReasonLabels { reason });
        let (overloaded, too_fast) = (of("overloaded"), of("rate"));
        Self {
            room: Arc::new(Semaphore::new(size)),
            rate: quota.map(|quota| Arc::new(RateLimiter::direct(quota))),
            size,
            shed,
            overloaded,
            too_fast,
        }
    }

    /// Has shown how full it is, and what was shed.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("tokencache");
        let shed = "Calls that were refused before anybody looked who called";
        registry.register("calls_shed", shed, self.shed.clone());
        let (room, size) = (Arc::clone(&self.room), self.size);
        let in_progress = move || (size - room.available_permits().min(size)) as u64;
        Sampled::register(registry, "calls_in_progress", "Calls that were not answered yet", in_progress);
        let limit = move || size as u64;
        Sampled::register(registry, "calls_limit", "Calls that may be in progress: limits.max_calls", limit);
    }

    /// Takes whatever comes.
    #[must_use]
    pub fn none() -> Self {
        Self::new(usize::MAX, None)
    }

    /// A place for a call until its answer begins, or what to answer.
    pub(super) fn admit(&self) -> Result<OwnedSemaphorePermit, Status> {
        let overloaded = |_| {
            self.overloaded.inc();
            Error::new(ErrorKind::Overloaded, "the replica has as many calls in progress as it can hold")
        };
        let place = Arc::clone(&self.room).try_acquire_owned().map_err(overloaded);
        let place = match &self.rate {
            Some(rate) if place.is_ok() && rate.check().is_err() => {
                self.too_fast.inc();
                Err(Error::new(ErrorKind::TooManyRequests, "the replica takes no more calls in this second"))
            }
            _ => place,
        };
        place.map_err(|error| status::to_status(&error.with_retry_after(COME_AGAIN)))
    }
}
