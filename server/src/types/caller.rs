//! Who calls.

use std::net::SocketAddr;

/// What the transport knows of the other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A TCP connection.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix,
    /// Not known: a call within the process.
    Unknown,
}

/// An authenticated caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Anybody who can reach the listener.
    Anonymous(Peer),
}
