//! TLS and client certificates, made for each test.

use std::{fs, path::Path};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose, SanType,
    string::Ia5String,
};
use time::{Duration as Span, OffsetDateTime};
use tokencache_client::{Client, GetToken, Result};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::broker::{Broker, Over, Stage};

/// An authority, and what it signs.
pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test authority");
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("a certificate"))
    }

    pub(super) fn write(&self, file: &Path) {
        fs::write(file, self.0.pem()).expect("a file");
    }

    /// Signs a certificate with these names, and writes `NAME.pem` and `NAME.key`.
    pub(super) fn issue(&self, directory: &Path, name: &str, change: impl FnOnce(&mut CertificateParams)) {
        let mut params = CertificateParams::default();
        params.not_after = OffsetDateTime::now_utc() + Span::hours(1);
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        fs::write(directory.join(format!("{name}.pem")), certificate.pem()).expect("a file");
        fs::write(directory.join(format!("{name}.key")), key.serialize_pem()).expect("a file");
    }
}

pub(super) fn uri(text: &str) -> SanType {
    SanType::URI(Ia5String::try_from(text).expect("ASCII"))
}

pub(super) fn dns(text: &str) -> SanType {
    SanType::DnsName(Ia5String::try_from(text).expect("ASCII"))
}

const TLS: &str = "tls = { cert_file = \"server.pem\", key_file = \"server.key\" }\n";
const ACCESS: &str = "[authn.mtls]\nca_file = \"clients.pem\"\ntrust_domain = \"prod\"\ndns_names = true\n\
                      [grants.a]\nsubjects = [\"spiffe://prod/ns/*\", \"dns:*.example\"]\ncredentials = [\"ci\"]\n\
                      actions = [\"get\"]\n";

/// A stage with a server's certificate, and the authority of the clients.
async fn stage() -> (Stage, Authority) {
    let (stage, servers, clients) = (Stage::new(Over::Memory).await, Authority::new(), Authority::new());
    servers.write(&stage.path("ca.pem"));
    clients.write(&stage.path("clients.pem"));
    servers.issue(&stage.path(""), "server", |params| params.subject_alt_names = vec![dns("localhost")]);
    (stage, clients)
}

async fn start(stage: &Stage) -> Broker {
    stage.start_guarded(TLS, &format!("{ACCESS}{}", stage.credential("ci", ""))).await
}

fn client(stage: &Stage, broker: &Broker, name: Option<&str>) -> Client {
    let builder = Client::builder().endpoint(format!("https://{}", broker.client)).ca_file(stage.path("ca.pem"));
    let builder = builder.server_name("localhost");
    match name {
        Some(name) => {
            builder.client_certificate(stage.path(&format!("{name}.pem")), stage.path(&format!("{name}.key")))
        }
        None => builder,
    }
    .build()
    .expect("valid settings")
}

async fn get(client: &Client) -> Result<u64> {
    client.get_token(GetToken::of("ci")).await.map(|answer| answer.token.map_or(0, |token| token.generation))
}

#[tokio::test]
async fn a_certificate_says_who_its_holder_is_or_nothing() {
    let (stage, clients) = stage().await;
    let broker = start(&stage).await;
    let sign = |name: &str, names: Vec<SanType>| {
        clients.issue(&stage.path(""), name, |params| params.subject_alt_names = names);
    };
    sign("workload", vec![uri("spiffe://prod/ns/a")]);
    sign("both", vec![uri("spiffe://prod/ns/a"), dns("ignored.other")]);
    sign("host", vec![dns("a.example")]);
    for name in ["workload", "both", "host"] {
        get(&client(&stage, &broker, Some(name))).await.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    sign("elsewhere", vec![uri("spiffe://prod/other/a")]);
    sign("other-host", vec![dns("a.b.example")]);
    for name in ["elsewhere", "other-host"] {
        let refused = get(&client(&stage, &broker, Some(name))).await.expect_err(name);
        assert_eq!(refused.reason(), Some("NOT_ALLOWED"), "{name}");
    }
    sign("foreign", vec![uri("spiffe://dev/ns/a")]);
    sign("two", vec![uri("spiffe://prod/ns/a"), uri("spiffe://prod/ns/b")]);
    sign("web", vec![uri("https://prod/ns/a"), dns("a.example")]);
    sign("upper", vec![uri("spiffe://PROD/ns/a")]);
    sign("dots", vec![uri("spiffe://prod/ns/../ns/a")]);
    sign("two-hosts", vec![dns("a.example"), dns("b.example")]);
    sign("star", vec![dns("*.example")]);
    sign("nobody", vec![]);
    clients.issue(&stage.path(""), "signer", |params| {
        params.subject_alt_names = vec![uri("spiffe://prod/ns/a")];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
    });
    for name in ["foreign", "two", "web", "upper", "dots", "two-hosts", "star", "nobody", "signer"] {
        let refused = get(&client(&stage, &broker, Some(name))).await.expect_err(name);
        assert_eq!(refused.reason(), Some("BAD_IDENTITY"), "{name}: {refused}");
    }
    let nobody = get(&client(&stage, &broker, None)).await.expect_err("no certificate");
    assert_eq!(nobody.reason(), Some("NO_IDENTITY"), "{nobody}");
    // One that another authority signed does not even get a connection.
    Authority::new()
        .issue(&stage.path(""), "forged", |params| params.subject_alt_names = vec![uri("spiffe://prod/ns/a")]);
    let forged = get(&client(&stage, &broker, Some("forged"))).await.expect_err("forged");
    assert_eq!(forged.reason(), None, "{forged}");
    broker.stop().await;
}

#[tokio::test]
async fn an_expired_certificate_is_refused_on_a_connection_that_is_open() {
    let (stage, clients) = stage().await;
    let broker = start(&stage).await;
    clients.issue(&stage.path(""), "workload", |params| params.subject_alt_names = vec![uri("spiffe://prod/ns/a")]);
    let client = client(&stage, &broker, Some("workload"));
    get(&client).await.expect("it is valid");
    stage.clock.advance(std::time::Duration::from_secs(3601));
    let refused = get(&client).await.expect_err("it has expired");
    assert_eq!(refused.reason(), Some("BAD_IDENTITY"), "{refused}");
    broker.stop().await;
}

/// The first bytes that a server sends after a plaintext HTTP/2 preface, if any.
async fn plaintext(broker: &Broker) -> Vec<u8> {
    let mut stream = TcpStream::connect(broker.client).await.expect("a connection");
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.expect("a preface");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    answer
}

#[tokio::test]
async fn nothing_is_said_in_the_clear_where_there_is_tls() {
    let (stage, _clients) = stage().await;
    let broker = start(&stage).await;
    // At most a TLS alert, never a frame of HTTP/2.
    let answer = plaintext(&broker).await;
    assert!(answer.is_empty() || answer[0] == 0x15, "{answer:?}");
    broker.stop().await;
}

#[tokio::test]
async fn renewed_certificates_are_taken_without_a_restart() {
    let (stage, clients) = stage().await;
    let broker = start(&stage).await;
    clients.issue(&stage.path(""), "workload", |params| params.subject_alt_names = vec![uri("spiffe://prod/ns/a")]);
    get(&client(&stage, &broker, Some("workload"))).await.expect("the first certificate");
    let (servers, others) = (Authority::new(), Authority::new());
    servers.issue(&stage.path(""), "server", |params| params.subject_alt_names = vec![dns("localhost")]);
    servers.write(&stage.path("ca.pem"));
    others.issue(&stage.path(""), "new", |params| params.subject_alt_names = vec![uri("spiffe://prod/ns/a")]);
    others.write(&stage.path("clients.pem"));
    crate::broker::eventually("the new certificates count", async || {
        get(&client(&stage, &broker, Some("new"))).await.is_ok()
    })
    .await;
    let old = get(&client(&stage, &broker, Some("workload"))).await.expect_err("its authority counts no more");
    assert_eq!(old.reason(), None, "{old}");
    // Files that make no sense change nothing.
    fs::write(stage.path("server.key"), "nonsense").expect("a file");
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    get(&client(&stage, &broker, Some("new"))).await.expect("the last good certificates stay");
    broker.stop().await;
}
