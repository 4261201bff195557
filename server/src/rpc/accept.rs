//! From a listener to connections that may call: a bound on how many there are, TLS, and who is at the other end.
//!
//! All of it happens before anybody is authenticated, so each step is bounded in time and in number.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
    select,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::{AbortHandle, JoinSet},
    time::{Instant, Sleep, sleep, sleep_until, timeout},
};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;
use tracing::{debug, warn};

use super::{serve::Bound, tls::ServerTls};
use crate::types::{Caller, Peer, PeerUser};

/// How long a TLS handshake may take, and the first bytes of a connection.
const PATIENCE: Duration = Duration::from_secs(5);

/// Handshakes in progress at a time.
const MAX_HANDSHAKES: usize = 64;

/// How old a handshake is that gives way to a new one when there are too many: those who mean it take far less.
const STALE: Duration = Duration::from_secs(1);

/// The length of HTTP/2's preface (RFC 9113 section 3.4): who has sent as much has begun to speak.
const PREFACE: usize = 24;

/// How long to wait after an `accept` that failed for lack of file descriptors or memory.
const BREATH: Duration = Duration::from_millis(100);

/// What is known of a connection.
#[derive(Debug)]
pub struct Facts {
    /// Where it comes from.
    pub peer: Peer,
    /// The identity in the client's certificate, or why there is none in it. `None`: no certificate.
    pub certificate: Option<Result<Caller, &'static str>>,
}

/// Accepts connections.
#[derive(Debug)]
pub struct Acceptor {
    bound: Bound,
    tls: Option<ServerTls>,
    room: Arc<Semaphore>,
}

impl Acceptor {
    /// Of this listener, at most `max_connections` at a time.
    #[must_use]
    pub fn new(bound: Bound, tls: Option<ServerTls>, max_connections: usize) -> Self {
        Self { bound, tls, room: Arc::new(Semaphore::new(max_connections.min(Semaphore::MAX_PERMITS))) }
    }

    /// Sends each connection that is ready into `ready` until nobody listens there.
    pub async fn run(self, ready: mpsc::Sender<io::Result<Connection>>) {
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
                continue;
            };
            match (&self.tls, stream) {
                (Some(tls), Stream::Tcp(stream)) => {
                    handshakes.make_room().await;
                    handshakes.begin(shake_hands(tls.clone(), stream, peer, room, ready.clone()));
                }
                (_, stream) => {
                    let facts = Facts { peer, certificate: None };
                    if ready.send(Ok(Connection::new(stream, facts, room))).await.is_err() {
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
    room: OwnedSemaphorePermit,
    ready: mpsc::Sender<io::Result<Connection>>,
) {
    match timeout(PATIENCE, tls.accept(stream)).await {
        Ok(Ok((stream, certificate))) => {
            let connection = Connection::new(Stream::Tls(Box::new(stream)), Facts { peer, certificate }, room);
            // Nobody listens any more: the replica is ending.
            let _ = ready.send(Ok(connection)).await;
        }
        Ok(Err(error)) => debug!(%peer, %error, "a TLS handshake failed"),
        Err(_) => debug!(%peer, "a TLS handshake took too long"),
    }
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

/// A connection that may call.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    facts: Arc<Facts>,
    /// Ends a connection that does not begin to speak.
    silence: Option<(Pin<Box<Sleep>>, usize)>,
    _room: OwnedSemaphorePermit,
}

impl Connection {
    fn new(stream: Stream, facts: Facts, room: OwnedSemaphorePermit) -> Self {
        Self { stream, facts: Arc::new(facts), silence: Some((Box::pin(sleep(PATIENCE)), 0)), _room: room }
    }

    /// Counts what was read, and ends the connection if it is not enough in time.
    fn check_silence(&mut self, context: &mut Context<'_>, read: usize) -> io::Result<()> {
        let Some((end, total)) = &mut self.silence else { return Ok(()) };
        *total += read;
        if *total >= PREFACE {
            self.silence = None;
        } else if end.as_mut().poll(context).is_ready() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "nothing was said in time"));
        }
        Ok(())
    }
}

impl Connected for Connection {
    type ConnectInfo = Arc<Facts>;

    fn connect_info(&self) -> Arc<Facts> {
        Arc::clone(&self.facts)
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let polled = match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(context, into),
            Stream::Tls(stream) => Pin::new(stream).poll_read(context, into),
            Stream::Unix(stream) => Pin::new(stream).poll_read(context, into),
        };
        self.check_silence(context, into.filled().len() - before)?;
        polled
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Stream::Unix(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    /// No: h2 0.4 then copies small frames into its own buffer and writes an answer in one call instead of two.
    fn is_write_vectored(&self) -> bool {
        false
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(context),
            Stream::Unix(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
