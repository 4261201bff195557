//! TLS to the broker and to upstreams, with certificates made for the test.

use std::{fs, path::PathBuf, sync::Arc};

use rcgen::{BasicConstraints, Certificate, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::WebPkiClientVerifier,
};
use tempfile::TempDir;
use tokencache_client::{Client, ErrorKind, GetToken};
use tokio_rustls::TlsAcceptor;

use crate::fake::serve_tls;

/// An authority, and where it keeps what it certifies.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: Certificate,
    directory: TempDir,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a certificate");
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("ca.pem"), certificate.pem()).expect("a file");
        Self { issuer: Issuer::new(params, key), certificate, directory }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn certify(&self, name: &str, usage: ExtendedKeyUsagePurpose) -> (Certificate, KeyPair) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.extended_key_usages = vec![usage];
        (params.signed_by(&key, &self.issuer).expect("a certificate"), key)
    }

    /// Writes a client's certificate and key.
    pub(crate) fn write_client(&self) -> (PathBuf, PathBuf) {
        let (certificate, key) = self.certify("client.example", ExtendedKeyUsagePurpose::ClientAuth);
        let (chain_file, key_file) = (self.file("client.pem"), self.file("client.key"));
        fs::write(&chain_file, certificate.pem()).expect("a file");
        fs::write(&key_file, key.serialize_pem()).expect("a file");
        (chain_file, key_file)
    }

    /// Accepts connections as a host; from those alone whom `clients` certifies.
    pub(crate) fn acceptor(&self, host: &str, clients: Option<&Self>, protocol: &[u8]) -> TlsAcceptor {
        let (certificate, key) = self.certify(host, ExtendedKeyUsagePurpose::ServerAuth);
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().expect("protocols");
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(clients) => {
                let mut roots = RootCertStore::empty();
                roots.add(clients.certificate.der().clone()).expect("an authority");
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
            }
        };
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let chain = vec![CertificateDer::from(certificate.der().to_vec())];
        let mut config = builder.with_single_cert(chain, key).expect("a certificate for the key");
        config.alpn_protocols = vec![protocol.to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }
}

#[tokio::test]
async fn a_broker_is_believed_if_its_authority_is() {
    let (authority, other) = (Authority::new(), Authority::new());
    let endpoint = serve_tls(authority.acceptor("localhost", None, b"h2")).await;
    let client = || Client::builder().endpoint(&endpoint);
    client().ca_file(authority.file("ca.pem")).build().unwrap().get_token(GetToken::of("demo")).await.unwrap();
    for (ca_file, word) in [(other.file("ca.pem"), "certificate"), (authority.file("none.pem"), "none.pem")] {
        let client = client().ca_file(ca_file).build().unwrap();
        let error = client.get_token(GetToken::of("demo")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unreachable);
        assert!(error.to_string().contains(word), "{error}");
    }
    let error = client().build().unwrap().get_token(GetToken::of("demo")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "the operating system does not know the authority");
}

#[tokio::test]
async fn a_client_shows_its_certificate_and_takes_a_renewed_one_without_a_restart() {
    let (authority, renewed) = (Authority::new(), Authority::new());
    let endpoint = serve_tls(authority.acceptor("broker.example", Some(&renewed), b"h2")).await;
    let (chain_file, key_file) = authority.write_client();
    let client = Client::builder()
        .endpoint(endpoint)
        .server_name("broker.example")
        .ca_file(authority.file("ca.pem"))
        .client_certificate(&chain_file, &key_file)
        .build()
        .unwrap();
    let error = client.get_token(GetToken::of("demo")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
    let (new_chain, new_key) = renewed.write_client();
    fs::copy(new_chain, chain_file).unwrap();
    fs::copy(new_key, key_file).unwrap();
    client.get_token(GetToken::of("demo")).await.unwrap();
}
