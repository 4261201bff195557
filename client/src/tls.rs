//! TLS towards the broker. The files are read for every connection, so that a renewed certificate needs no restart.

use std::{
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Which authorities are trusted, and who we are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tls {
    /// Authorities in PEM. `None`: those of the operating system.
    pub(crate) ca_file: Option<PathBuf>,
    /// A certificate chain and its key, in PEM.
    pub(crate) identity: Option<(PathBuf, PathBuf)>,
    /// The name in the broker's certificate, where it is not the host's.
    pub(crate) server_name: Option<String>,
}

impl Tls {
    /// Shakes hands with the replica at `host`.
    pub(crate) async fn connect(&self, host: &str, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let name = self.server_name.as_deref().unwrap_or(host);
        let name = ServerName::try_from(name.trim_start_matches('[').trim_end_matches(']').to_owned());
        let name =
            name.map_err(|_| io::Error::new(ErrorKind::InvalidInput, "the host is no name for a certificate"))?;
        TlsConnector::from(Arc::new(self.config().await?)).connect(name, stream).await
    }

    async fn config(&self) -> io::Result<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().map_err(io::Error::other)?;
        let builder = builder.with_root_certificates(self.roots().await?);
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let key = PrivateKeyDer::from_pem_slice(&read(key).await?).map_err(|_| bad(key, "private key"))?;
                let chain = certificates(chain).await?;
                builder.with_client_auth_cert(chain, key).map_err(io::Error::other)?
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }

    async fn roots(&self) -> io::Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        let Some(file) = &self.ca_file else {
            let found = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs).await;
            roots.add_parsable_certificates(found.map_err(io::Error::other)?.certs);
            return Ok(roots);
        };
        for certificate in certificates(file).await? {
            roots.add(certificate).map_err(|_| bad(file, "authority's certificate"))?;
        }
        Ok(roots)
    }
}

async fn certificates(file: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(file).await?).collect();
    chain.ok().filter(|chain| !chain.is_empty()).ok_or_else(|| bad(file, "certificate"))
}

async fn read(file: &Path) -> io::Result<Vec<u8>> {
    let read = tokio::fs::read(file).await;
    read.map_err(|error| io::Error::new(error.kind(), format!("cannot read {}: {error}", file.display())))
}

fn bad(file: &Path, what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("{} holds no {what} in PEM", file.display()))
}
