//! How the process ends: what was begun is finished, what the store has not taken is kept, nothing holds it up for ever
//! but a refresh token.

use std::{path::PathBuf, process::id, sync::Arc, time::Duration};

use tokio::{
    select,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info, warn};

use super::AppError;
use crate::{
    audit::Running,
    cache::pending::Pending,
    lifecycle::{Phase, Readiness, Shutdown},
    store::{SharedStore, spill::Spill},
    types::ReplicaId,
    worker::Workers,
};

/// How long workers may take to end.
const FAREWELL: Duration = Duration::from_secs(1);

/// How long listeners may take to end their calls, of the whole time to drain: an idle connection that does not close
/// must not use up the time of the flights.
const LISTENERS_SHARE: u32 = 2;

/// How long a flight may take to end after its refresh token was stored: it gives its lease back.
const FLIGHT_END: Duration = Duration::from_secs(2);

/// What the end of the process has to deal with.
pub(super) struct Drain {
    pub(super) readiness: Readiness,
    pub(super) draining: CancellationToken,
    pub(super) stop_listening: CancellationToken,
    pub(super) flights: TaskTracker,
    pub(super) rotations: TaskTracker,
    pub(super) pending: Arc<Pending>,
    pub(super) spill: Spill,
    pub(super) replica: ReplicaId,
    pub(super) audit: Running,
    pub(super) store: SharedStore,
    pub(super) timeout: Duration,
}

impl Drain {
    /// Not serving → watchers told → no new connections, calls finished → flights and commits finished → store closed.
    pub(super) async fn run(
        self,
        mut servers: JoinSet<()>,
        workers: Workers,
        shutdown: &Shutdown,
    ) -> Result<(), AppError> {
        info!(timeout_s = self.timeout.as_secs(), "draining");
        self.readiness.enter(Phase::Draining);
        self.draining.cancel();
        self.stop_listening.cancel();
        let deadline = sleep(self.timeout);
        let calls = async { while servers.join_next().await.is_some() {} };
        select! {
            () = calls => {}
            () = sleep(self.timeout / LISTENERS_SHARE) => warn!("connections that do not close are dropped"),
            () = shutdown.quick.cancelled() => {}
        }
        servers.abort_all();
        self.flights.close();
        select! {
            () = self.finish() => {}
            () = async { deadline.await; self.finish_late().await } => {}
            () = shutdown.quick.cancelled() => drop(self.spill_pending()),
        }
        let left = self.flights.len().max(self.pending.len());
        // Time for a farewell: the other replicas need not wait for this one's lease to lapse.
        let _ = timeout(FAREWELL, workers.stop(shutdown.quick.clone())).await;
        // After all that can have an event, and before the store, which may be one of its sinks.
        self.audit.stop(FAREWELL).await;
        self.store.close().await;
        if left > 0 {
            return Err(AppError::Unfinished(left));
        }
        info!("ended");
        Ok(())
    }

    /// Waits for all flights, and until the store has taken what they brought.
    async fn finish(&self) {
        self.flights.wait().await;
        self.pending.settled().await;
    }

    /// Waits for the calls that spend a refresh token, and until the store has taken what they brought, however long it
    /// takes: to leave it could lose it. Whoever ends the process may not ask a second time, so that it is spilled
    /// meanwhile.
    async fn finish_late(&self) {
        self.rotations.close();
        if self.rotations.is_empty() && self.pending.is_empty() {
            return;
        }
        let (calls, writes) = (self.rotations.len(), self.pending.len());
        warn!(calls, writes, "the time to drain is over, but tokens are on their way to the store");
        let spilled = self.spill_pending();
        self.rotations.wait().await;
        self.pending.settled().await;
        if let Some(Err(error)) = spilled.map(std::fs::remove_file) {
            warn!(%error, "a file of spilled tokens is left; the next start stores them once more, which is harmless");
        }
        // What remains of their flights takes a moment.
        select! {
            () = self.flights.wait() => {}
            () = sleep(FLIGHT_END) => {}
        }
    }

    /// Writes down what the store has not taken; the file, if there is anything.
    fn spill_pending(&self) -> Option<PathBuf> {
        let writes = self.pending.all();
        if writes.is_empty() {
            return None;
        }
        // A process has one replica, and another life of it another process.
        let name = format!("{}-{}", self.replica.as_str().replace(|c: char| !c.is_ascii_alphanumeric(), "_"), id());
        match self.spill.save(&name, &writes) {
            Ok(file) => {
                warn!(file = %file.display(), writes = writes.len(), "spilled what the store has not taken");
                Some(file)
            }
            Err(error) => {
                let directory = self.spill.directory().display();
                error!(%directory, %error, writes = writes.len(), "what the store has not taken cannot be spilled");
                None
            }
        }
    }
}
