//! Listening: addresses become listeners, connections become calls, within limits.

use std::{
    io,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::Path,
    sync::Arc,
};

use tokio::{
    net::{TcpListener, UnixListener, UnixStream},
    select,
    sync::mpsc,
    task::JoinSet,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    accept::Acceptor,
    calls::Calls,
    connection,
    front::{Front, Offer},
    headers::AnswerHeaders,
    shed::Shed,
    standing::Standing,
    tls::ServerTls,
};
use crate::{config::Listen, metrics::ListenerMetrics, trace::Tracer};

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
    /// Where its calls are counted.
    pub calls: Calls,
    /// Which calls are recorded.
    pub tracer: Tracer,
    /// Where its connections are counted.
    pub metrics: ListenerMetrics,
}

/// Serves what is offered until `stop`, then ends the calls in progress and returns. Dropped, it drops them.
pub async fn serve(bound: Bound, offer: Offer, terms: Terms, stop: CancellationToken) {
    let (accepted, mut connections) = mpsc::channel(ACCEPTED);
    let acceptor = Acceptor::new(bound, terms.tls, terms.max_connections, terms.metrics);
    let accepting = AbortOnDropHandle::new(tokio::spawn(acceptor.run(accepted)));
    let Terms { http1, shed, headers, calls, tracer, .. } = terms;
    let standing = Standing::default();
    let front = Arc::new(Front { offer, shed, headers, calls, tracer });
    let mut served = JoinSet::new();
    loop {
        let accepted = select! {
            accepted = connections.recv() => accepted,
            Some(_) = served.join_next() => continue,
            () = stop.cancelled() => break,
        };
        let Some(accepted) = accepted else { break };
        let front = Arc::clone(&front);
        served.spawn(connection::serve(accepted, http1, front, standing.clone(), stop.clone()));
    }
    // No new connections, and none that waits to be served.
    drop((accepting, connections));
    while served.join_next().await.is_some() {}
}
