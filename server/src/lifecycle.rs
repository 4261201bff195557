//! How the process ends: an orderly stop on the first signal, a quick one on the second; and what it says of itself
//! meanwhile.

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// What the replica is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It listens, but its store has not answered yet.
    Starting,
    /// It serves.
    Serving,
    /// It finishes what it has begun.
    Draining,
}

/// The replica's phase, for those who tell others. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Readiness(watch::Sender<Phase>);

impl Default for Readiness {
    fn default() -> Self {
        Self(watch::Sender::new(Phase::Starting))
    }
}

impl Readiness {
    /// Enters a phase.
    pub fn enter(&self, phase: Phase) {
        self.0.send_replace(phase);
    }

    /// Whether callers are to come here.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        *self.0.borrow() == Phase::Serving
    }

    /// Changes of the phase, the present one first.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Phase> {
        let mut phases = self.0.subscribe();
        phases.mark_changed();
        phases
    }
}

/// The signals to look again at what may have changed (SIGHUP), from now on.
///
/// # Errors
///
/// If the operating system refuses the handler.
pub fn hangups() -> std::io::Result<Signal> {
    signal(SignalKind::hangup())
}

/// The order to end. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    /// Finish what was begun.
    pub orderly: CancellationToken,
    /// Finish now.
    pub quick: CancellationToken,
}

impl Shutdown {
    /// Listens to SIGTERM and SIGINT for as long as the process lives: the first asks for an orderly end, the second for
    /// a quick one.
    ///
    /// # Errors
    ///
    /// If the operating system refuses the handlers.
    pub fn on_signals(&self) -> std::io::Result<impl Future<Output = ()> + use<>> {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let stages = [self.orderly.clone(), self.quick.clone()];
        Ok(async move {
            for stage in stages {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                info!("told to end");
                stage.cancel();
            }
            warn!("told to end a second time: what is not finished is left");
        })
    }
}
