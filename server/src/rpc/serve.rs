//! Listening: addresses become listeners, connections become calls, within limits.

use std::{
    io,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::Path,
    time::Duration,
};

use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::{service::Routes, transport::Server};

use super::layers::AnswerHeaders;
use crate::config::Listen;

/// Calls in progress on one connection. tonic's default is no limit.
const MAX_STREAMS: u32 = 128;

/// Resets that one connection may cause: tonic's default switches h2's own limit off (RUSTSEC-2024-0003).
const MAX_LOCAL_RESETS: usize = 256;

/// Calls that one connection may give up before they were looked at, at a time: all of its calls, for a client whose calls
/// run into one deadline while this process is busy must not lose its connection, and other callers' calls with it. h2's
/// own limit is 20 (CVE-2023-44487).
const MAX_EARLY_RESETS: usize = MAX_STREAMS as usize;

/// How often an idle connection is probed, so that a peer that vanished is noticed.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// A bound listener.
#[derive(Debug)]
pub enum Bound {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(UnixListener),
}

impl Bound {
    /// Binds an address. A socket file that nobody listens on any more is replaced; one in use is not.
    ///
    /// # Errors
    ///
    /// If the address is in use or not ours.
    pub async fn bind(address: &Listen) -> io::Result<Self> {
        match address {
            Listen::Tcp(address) => TcpListener::bind(address).await.map(Self::Tcp),
            Listen::Unix(path) => bind_unix(path).await.map(Self::Unix),
        }
    }

    /// The address, with the port that was picked if it was 0.
    ///
    /// # Errors
    ///
    /// If the operating system does not tell.
    pub fn address(&self) -> io::Result<Listen> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(Listen::Tcp),
            Self::Unix(listener) => {
                let address = listener.local_addr()?;
                let path = address.as_pathname().ok_or_else(|| io::Error::other("a socket without a path"))?;
                Ok(Listen::Unix(path.to_owned()))
            }
        }
    }
}

async fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    let abandoned = || async {
        // A file of any other kind refuses connections as well, and is somebody's.
        let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
        let refused = UnixStream::connect(path).await.err().map(|error| error.kind());
        is_socket && refused == Some(io::ErrorKind::ConnectionRefused)
    };
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && abandoned().await => {
            std::fs::remove_file(path)?;
            UnixListener::bind(path)?
        }
        bound => bound?,
    };
    // Who may connect is who may open the file: the owner and the group.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

/// Serves `routes` until `stop`, then ends the calls in progress and returns.
///
/// # Errors
///
/// If the listener fails.
pub async fn serve(
    bound: Bound,
    routes: Routes,
    headers: AnswerHeaders,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let router = Server::builder()
        // Metrics and health are read over HTTP/1.1; in dev mode on the same port.
        .accept_http1(true)
        .tcp_nodelay(true)
        .max_concurrent_streams(MAX_STREAMS)
        .http2_max_local_error_reset_streams(Some(MAX_LOCAL_RESETS))
        .http2_max_pending_accept_reset_streams(Some(MAX_EARLY_RESETS))
        .http2_keepalive_interval(Some(KEEPALIVE))
        .layer(headers)
        .add_routes(routes);
    let stop = stop.cancelled_owned();
    match bound {
        Bound::Tcp(listener) => router.serve_with_incoming_shutdown(TcpListenerStream::new(listener), stop).await,
        Bound::Unix(listener) => router.serve_with_incoming_shutdown(UnixListenerStream::new(listener), stop).await,
    }
}
