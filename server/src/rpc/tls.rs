//! TLS of the listeners: TLS 1.3 alone, no session resumption, certificates that may be renewed while it runs.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{authn::mtls::CertificateRules, types::Caller};

/// Where certificates are, and what client certificates mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The listener's certificate chain, PEM.
    pub cert_file: PathBuf,
    /// Its private key, PEM.
    pub key_file: PathBuf,
    /// Who signs client certificates, and who their holders are. `None`: none is asked for.
    pub clients: Option<(PathBuf, CertificateRules)>,
}

/// TLS of a listener. Cheap to clone; all clones see a renewal.
#[derive(Clone)]
pub struct ServerTls {
    files: Arc<TlsFiles>,
    current: Arc<ArcSwap<ServerConfig>>,
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.files, f)
    }
}

impl ServerTls {
    /// Reads the files.
    ///
    /// # Errors
    ///
    /// If one cannot be read or used; the error names it and tells nothing of its contents.
    pub fn load(files: TlsFiles) -> io::Result<Self> {
        let current = Arc::new(ArcSwap::from_pointee(read(&files)?));
        Ok(Self { files: Arc::new(files), current })
    }

    /// The files that a renewal replaces.
    #[must_use]
    pub fn paths(&self) -> Vec<PathBuf> {
        let authorities = self.files.clients.iter().map(|(file, _)| file.clone());
        [self.files.cert_file.clone(), self.files.key_file.clone()].into_iter().chain(authorities).collect()
    }

    /// Reads the files anew, for connections to come.
    ///
    /// # Errors
    ///
    /// As [`ServerTls::load`]; then everything stays as it was.
    pub fn reload(&self) -> io::Result<()> {
        self.current.store(Arc::new(read(&self.files)?));
        Ok(())
    }

    /// Shakes hands. Returns what the client's certificate says, if it showed one.
    pub(super) async fn accept(
        &self,
        stream: TcpStream,
    ) -> io::Result<(TlsStream<TcpStream>, Option<Result<Caller, &'static str>>)> {
        let stream = TlsAcceptor::from(self.current.load_full()).accept(stream).await?;
        let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let rules = self.files.clients.as_ref().map(|(_, rules)| rules);
        let certificate = shown.zip(rules).map(|(certificate, rules)| rules.identify(certificate));
        Ok((stream, certificate))
    }
}

fn read(files: &TlsFiles) -> io::Result<ServerConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let versions = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(io::Error::other)?;
    let builder = match &files.clients {
        None => versions.with_no_client_auth(),
        Some((file, _)) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(file)? {
                roots.add(certificate).map_err(|_| unusable(file, "the certificate of an authority"))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            // Who shows none may still present a bearer token; who shows a bad one is refused.
            let verifier = verifier.allow_unauthenticated().build().map_err(io::Error::other)?;
            versions.with_client_cert_verifier(verifier)
        }
    };
    let key = PrivateKeyDer::from_pem_slice(&open(&files.key_file)?);
    let key = key.map_err(|_| unusable(&files.key_file, "a private key"))?;
    let chain = certificates(&files.cert_file)?;
    let mismatch = |_| unusable(&files.key_file, "the private key of the certificate");
    let mut config = builder.with_single_cert(chain, key).map_err(mismatch)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would skip the look at the client's certificate.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn certificates(file: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&open(file)?).collect();
    chain.ok().filter(|chain| !chain.is_empty()).ok_or_else(|| unusable(file, "a certificate"))
}

fn open(file: &Path) -> io::Result<Vec<u8>> {
    fs::read(file).map_err(|error| io::Error::new(error.kind(), format!("cannot read {}: {error}", file.display())))
}

fn unusable(file: &Path, what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{} does not hold {what} in PEM", file.display()))
}
