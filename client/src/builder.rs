//! Builds clients: where the broker is, who calls it, and how long a call may take.

use std::{path::PathBuf, sync::Arc, time::Duration};

use crate::{
    AdminClient, Client, Error, ErrorKind, Result, Secret, address::Address, backoff::RetryBudget,
    connection::Connection, dial, identity::Identity, replicas::Replicas, tls::Tls, trace::TraceSource,
};

/// Where the broker's client API is unless told otherwise.
pub const DEFAULT_ENDPOINT: &str = "http://127.0.0.1:50051";

/// How long connecting may take unless told otherwise.
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a call may take unless told otherwise: longer than the broker gives an upstream.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(15);

/// The longest deadline: what `grpc-timeout` can tell in seconds, with eight digits.
const LONGEST_DEADLINE: Duration = Duration::from_secs(99_999_999);

/// Builds a [`Client`] or an [`AdminClient`].
#[derive(Clone, Debug)]
pub struct Builder {
    endpoints: Vec<String>,
    tls: Tls,
    identity: Option<Identity>,
    cleartext_identity: bool,
    traces: Option<TraceSource>,
    connect_timeout: Duration,
    deadline: Duration,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            endpoints: vec![],
            tls: Tls::default(),
            identity: None,
            cleartext_identity: false,
            traces: None,
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            deadline: DEFAULT_DEADLINE,
        }
    }
}

impl Builder {
    /// Where a replica of the broker is: `http://host:port`, `https://host:port` or `unix:PATH`. May be said of several.
    /// Default: [`DEFAULT_ENDPOINT`].
    #[must_use]
    pub fn endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.endpoints.push(endpoint.into());
        self
    }

    /// Where several replicas are. Each client draws an order of its own and stays with the first that is well.
    #[must_use]
    pub fn endpoints<S: Into<String>>(mut self, endpoints: impl IntoIterator<Item = S>) -> Self {
        self.endpoints.extend(endpoints.into_iter().map(Into::into));
        self
    }

    /// The authorities, in PEM, that certify the replicas with `https://`. Default: those of the operating system. This file
    /// and those of [`Builder::client_certificate`] are read for every new connection.
    #[must_use]
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.tls.ca_file = Some(path.into());
        self
    }

    /// The certificate chain and the key, in PEM, that say who calls (mTLS).
    #[must_use]
    pub fn client_certificate(mut self, chain_file: impl Into<PathBuf>, key_file: impl Into<PathBuf>) -> Self {
        self.tls.identity = Some((chain_file.into(), key_file.into()));
        self
    }

    /// The name in the replicas' certificates, where it is not the host's.
    #[must_use]
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.tls.server_name = Some(name.into());
        self
    }

    /// Says who calls by an API key or another bearer token, as `authorization: Bearer ...` (RFC 6750 section 2.1).
    #[must_use]
    pub fn bearer_token(mut self, token: Secret) -> Self {
        self.identity = Some(Identity::Fixed(token));
        self
    }

    /// The same from a file, which is read again whenever it was changed, e.g. a Kubernetes service account's token.
    #[must_use]
    pub fn bearer_token_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.identity = Some(Identity::file(path.into()));
        self
    }

    /// Lets a bearer token be sent over `http://` to another machine: for a mesh that encrypts what it carries.
    #[must_use]
    pub fn allow_cleartext_bearer_token(mut self, allow: bool) -> Self {
        self.cleartext_identity = allow;
        self
    }

    /// Says which trace each call belongs to: `traceparent` is asked in the task of the call, and its answer is sent as the
    /// header of this name (W3C Trace Context). The broker goes on with the trace if it is recorded. What this library does
    /// in tasks of its own, such as watching, asks there.
    #[must_use]
    pub fn traces(mut self, traceparent: impl Fn() -> Option<String> + Send + Sync + 'static) -> Self {
        self.traces = Some(TraceSource::new(traceparent));
        self
    }

    /// How long connecting may take.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long a call may take: connecting, and a second try on another replica, included. The broker is told
    /// (`grpc-timeout`), so that it stops waiting as well; a watch has no deadline.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline.min(LONGEST_DEADLINE);
        self
    }

    /// A client of the client API. It connects at its first call.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidRequest`] if an endpoint is none, or a bearer token would be sent in the clear to another
    /// machine.
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
        let default = [DEFAULT_ENDPOINT.to_owned()];
        let endpoints = if self.endpoints.is_empty() { &default[..] } else { &self.endpoints };
        let tls = Arc::new(self.tls);
        let mut channels = vec![];
        for endpoint in endpoints {
            let address = Address::parse(endpoint)?;
            if self.identity.is_some() && !address.is_private() && !self.cleartext_identity {
                let message = format!("{endpoint} would show the bearer token to the network: use https:// or unix:");
                return Err(Error::new(ErrorKind::InvalidRequest, message));
            }
            channels.push(dial::channel(&address, &tls, self.connect_timeout));
        }
        Ok(Connection {
            replicas: Arc::new(Replicas::new(channels)),
            budget: Arc::new(RetryBudget::new()),
            identity: self.identity,
            traces: self.traces,
            deadline: self.deadline,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_bearer_token_does_not_leave_the_machine_in_the_clear() {
        let builder = |endpoint: &str| Client::builder().endpoint(endpoint).bearer_token(Secret::new("s3cr3t"));
        let error = builder("http://broker.example:1").build().expect_err("everybody could read it");
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        assert!(!error.to_string().contains("s3cr3t"), "{error}");
        assert!(builder("http://broker.example:1").allow_cleartext_bearer_token(true).build().is_ok());
        for endpoint in ["http://127.0.0.1:1", "https://broker.example:1", "unix:/run/t.sock"] {
            assert!(builder(endpoint).build().is_ok(), "{endpoint}");
        }
    }

    #[tokio::test]
    async fn one_bad_endpoint_spoils_the_client() {
        let error = Client::builder().endpoints(["http://127.0.0.1:1", "nowhere"]).build().expect_err("no endpoint");
        assert!(error.to_string().contains("nowhere"), "{error}");
    }
}
