//! TLS as the servers of tests speak it.

use std::{path::Path, sync::Arc};

use anyhow::{Context as _, Result};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use tokio_rustls::TlsAcceptor;

/// Who accepts connections: a certificate and the key to it.
#[derive(Debug)]
pub struct TlsIdentity {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl TlsIdentity {
    /// The one in the files `server.pem` and `server.key` of a directory.
    ///
    /// # Errors
    ///
    /// If they are not there or in another form.
    pub fn in_directory(directory: &Path) -> Result<Self> {
        let certificate = certificate(&directory.join("server.pem"))?;
        let key = PrivateKeyDer::from_pem_file(directory.join("server.key")).context("server.key")?;
        Ok(Self { certificate, key })
    }

    /// Accepts connections, if `clients` is an authority from those alone whom it certifies, and speaks these protocols
    /// (ALPN), or any if there are none.
    ///
    /// # Errors
    ///
    /// If the certificates cannot be used.
    pub fn acceptor(self, clients: Option<CertificateDer<'static>>, protocols: &[&[u8]]) -> Result<TlsAcceptor> {
        let provider = Arc::new(default_provider());
        let builder =
            ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority)?;
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build()?)
            }
        };
        let mut config = builder.with_single_cert(vec![self.certificate], self.key)?;
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

/// The first certificate in a file.
///
/// # Errors
///
/// If there is none.
pub fn certificate(file: &Path) -> Result<CertificateDer<'static>> {
    CertificateDer::from_pem_file(file).with_context(|| file.display().to_string())
}
