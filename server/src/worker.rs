//! Background work: values that run until they are told to stop, started by `App` alone.

use tokio::{select, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::error;

/// The workers of the process.
#[derive(Debug, Default)]
pub struct Workers {
    running: JoinSet<&'static str>,
    stop: CancellationToken,
}

impl Workers {
    /// Starts a worker; it is handed the order to stop.
    pub fn start<F>(&mut self, name: &'static str, worker: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let work = worker(self.stop.clone());
        self.running.spawn(async move {
            work.await;
            name
        });
    }

    /// Waits until a worker ends that was not told to: a defect, whatever the worker.
    pub async fn first_to_fail(&mut self) -> &'static str {
        match self.running.join_next().await {
            Some(Ok(name)) => {
                error!(worker = name, "a worker ended early");
                name
            }
            Some(Err(panic)) => {
                error!(%panic, "a worker panicked");
                "a worker that panicked"
            }
            None => std::future::pending().await,
        }
    }

    /// Tells all workers to stop, and waits for them until `give_up`.
    pub async fn stop(mut self, give_up: CancellationToken) {
        self.stop.cancel();
        select! {
            () = async { while self.running.join_next().await.is_some() {} } => {}
            () = give_up.cancelled() => self.running.abort_all(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_worker_that_ends_early_is_noticed() {
        let mut workers = Workers::default();
        workers.start("steady", |stop| async move { stop.cancelled().await });
        workers.start("brittle", |_| async {});
        assert_eq!(workers.first_to_fail().await, "brittle");
        workers.stop(CancellationToken::new()).await;
    }

    #[tokio::test]
    async fn a_worker_that_does_not_stop_is_left() {
        let mut workers = Workers::default();
        workers.start("deaf", |_| std::future::pending());
        let give_up = CancellationToken::new();
        give_up.cancel();
        workers.stop(give_up).await;
    }
}
