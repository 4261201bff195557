//! Sheds calls before anybody looks who makes them: no more are in progress than the replica can hold, and no more come
//! in a second than it is told to take.

use std::{sync::Arc, time::Duration};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

use super::status;
use crate::error::{Error, ErrorKind};

/// When one that was refused may come again.
const COME_AGAIN: Duration = Duration::from_millis(500);

/// Sheds calls. Cheap to clone; all clones count together.
#[derive(Clone, Debug)]
pub struct Shed {
    room: Arc<Semaphore>,
    rate: Option<Arc<DefaultDirectRateLimiter>>,
}

impl Shed {
    /// Takes so many calls at once, and so many a second.
    #[must_use]
    pub fn new(max_calls: usize, per_second: Option<u32>) -> Self {
        let quota = per_second.and_then(std::num::NonZeroU32::new).map(Quota::per_second);
        Self {
            room: Arc::new(Semaphore::new(max_calls.min(Semaphore::MAX_PERMITS))),
            rate: quota.map(|quota| Arc::new(RateLimiter::direct(quota))),
        }
    }

    /// Takes whatever comes.
    #[must_use]
    pub fn none() -> Self {
        Self::new(usize::MAX, None)
    }

    /// A place for a call until its answer begins, or what to answer.
    pub(super) fn admit(&self) -> Result<OwnedSemaphorePermit, Status> {
        let overloaded =
            |_| Error::new(ErrorKind::Overloaded, "the replica has as many calls in progress as it can hold");
        let place = Arc::clone(&self.room).try_acquire_owned().map_err(overloaded);
        let place = match &self.rate {
            Some(rate) if place.is_ok() && rate.check().is_err() => {
                Err(Error::new(ErrorKind::TooManyRequests, "the replica takes no more calls in this second"))
            }
            _ => place,
        };
        place.map_err(|error| status::to_status(&error.with_retry_after(COME_AGAIN)))
    }
}
