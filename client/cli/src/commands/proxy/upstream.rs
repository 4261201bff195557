//! The connections to the upstream.

use std::{
    io,
    path::Path,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, Error, ResponseFuture, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use tokencache_client::tower::TokenBody;
use tower::Service;

use super::headers;
use crate::{args::Proxy, failure::Failure};

/// As long as connecting to the broker may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) type RequestBody = TokenBody<Incoming>;

/// Sends requests. Cheap to clone; clones share the connections.
#[derive(Clone, Debug)]
pub(super) struct Upstream {
    any: Client<HttpsConnector<HttpConnector>, RequestBody>,
    /// With HTTP/1.1 alone, which can be upgraded.
    first: Client<HttpsConnector<HttpConnector>, RequestBody>,
}

impl Upstream {
    pub(super) fn new(proxy: &Proxy) -> Result<Self, Failure> {
        let uri = &proxy.upstream;
        if uri.scheme_str() == Some("http") && !is_loopback(uri) && !proxy.allow_cleartext {
            let text = format!("{uri} would show the token to the network; use https:// or say --allow-cleartext");
            return Err(Failure::Usage(text));
        }
        let tls = tls(proxy.upstream_ca_file.as_deref())?;
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let https = || HttpsConnectorBuilder::new().with_tls_config(tls.clone()).https_or_http();
        let mut builder = Client::builder(TokioExecutor::new());
        // As the program wrote them, for upstreams that mind.
        builder.http1_preserve_header_case(true).pool_timer(TokioTimer::new());
        Ok(Self {
            any: builder.build(https().enable_all_versions().wrap_connector(tcp.clone())),
            first: builder.build(https().enable_http1().wrap_connector(tcp)),
        })
    }
}

impl Service<Request<RequestBody>> for Upstream {
    type Response = Response<Incoming>;
    type Error = Error;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<RequestBody>) -> ResponseFuture {
        let client = if headers::upgrade(request.headers()).is_some() { &self.first } else { &self.any };
        client.request(request)
    }
}

fn is_loopback(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

fn tls(ca_file: Option<&Path>) -> Result<ClientConfig, Failure> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        Some(file) => {
            let wrong = |what: &dyn std::fmt::Display| {
                Failure::Usage(format!("cannot use {}: {what}; see --upstream-ca-file", file.display()))
            };
            let text = std::fs::read(file).map_err(|error: io::Error| wrong(&error))?;
            let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
            let chain = chain.ok().filter(|chain| !chain.is_empty());
            for certificate in chain.ok_or_else(|| wrong(&"it holds no certificate in PEM"))? {
                roots.add(certificate).map_err(|_| wrong(&"it holds a certificate of no authority"))?;
            }
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().expect("the provider knows TLS 1.2 and 1.3");
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
