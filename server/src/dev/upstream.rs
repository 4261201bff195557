//! The demo upstream as a worker: an HTTP server on loopback with a token endpoint, a log-in and a protected API.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    routing::{get, post},
};
use tokio::{net::TcpListener, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{DevHome, api, oauth2, tokens::Issuer};
use crate::time::SharedClock;

/// How long open connections may take to end when the process stops.
const DRAIN: Duration = Duration::from_secs(1);

/// What the endpoints share.
#[derive(Debug)]
pub(super) struct Demo {
    pub(super) issuer: Issuer,
    /// `http://host:port`, without a slash at its end.
    pub(super) base_url: String,
}

/// The demo upstream, not yet running.
#[derive(Debug)]
pub struct DemoUpstream {
    listener: TcpListener,
    address: SocketAddr,
    demo: Arc<Demo>,
}

impl DemoUpstream {
    /// An upstream that will answer on `listener`, with the secrets of `home`.
    ///
    /// # Errors
    ///
    /// If the listener has no address, or one that other machines can reach.
    pub fn new(listener: TcpListener, home: DevHome, clock: SharedClock) -> io::Result<Self> {
        let address = listener.local_addr()?;
        if !address.ip().is_loopback() {
            let message = format!("the demo upstream listens on loopback only, not on {address}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let issuer = Issuer::new(home.key, clock);
        let demo = Arc::new(Demo { issuer, base_url: format!("http://{address}") });
        Ok(Self { listener, address, demo })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until it is told to stop, and then for a second more to the requests that it has begun.
    ///
    /// # Errors
    ///
    /// If the listener fails for good.
    pub async fn run(self, stop: CancellationToken) -> io::Result<()> {
        let serve =
            axum::serve(self.listener, router(self.demo)).with_graceful_shutdown(stop.clone().cancelled_owned());
        let deadline = async {
            stop.cancelled().await;
            sleep(DRAIN).await;
        };
        tokio::select! {
            result = serve => result,
            () = deadline => Ok(()),
        }
    }
}

pub(super) fn router(demo: Arc<Demo>) -> Router {
    Router::new()
        .route("/.well-known/oauth-authorization-server", get(oauth2::metadata))
        .route("/oauth2/token", post(oauth2::token))
        .route("/oauth2/revoke", post(oauth2::revoke))
        .route("/oauth2/introspect", post(oauth2::introspect))
        .route("/login", post(api::login))
        .route("/logout", post(api::logout))
        .route("/api/hello", get(api::hello))
        .route("/demo/revoke", post(api::revoke))
        .with_state(demo)
}

#[cfg(test)]
mod tests;
