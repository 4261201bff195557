//! Makes HTTP clients, one for each distinct set of settings.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use reqwest::{Certificate, ClientBuilder, Identity, Proxy, redirect, retry, tls};
use thiserror::Error;
use zeroize::Zeroizing;

use super::{
    HttpClient, HttpSettings,
    egress::{GuardedResolver, Lookup, SystemLookup},
    kept::watched,
};

/// How long a connection is kept that nothing is asked over: less than the 5 s after which the most hasty of common servers
/// close theirs (Node.js, Apache httpd), so that few requests meet the end of one.
const KEPT_FOR: Duration = Duration::from_secs(4);

/// How many of them to one host.
const MOST_KEPT: usize = 64;

/// After how long a silence during calls an HTTP/2 connection is asked whether it lives, and how long it may take to say so:
/// all calls share one, and they and the next ones would wait in vain where it leads nowhere.
const PING_AFTER: Duration = Duration::from_secs(2);

/// Clients by their settings, so that a thousand credentials do not load the system's certificates a thousand times.
///
/// Certificate files are read when a client is made: a replaced one is seen after a restart.
#[derive(Debug)]
pub struct HttpClients {
    pub(super) known: Mutex<HashMap<HttpSettings, HttpClient>>,
    lookup: Arc<dyn Lookup>,
}

impl Default for HttpClients {
    fn default() -> Self {
        Self { known: Mutex::default(), lookup: Arc::new(SystemLookup) }
    }
}

/// Why there is no client.
#[derive(Debug, Error)]
pub enum BadClient {
    /// A file cannot be read.
    #[error("cannot read the file {path}: {error}", path = .0.display(), error = .1)]
    File(PathBuf, std::io::ErrorKind),
    /// A file holds no certificate.
    #[error("the file {path} holds no certificate in PEM form", path = .0.display())]
    NoCertificate(PathBuf),
    /// The client's certificate and its key are unusable.
    #[error("the client certificate {cert} and its key {key} are not a pair in PEM form", cert = .0.display(), key = .1.display())]
    BadIdentity(PathBuf, PathBuf),
    /// The proxy's URL is unusable.
    #[error("the proxy cannot be used")]
    BadProxy,
    /// The TLS library refuses the settings.
    #[error("the TLS library refuses the certificates of these settings")]
    Tls,
}

impl HttpClients {
    /// Clients that find the addresses of names elsewhere than in the operating system.
    #[cfg(test)]
    pub(crate) fn with_lookup(lookup: Arc<dyn Lookup>) -> Self {
        Self { lookup, ..Self::default() }
    }

    /// The client with these settings.
    ///
    /// # Errors
    ///
    /// If a file that they name cannot be used.
    pub fn get(&self, settings: &HttpSettings) -> Result<HttpClient, BadClient> {
        // A panic elsewhere cannot leave the map half changed.
        let mut clients = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(settings) {
            return Ok(client.clone());
        }
        for warning in settings.warnings() {
            tracing::warn!("{warning}");
        }
        let make = |keeping| make(settings, keeping, &self.lookup);
        let client = HttpClient { single: make(false)?, keeping: make(true)?, settings: settings.clone() };
        clients.insert(settings.clone(), client.clone());
        Ok(client)
    }
}

fn make(settings: &HttpSettings, keeping: bool, lookup: &Arc<dyn Lookup>) -> Result<reqwest::Client, BadClient> {
    let certificates = settings.ca_file.as_deref().map(certificates).transpose()?.unwrap_or_default();
    let with_system = || Ok(builder(settings, keeping, lookup)?.tls_certs_merge(certificates.clone()));
    if let Ok(client) = with_system()?.build() {
        return Ok(client);
    }
    // A machine without any certificate authority is no reason not to reach an upstream over plain http.
    let client =
        builder(settings, keeping, lookup)?.tls_certs_only(certificates.clone()).build().map_err(|_| BadClient::Tls)?;
    if !keeping {
        tracing::warn!("the system has no certificate authorities: https works only to those in `ca_file`");
    }
    Ok(client)
}

fn builder(settings: &HttpSettings, keeping: bool, lookup: &Arc<dyn Lookup>) -> Result<ClientBuilder, BadClient> {
    let proxy = settings.proxy.as_ref();
    let egress = proxy.map_or_else(|| settings.egress.clone(), |proxy| settings.egress.towards(proxy));
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("tokencached/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .referer(false)
        .no_proxy()
        .dns_resolver(GuardedResolver::new(egress, Arc::clone(lookup)))
        .pool_max_idle_per_host(if keeping { MOST_KEPT } else { 0 })
        .pool_idle_timeout(KEPT_FOR)
        .tls_version_min(tls::Version::TLS_1_2)
        .connect_timeout(settings.connect_timeout)
        .timeout(settings.timeout)
        .tls_danger_accept_invalid_certs(!settings.verify);
    if keeping {
        builder = watched(builder.http2_keep_alive_interval(PING_AFTER).http2_keep_alive_timeout(PING_AFTER));
    }
    if let Some(proxy) = &settings.proxy {
        builder = builder.proxy(Proxy::all(proxy.clone()).map_err(|_| BadClient::BadProxy)?);
    }
    if let Some((cert, key)) = &settings.client_cert {
        builder = builder.identity(identity(cert, key)?);
    }
    Ok(builder)
}

fn certificates(path: &Path) -> Result<Vec<Certificate>, BadClient> {
    let none = || BadClient::NoCertificate(path.to_owned());
    let certificates = Certificate::from_pem_bundle(&read(path)?).map_err(|_| none())?;
    if certificates.is_empty() { Err(none()) } else { Ok(certificates) }
}

fn identity(cert: &Path, key: &Path) -> Result<Identity, BadClient> {
    let (chain, key_bytes) = (read(cert)?, Zeroizing::new(read(key)?));
    // The file may end without a line break; the PEM header after it needs one.
    let pem = Zeroizing::new([&chain[..], b"\n", &key_bytes[..]].concat());
    Identity::from_pem(&pem).map_err(|_| BadClient::BadIdentity(cert.to_owned(), key.to_owned()))
}

fn read(path: &Path) -> Result<Vec<u8>, BadClient> {
    std::fs::read(path).map_err(|error| BadClient::File(path.to_owned(), error.kind()))
}
