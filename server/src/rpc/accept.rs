//! From a listener to connections that may call: a bound on how many there are, TLS, and who is at the other end.
//!
//! All of it happens before anybody is authenticated, so each step is bounded in time and in number.

use std::{collections::VecDeque, io, sync::Arc, time::Duration};

use prometheus_client::metrics::counter::Counter;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::TcpStream,
    select,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep, sleep_until, timeout},
};
use tracing::{debug, warn};

use super::{serve::Bound, tls::ServerTls, wire::Stream};
use crate::{
    metrics::{Counted, ListenerMetrics},
    types::{Caller, Peer, PeerUser},
};

/// How long a TLS handshake may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Handshakes in progress at a time.
const MAX_HANDSHAKES: usize = 64;

/// How old a handshake is that gives way to a new one when there are too many: those who mean it take far less.
const STALE: Duration = Duration::from_secs(1);

/// How long to wait after an `accept` that failed for lack of file descriptors or memory.
const BREATH: Duration = Duration::from_millis(100);

/// How long a connection may be idle before its peer's kernel is asked whether it is still there.
const IDLE: Duration = Duration::from_secs(30);

/// How often it is asked then, and how many times without an answer.
const PROBE_EVERY: Duration = Duration::from_secs(5);
const PROBES: u32 = 4;

/// What is known of a connection.
#[derive(Debug)]
pub struct Facts {
    /// Where it comes from.
    pub peer: Peer,
    /// The identity in the client's certificate, or why there is none in it. `None`: no certificate.
    pub certificate: Option<Result<Caller, &'static str>>,
}

/// A connection that may call.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) stream: Stream,
    pub(super) facts: Facts,
    /// Its place among the connections of the listener.
    pub(super) place: Place,
}

/// A connection's place among those that there may be, and where it is counted.
#[derive(Debug)]
pub(super) struct Place {
    _room: OwnedSemaphorePermit,
    _counted: Counted,
}

/// Accepts connections.
#[derive(Debug)]
pub struct Acceptor {
    bound: Bound,
    tls: Option<ServerTls>,
    room: Arc<Semaphore>,
    metrics: ListenerMetrics,
}

impl Acceptor {
    /// Of this listener, at most `max_connections` at a time.
    #[must_use]
    pub fn new(bound: Bound, tls: Option<ServerTls>, max_connections: usize, metrics: ListenerMetrics) -> Self {
        Self { bound, tls, room: Arc::new(Semaphore::new(max_connections.min(Semaphore::MAX_PERMITS))), metrics }
    }

    /// Sends each connection that is ready into `ready` until nobody listens there.
    pub(super) async fn run(self, ready: mpsc::Sender<Accepted>) {
        let mut handshakes = Handshakes::default();
        loop {
            let accepted = select! {
                accepted = self.bound.accept() => accepted,
                () = ready.closed() => return,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(%error, "a connection cannot be accepted");
                    sleep(BREATH).await;
                    continue;
                }
            };
            // One too many is told so by its end, before it has cost anything.
            let Ok(room) = Arc::clone(&self.room).try_acquire_owned() else {
                debug!(%peer, "too many connections");
                self.metrics.turned_away.inc();
                continue;
            };
            let place = Place { _room: room, _counted: Counted::by(&self.metrics.open) };
            match (&self.tls, stream) {
                (Some(tls), Stream::Tcp(stream)) => {
                    handshakes.make_room().await;
                    handshakes.begin(shake_hands(
                        tls.clone(),
                        stream,
                        peer,
                        place,
                        (ready.clone(), self.metrics.handshakes_failed.clone()),
                    ));
                }
                (_, stream) => {
                    let facts = Facts { peer, certificate: None };
                    if ready.send(Accepted { stream, facts, place }).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}

impl Bound {
    async fn accept(&self) -> io::Result<(Stream, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, mut address) = listener.accept().await?;
                stream.set_nodelay(true)?;
                keep_alive(&stream)?;
                address.set_ip(address.ip().to_canonical());
                Ok((Stream::Tcp(stream), Peer::Tcp(address)))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let user = stream.peer_cred().ok().map(|user| PeerUser { uid: user.uid(), gid: user.gid() });
                Ok((Stream::Unix(stream), Peer::Unix(user)))
            }
        }
    }
}

/// Has the kernel notice a peer that vanished. HTTP/2's pings would as well, but hyper looks at the clock with each frame
/// and at a timer with each turn for them; by a profile the latter alone was 2 % of what a hit takes.
fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    let probes = TcpKeepalive::new().with_time(IDLE).with_interval(PROBE_EVERY).with_retries(PROBES);
    socket.set_tcp_keepalive(&probes)?;
    // Where something is on its way to the peer, nothing is probed.
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(IDLE + PROBE_EVERY * PROBES))?;
    Ok(())
}

/// The handshakes in progress, the oldest first.
#[derive(Debug, Default)]
struct Handshakes {
    tasks: JoinSet<()>,
    begun: VecDeque<(Instant, AbortHandle)>,
}

impl Handshakes {
    /// Waits until there is room for one more: one has ended, or has become stale and gives way.
    async fn make_room(&mut self) {
        while self.tasks.try_join_next().is_some() {}
        self.begun.retain(|(_, task)| !task.is_finished());
        while self.begun.len() >= MAX_HANDSHAKES {
            let Some((begun, oldest)) = self.begun.front() else { return };
            select! {
                _ = self.tasks.join_next() => {}
                () = sleep_until(*begun + STALE) => oldest.abort(),
            }
            self.begun.retain(|(begun, task)| !task.is_finished() && begun.elapsed() < STALE);
        }
    }

    fn begin(&mut self, handshake: impl Future<Output = ()> + Send + 'static) {
        let task = self.tasks.spawn(handshake);
        self.begun.push_back((Instant::now(), task));
    }
}

async fn shake_hands(
    tls: ServerTls,
    stream: TcpStream,
    peer: Peer,
    place: Place,
    (ready, failed): (mpsc::Sender<Accepted>, Counter),
) {
    match timeout(PATIENCE, tls.accept(stream)).await {
        Ok(Ok((stream, certificate))) => {
            let (stream, facts) = (Stream::Tls(Box::new(stream)), Facts { peer, certificate });
            // Nobody listens any more: the replica is ending.
            let _ = ready.send(Accepted { stream, facts, place }).await;
            return;
        }
        Ok(Err(error)) => debug!(%peer, %error, "a TLS handshake failed"),
        Err(_) => debug!(%peer, "a TLS handshake took too long"),
    }
    failed.inc();
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn the_kernel_is_told_to_notice_a_vanished_peer_within_a_minute() -> io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let _peer = TcpStream::connect(listener.local_addr()?).await?;
        let (stream, _) = Bound::Tcp(listener).accept().await?;
        let Stream::Tcp(stream) = stream else { panic!("it is TCP") };
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive()?);
        let longest =
            socket.tcp_keepalive_time()? + socket.tcp_keepalive_interval()? * socket.tcp_keepalive_retries()?;
        assert!(longest <= Duration::from_secs(60), "{longest:?}");
        #[cfg(target_os = "linux")]
        assert_eq!(socket.tcp_user_timeout()?, Some(longest), "what is not acknowledged counts as well");
        Ok(())
    }
}
