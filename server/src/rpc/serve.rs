//! Listening: addresses become listeners, connections become calls, within limits.

use std::{
    io,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::Path,
    time::Duration,
};

use tokio::{
    net::{TcpListener, UnixListener, UnixStream},
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tonic::{service::Routes, transport::Server};

use super::{accept::Acceptor, layers::AnswerHeaders, shed::Shed, tls::ServerTls};
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

/// How long the answer to such a probe may take.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// The headers of one call together, in bytes, as HTTP/2 counts them: room for the longest JWT that is looked at.
const MAX_HEADERS: u32 = 32 * 1024;

/// Connections that are ready and not yet served.
const ACCEPTED: usize = 64;

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

/// What a listener's connections and calls are bound by.
#[derive(Clone, Debug)]
pub struct Terms {
    /// TLS. `None`: none.
    pub tls: Option<ServerTls>,
    /// Connections at a time.
    pub max_connections: usize,
    /// Whether HTTP/1.1 is understood, for scrapers and probes.
    pub http1: bool,
    /// Sheds calls that are too many.
    pub shed: Shed,
    /// What every answer carries.
    pub headers: AnswerHeaders,
}

/// Serves `routes` until `stop`, then ends the calls in progress and returns.
///
/// # Errors
///
/// If the listener fails.
pub async fn serve(
    bound: Bound,
    routes: Routes,
    terms: Terms,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let (accepted, connections) = mpsc::channel(ACCEPTED);
    let acceptor = Acceptor::new(bound, terms.tls, terms.max_connections);
    let accepting = AbortOnDropHandle::new(tokio::spawn(acceptor.run(accepted)));
    let served = Server::builder()
        .accept_http1(terms.http1)
        .max_concurrent_streams(MAX_STREAMS)
        .http2_max_local_error_reset_streams(Some(MAX_LOCAL_RESETS))
        .http2_max_pending_accept_reset_streams(Some(MAX_EARLY_RESETS))
        .http2_max_header_list_size(MAX_HEADERS)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .layer(terms.headers)
        .layer(terms.shed)
        .add_routes(routes)
        .serve_with_incoming_shutdown(ReceiverStream::new(connections), stop.cancelled_owned())
        .await;
    drop(accepting);
    served
}
