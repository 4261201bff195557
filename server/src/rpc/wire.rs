//! The bytes of a connection: what is written during one turn leaves in one piece, and what is read is metered.
//!
//! h2 flushes after every answer, which is a system call for each. With 64 connections of 32 streams each, this, the inline
//! calls of `turn.rs` and the encoding of `get_token.rs` together took the server's CPU time per call from 2.1 to 1.3 times
//! that of a stock tonic service.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
    time::{Sleep, sleep},
};
use tokio_rustls::server::TlsStream;

use super::{
    hold::{Held, Hold},
    meter::Meter,
};

/// How long a connection may be open before its first bytes.
const PATIENCE: Duration = Duration::from_secs(5);

/// The length of HTTP/2's preface (RFC 9113 section 3.4): who has sent as much has begun to speak.
const PREFACE: usize = 24;

/// What is collected before it is sent in the middle of a turn; a peer that does not take it is not written to.
const COLLECTED: usize = 64 * 1024;

thread_local! {
    /// The buffer of whichever connection has its turn: one that has nothing to send holds none.
    static SPARE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What the bytes travel over.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

/// One end of a connection. Cheap to clone; all clones are the same end.
#[derive(Clone, Debug)]
pub(super) struct Wire(Arc<Mutex<Line>>);

impl Wire {
    /// Over this stream. Who is in disgrace is not listened to at first.
    pub(super) fn new(stream: Stream, disgrace: bool, hold: Hold) -> Self {
        let silence = Some((Box::pin(sleep(PATIENCE)), 0));
        let (meter, hold) = (Meter::new(disgrace), Held::new(hold));
        Self(Arc::new(Mutex::new(Line { stream, collected: vec![], sent: 0, hold, meter, pause: None, silence })))
    }

    /// Waits until what was held back at the end of a turn has been sent.
    pub(super) fn poll_release(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut line = self.line();
        if line.hold.is_closed() { line.poll_send(context) } else { Poll::Ready(Ok(())) }
    }

    /// Sends what was collected in this turn.
    pub(super) fn poll_send(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.line().poll_send(context)
    }

    /// Whether the peer has said more than it was entitled to.
    pub(super) fn is_in_debt(&self) -> bool {
        self.line().meter.is_in_debt()
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Line {
    stream: Stream,
    collected: Vec<u8>,
    /// How much of it the peer has taken.
    sent: usize,
    /// Holds back what is not on record yet.
    hold: Held,
    meter: Meter,
    /// Until when the peer is not read from.
    pause: Option<Pin<Box<Sleep>>>,
    /// Ends a connection that does not begin to speak.
    silence: Option<(Pin<Box<Sleep>>, usize)>,
}

impl Line {
    fn poll_read(&mut self, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_pause(context));
        let before = into.filled().len();
        let polled = match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(context, into),
            Stream::Tls(stream) => Pin::new(stream).poll_read(context, into),
            Stream::Unix(stream) => Pin::new(stream).poll_read(context, into),
        };
        let read = &into.filled()[before..];
        self.meter.read(read);
        self.check_silence(context, read.len())?;
        polled
    }

    /// Waits until the peer is out of debt.
    fn poll_pause(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(context));
                self.pause = None;
            }
            let Some(debt) = self.meter.debt() else { return Poll::Ready(()) };
            self.pause = Some(Box::pin(sleep(debt)));
        }
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

    fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.collected.len() - self.sent >= COLLECTED {
            ready!(self.poll_send(context))?;
        }
        if self.collected.capacity() == 0 {
            self.collected = SPARE.take();
        }
        self.collected.extend_from_slice(bytes);
        self.meter.wrote(bytes.len());
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.collected.capacity() == 0 {
            return Poll::Ready(Ok(()));
        }
        ready!(self.hold.poll_open(context))?;
        while self.sent < self.collected.len() {
            let left = &self.collected[self.sent..];
            let sent = ready!(match &mut self.stream {
                Stream::Tcp(stream) => Pin::new(stream).poll_write(context, left),
                Stream::Tls(stream) => Pin::new(stream).poll_write(context, left),
                Stream::Unix(stream) => Pin::new(stream).poll_write(context, left),
            })?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += sent;
        }
        // TLS has a buffer of its own.
        if let Stream::Tls(stream) = &mut self.stream {
            ready!(Pin::new(stream).poll_flush(context))?;
        }
        self.sent = 0;
        self.collected.clear();
        SPARE.set(std::mem::take(&mut self.collected));
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(context))?;
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.line().poll_read(context, into)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.line().poll_write(context, bytes)
    }

    /// What is written leaves at the end of the turn, see [`Wire::poll_send`].
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.line().poll_shutdown(context)
    }
}
