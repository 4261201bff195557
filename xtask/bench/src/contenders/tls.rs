//! Certificates of a run: an authority, a server's, a client's.

use std::{fs, path::Path, path::PathBuf, sync::Arc};

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType, string::Ia5String};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer},
    version::TLS13,
};

/// The trust domain of the clients.
pub(crate) const DOMAIN: &str = "bench.example";

/// Certificates in a directory: `ca.pem`, `server.pem`, `server.key`.
pub(crate) struct Certificates {
    pub(crate) directory: PathBuf,
    /// A client that shows nothing of itself, and one with a certificate.
    pub(crate) plain: Arc<ClientConfig>,
    pub(crate) known: Arc<ClientConfig>,
}

impl Certificates {
    pub(crate) fn make(directory: &Path) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        fs::write(directory.join("ca.pem"), authority.pem())?;
        let issue = |name: SanType| -> Result<_> {
            let mut params = CertificateParams::default();
            params.subject_alt_names = vec![name];
            let key = KeyPair::generate()?;
            Ok((params.signed_by(&key, &authority)?, key))
        };
        let (server, server_key) = issue(SanType::DnsName(Ia5String::try_from("localhost")?))?;
        fs::write(directory.join("server.pem"), server.pem())?;
        fs::write(directory.join("server.key"), server_key.serialize_pem())?;
        let (client, client_key) = issue(SanType::URI(Ia5String::try_from(format!("spiffe://{DOMAIN}/client"))?))?;

        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(authority.der().to_vec()))?;
        let builder = || {
            let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
            builder.with_protocol_versions(&[&TLS13]).map(|builder| builder.with_root_certificates(roots.clone()))
        };
        let key = PrivateKeyDer::try_from(client_key.serialize_der()).map_err(anyhow::Error::msg)?;
        let mut plain = builder()?.with_no_client_auth();
        let mut known = builder()?.with_client_auth_cert(vec![client.der().clone()], key)?;
        for config in [&mut plain, &mut known] {
            config.alpn_protocols = vec![b"h2".to_vec()];
        }
        Ok(Self { directory: directory.to_owned(), plain: Arc::new(plain), known: Arc::new(known) })
    }
}
