//! Builds clients: where the broker is and how long a call may take.

use std::time::Duration;

use tonic::{
    Request, Response, Status,
    transport::{Channel, Endpoint},
};

use crate::{AdminClient, Client, Error, ErrorKind, Result};

/// Where the broker's client API is unless told otherwise.
pub const DEFAULT_ENDPOINT: &str = "http://127.0.0.1:50051";

/// How long connecting may take unless told otherwise.
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a call may take unless told otherwise: longer than the broker gives an upstream.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(15);

/// The longest deadline: what `grpc-timeout` can tell in seconds, with eight digits.
const LONGEST_DEADLINE: Duration = Duration::from_secs(99_999_999);

/// A ping after so long without a frame, so that a watcher notices a broker that is gone.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Builds a [`Client`] or an [`AdminClient`].
#[derive(Clone, Debug)]
pub struct Builder {
    endpoint: String,
    connect_timeout: Duration,
    deadline: Duration,
}

impl Default for Builder {
    fn default() -> Self {
        Self { endpoint: DEFAULT_ENDPOINT.into(), connect_timeout: DEFAULT_CONNECT_TIMEOUT, deadline: DEFAULT_DEADLINE }
    }
}

impl Builder {
    /// Where the broker is: `http://host:port` or `unix:PATH`.
    #[must_use]
    pub fn endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.endpoint = endpoint.into();
        self
    }

    /// How long connecting may take.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long a call may take. The broker is told, so that it stops waiting as well; a watch has no deadline.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline.min(LONGEST_DEADLINE);
        self
    }

    /// A client of the client API. It connects at its first call.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidRequest`] if the endpoint is none.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn build(self) -> Result<Client> {
        Ok(Client::new(self.connect()?))
    }

    /// A client of the admin API. It connects at its first call.
    ///
    /// # Errors
    ///
    /// As [`Builder::build`].
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn build_admin(self) -> Result<AdminClient> {
        Ok(AdminClient::new(self.connect()?))
    }

    fn connect(self) -> Result<Connection> {
        let endpoint = parse_endpoint(&self.endpoint)?
            .connect_timeout(self.connect_timeout)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .tcp_nodelay(true);
        Ok(Connection {
            channel: endpoint.connect_lazy(),
            connect_timeout: self.connect_timeout,
            deadline: self.deadline,
        })
    }
}

fn parse_endpoint(text: &str) -> Result<Endpoint> {
    let bad = || {
        let message = format!("{text:?} is no endpoint: write http://host:port or unix:PATH");
        Error::new(ErrorKind::InvalidRequest, message)
    };
    if let Some(path) = text.strip_prefix("unix:")
        && path.trim_start_matches('/').is_empty()
    {
        return Err(bad());
    }
    let endpoint = Endpoint::from_shared(text.to_owned()).map_err(|_| bad())?;
    let is_http = endpoint.uri().scheme_str() == Some("http") && endpoint.uri().host().is_some();
    if text.starts_with("unix:") || is_http { Ok(endpoint) } else { Err(bad()) }
}

/// A channel and how long a call over it may take.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(crate) channel: Channel,
    connect_timeout: Duration,
    deadline: Duration,
}

impl Connection {
    /// A request that tells the broker the deadline (`grpc-timeout`; `Endpoint::timeout` would not send it).
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.deadline);
        request
    }

    /// Bounds a call as a whole. The deadline of the request covers neither the look-up of a name nor connecting.
    pub(crate) async fn bounded<T>(&self, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T> {
        let limit = self.connect_timeout + self.deadline;
        match tokio::time::timeout(limit, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(Error::from_status(&status)),
            Err(_) => Err(Error::slow(limit)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_tcp_address_or_a_unix_socket() {
        for text in ["http://127.0.0.1:50051", "http://broker.example:1", "unix:/run/t.sock", "unix:t.sock"] {
            assert!(parse_endpoint(text).is_ok(), "{text}");
        }
        for text in ["", "127.0.0.1:50051", "https://broker.example", "ftp://x", "unix:", "unix://", "http://", "a b"] {
            let error = parse_endpoint(text).expect_err(text);
            assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{text}");
            assert!(error.message().contains("http://host:port"), "{error}");
        }
    }
}
