//! Accepts connections until a signal; then what was begun is finished.

use std::{io, time::Duration};

use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto::Builder, graceful::GracefulShutdown},
};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{forward::Forward, listener::Listener};
use crate::failure::Failure;

/// How long a program may take to say what it wants.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long what was begun may take after a signal. A second signal ends it at once.
const DRAIN: Duration = Duration::from_secs(30);

/// How long to wait when the system has no more connections to give.
const PAUSE: Duration = Duration::from_millis(50);

pub(super) async fn serve(listener: Listener, forward: Forward) -> Result<(), Failure> {
    let mut signals = Signals::new().map_err(Failure::Output)?;
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).preserve_header_case(true);
    builder.http2().timer(TokioTimer::new());
    let graceful = GracefulShutdown::new();
    loop {
        let stream = tokio::select! {
            stream = listener.accept() => stream,
            () = signals.next() => break,
        };
        let Ok(stream) = stream else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let forward = forward.clone();
        let service = service_fn(move |request| {
            let forward = forward.clone();
            async move { Ok::<_, std::convert::Infallible>(forward.answer(request).await) }
        });
        let watcher = graceful.watcher();
        let builder = builder.clone();
        tokio::spawn(async move {
            let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
            // A connection that breaks is the program's business, which sees it break.
            let _ = watcher.watch(connection).await;
        });
    }
    drop(listener);
    tokio::select! {
        () = graceful.shutdown() => {}
        () = tokio::time::sleep(DRAIN) => {}
        () = signals.next() => {}
    }
    Ok(())
}

/// The signals that end the proxy.
struct Signals(Signal, Signal);

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self(signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?))
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.0.recv() => {}
            _ = self.1.recv() => {}
        }
    }
}
