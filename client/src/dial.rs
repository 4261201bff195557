//! Makes connections: over TCP, with TLS where the address says so, or to a Unix socket.

use std::{
    io,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
};
use tonic::transport::{Channel, Endpoint};
use tower_service::Service;

use crate::{address::Address, tls::Tls};

/// A ping after so long without a frame, so that a watcher notices a broker that is gone.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// A channel to an address, which connects when it is first used and again whenever the connection was lost.
pub(crate) fn channel(address: &Address, tls: &Arc<Tls>, connect_timeout: Duration) -> Channel {
    Endpoint::from(address.uri())
        .origin(address.origin())
        .connect_timeout(connect_timeout)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .connect_with_connector_lazy(Dialer::new(address, tls))
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

type Stream = TokioIo<Box<dyn Io>>;

/// Dials one address.
#[derive(Clone)]
struct Dialer {
    address: Address,
    tls: Arc<Tls>,
    tcp: HttpConnector,
}

impl Dialer {
    fn new(address: &Address, tls: &Arc<Tls>) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        Self { address: address.clone(), tls: Arc::clone(tls), tcp }
    }

    async fn dial(mut self, uri: Uri) -> Result<Stream, Box<dyn std::error::Error + Send + Sync>> {
        let stream: Box<dyn Io> = match &self.address {
            Address::Unix(path) => Box::new(UnixStream::connect(path).await?),
            Address::Tcp { tls, .. } => {
                std::future::poll_fn(|cx| self.tcp.poll_ready(cx)).await?;
                let host = uri.host().unwrap_or_default().to_owned();
                let stream = self.tcp.call(with_port(uri, *tls)?).await?.into_inner();
                if *tls { Box::new(self.tls.connect(&host, stream).await?) } else { Box::new(stream) }
            }
        };
        Ok(TokioIo::new(stream))
    }
}

/// The connector knows `http` alone, whose port is another one.
fn with_port(uri: Uri, tls: bool) -> io::Result<Uri> {
    if !tls || uri.port().is_some() {
        return Ok(uri);
    }
    let authority = format!("{}:443", uri.host().unwrap_or_default());
    let uri = Uri::builder().scheme("http").authority(authority).path_and_query("/");
    uri.build().map_err(io::Error::other)
}

impl Service<Uri> for Dialer {
    type Response = Stream;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Stream, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().dial(uri))
    }
}
