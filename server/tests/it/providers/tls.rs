//! The TLS settings of a credential, against a server that asks for a client certificate.

use std::path::{Path, PathBuf};

use tokencache_server::{
    error::ErrorKind,
    provider::{MintRequest, MintResult},
    time::Timestamp,
    types::{CredentialName, Selector, TokenKey},
};
use tokencache_testkit::tls::{TlsIdentity, certificate};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

/// A certificate authority, a server's certificate for 127.0.0.1 and a client's, valid for a hundred years.
fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls")
}

/// A token endpoint over TLS. It ends when it is dropped.
struct TlsServer {
    url: String,
    task: JoinHandle<()>,
}

impl TlsServer {
    async fn start(wants_client_cert: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("https://{}/token", listener.local_addr().expect("an address"));
        let identity = TlsIdentity::in_directory(&directory()).expect("a certificate and its key");
        let clients = wants_client_cert.then(|| certificate(&directory().join("ca.pem")).expect("an authority"));
        let acceptor = identity.acceptor(clients, &[]).expect("a pair");
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A client that goes away early is part of the tests.
                drop(answer(&acceptor, stream).await);
            }
        });
        Self { url, task }
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(acceptor: &TlsAcceptor, stream: TcpStream) -> std::io::Result<()> {
    let mut stream = acceptor.accept(stream).await?;
    let mut received = Vec::new();
    while !String::from_utf8_lossy(&received).ends_with("grant_type=client_credentials&client_id=c") {
        if stream.read_buf(&mut received).await? == 0 {
            return Ok(());
        }
    }
    let body = r#"{"access_token":"at","token_type":"Bearer","expires_in":60}"#;
    let reply = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(reply.as_bytes()).await?;
    stream.shutdown().await
}

async fn mint(server: &TlsServer, http: &str) -> MintResult {
    let case = tempfile::tempdir().expect("a directory");
    for file in ["ca.pem", "client.pem", "client.key"] {
        std::fs::copy(directory().join(file), case.path().join(file)).expect("a copy");
    }
    let keys = format!(
        "provider = \"oauth2\"\ngrant = \"client_credentials\"\nclient_id = \"c\"\ntoken_url = \"{}\"\nhttp = {{ {http} }}",
        server.url
    );
    std::fs::write(case.path().join("credential.toml"), keys).expect("a file");
    let provider = super::build(case.path(), "", Timestamp::from_millis(0)).expect("valid keys");
    let name = CredentialName::parse("tls").expect("a valid name");
    provider.mint(MintRequest { key: TokenKey::new(Selector::new(name, vec![], None, vec![])), grant: None }).await
}

#[tokio::test]
async fn a_server_of_an_unknown_authority_is_not_trusted() {
    let server = TlsServer::start(false).await;
    let failure = mint(&server, "").await.unwrap_err();
    assert_eq!((failure.error.kind(), failure.in_doubt), (ErrorKind::UpstreamDown, false), "{failure:?}");
    assert!(failure.error.message().contains("certificate"), "{failure:?}");
}

#[tokio::test]
async fn a_server_of_an_extra_authority_is_trusted() {
    let server = TlsServer::start(false).await;
    assert_eq!(mint(&server, "ca_file = \"ca.pem\"").await.unwrap().access_token.expose(), "at");
}

#[tokio::test]
async fn any_server_is_trusted_where_that_is_asked_for() {
    let server = TlsServer::start(false).await;
    assert_eq!(mint(&server, "verify = false").await.unwrap().access_token.expose(), "at");
}

#[tokio::test]
async fn the_client_certificate_is_presented() {
    let server = TlsServer::start(true).await;
    let with = "ca_file = \"ca.pem\", client_cert_file = \"client.pem\", client_key_file = \"client.key\"";
    assert_eq!(mint(&server, with).await.unwrap().access_token.expose(), "at");
    let failure = mint(&server, "ca_file = \"ca.pem\"").await.unwrap_err();
    assert_eq!(failure.error.kind(), ErrorKind::UpstreamDown, "{failure:?}");
}
