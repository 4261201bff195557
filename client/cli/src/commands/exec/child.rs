//! Stays with the command while it runs: signals go to it, files are kept fresh for it, and its exit code is ours.

use std::{
    io::{self, Write as _},
    os::unix::process::ExitStatusExt as _,
    process::{ExitCode, ExitStatus},
    time::Duration,
};

use rustix::process::{Pid, Signal, getpgrp, kill_process};
use tokio::{
    process::Child,
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};
use tokio_util::task::AbortOnDropHandle;

use super::RefreshFile;
use crate::failure::Failure;

/// The signals that go on to the command.
const FORWARDED: [(SignalKind, Signal); 6] = [
    (SignalKind::interrupt(), Signal::INT),
    (SignalKind::terminate(), Signal::TERM),
    (SignalKind::hangup(), Signal::HUP),
    (SignalKind::quit(), Signal::QUIT),
    (SignalKind::user_defined1(), Signal::USR1),
    (SignalKind::user_defined2(), Signal::USR2),
];

/// How long after a file could not be written it is tried again, if no new token comes first.
const AGAIN: Duration = Duration::from_secs(1);

/// The signals that are sent to us from now on.
pub(super) type Signals = mpsc::UnboundedReceiver<Signal>;

/// Waits for the command to end. `signals` are from before it began, so that none is lost.
pub(super) async fn run(mut child: Child, mut signals: Signals, files: Vec<RefreshFile>) -> Result<ExitCode, Failure> {
    let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    let _keeping: Vec<_> = files.into_iter().map(|file| AbortOnDropHandle::new(tokio::spawn(keep(file)))).collect();
    loop {
        tokio::select! {
            status = child.wait() => return Ok(code(status.map_err(Failure::Output)?)),
            Some(signal) = signals.recv() => {
                // It has not been waited for, so its number is still its own; if it has just ended, that is no error.
                if let Some(pid) = pid && !is_from_terminal(signal) {
                    let _ = kill_process(pid, signal);
                }
            }
        }
    }
}

async fn keep(mut file: RefreshFile) {
    loop {
        if let Err(failure) = file.write_next().await {
            // If stderr is closed, there is nobody to tell.
            let _ = writeln!(io::stderr(), "warning: {failure}");
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// Begins to listen for signals.
pub(super) fn signals() -> Result<Signals, Failure> {
    let (sender, receiver) = mpsc::unbounded_channel();
    for (kind, number) in FORWARDED {
        let mut signal = signal(kind).map_err(Failure::Output)?;
        let sender = sender.clone();
        tokio::spawn(async move { while signal.recv().await.is_some() && sender.send(number).is_ok() {} });
    }
    Ok(receiver)
}

/// Whether the terminal has sent it to the command as well: a second ^C means more than one.
fn is_from_terminal(signal: Signal) -> bool {
    let in_foreground = || rustix::termios::tcgetpgrp(io::stdin()).is_ok_and(|group| group == getpgrp());
    matches!(signal, Signal::INT | Signal::QUIT) && in_foreground()
}

/// As a shell tells it.
fn code(status: ExitStatus) -> ExitCode {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
