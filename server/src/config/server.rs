//! `[server]`: where the broker listens and how it ends.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use super::{
    AuthnConfig,
    reader::{Section, Value},
};
use crate::types::ReplicaId;

/// The longest path of a Unix socket on Linux, in bytes (unix(7): 108 with the final zero).
const MAX_SOCKET_PATH: usize = 107;

/// The longest replica id: it is sent with every answer.
const MAX_REPLICA: usize = 64;

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// An IP address and a port; port 0 is any free one.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl Listen {
    const fn loopback(port: u16) -> Self {
        Self::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port))
    }

    /// Whether other machines may reach it.
    #[must_use]
    pub fn is_exposed(&self) -> bool {
        matches!(self, Self::Tcp(address) if !address.ip().to_canonical().is_loopback())
    }

    /// Whether both cannot be listened on at once.
    fn collides_with(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp(a), Self::Tcp(b)) => {
                let covers = |a: IpAddr, b: IpAddr| a.is_unspecified() && (a.is_ipv6() || b.is_ipv4());
                let same_host = a.ip() == b.ip() || covers(a.ip(), b.ip()) || covers(b.ip(), a.ip());
                a.port() == b.port() && a.port() != 0 && same_host
            }
            (Self::Unix(a), Self::Unix(b)) => a == b,
            (Self::Tcp(_), Self::Unix(_)) | (Self::Unix(_), Self::Tcp(_)) => false,
        }
    }

    fn read(value: &Value<'_>) -> Option<Self> {
        let text = value.string()?;
        if let Some(path) = text.strip_prefix("unix:") {
            return Self::read_unix(value, path);
        }
        let address = text.parse().ok().map(Self::Tcp);
        if address.is_none() {
            value.problem(
                "not an address to listen on; write an IP address and a port such as \"127.0.0.1:50051\" \
                 or \"[::1]:50051\", or \"unix:PATH\"",
            );
        }
        address
    }

    fn read_unix(value: &Value<'_>, path: &str) -> Option<Self> {
        if path.is_empty() || path.starts_with("//") {
            value.problem("expected \"unix:PATH\", such as \"unix:/run/tokencache/api.sock\"");
            return None;
        }
        let path = value.resolve(path);
        let length = path.as_os_str().len();
        if length > MAX_SOCKET_PATH {
            value.problem(format!(
                "the path of a Unix socket has at most {MAX_SOCKET_PATH} bytes, this one has {length}"
            ));
            return None;
        }
        Some(Self::Unix(path))
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A certificate and its key, PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTlsConfig {
    /// The certificate chain.
    pub cert_file: PathBuf,
    /// The private key.
    pub key_file: PathBuf,
}

/// Where the broker listens and how it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// The client API.
    pub listen: Listen,
    /// The admin API.
    pub admin_listen: Listen,
    /// Metrics and health over HTTP.
    pub metrics_listen: Listen,
    /// The certificate of both APIs over TCP. `None`: they are not encrypted.
    pub tls: Option<ServerTlsConfig>,
    /// Whether gRPC reflection is served on the client API, too, to those who are authenticated.
    pub reflection: bool,
    /// Let in callers who show nothing, as `anonymous`; without grants they may do everything.
    pub insecure_allow_any_caller: bool,
    /// Let other machines reach an API without TLS.
    pub insecure_allow_plaintext: bool,
    /// The identifier of this process. `None`: made up at the start.
    pub replica: Option<ReplicaId>,
    /// How long calls in progress may go on after SIGTERM.
    pub drain_timeout: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: Listen::loopback(50051),
            admin_listen: Listen::loopback(50052),
            metrics_listen: Listen::loopback(9464),
            tls: None,
            reflection: false,
            insecure_allow_any_caller: false,
            insecure_allow_plaintext: false,
            replica: None,
            drain_timeout: Duration::from_secs(20),
        }
    }
}

impl ServerConfig {
    /// Reads the section; what is not there has its default.
    pub(super) fn read(section: &Section<'_>, authn: &AuthnConfig) -> Self {
        let default = Self::default();
        let listen = |key, otherwise: &Listen| match section.value(key) {
            Some(value) => Listen::read(&value),
            None => Some(otherwise.clone()),
        };
        let addresses = [
            ("listen", listen("listen", &default.listen)),
            ("admin_listen", listen("admin_listen", &default.admin_listen)),
            ("metrics_listen", listen("metrics_listen", &default.metrics_listen)),
        ];
        check_distinct(section, &addresses);
        let [(_, listen), (_, admin_listen), (_, metrics_listen)] = addresses;
        let drain = section.duration_in("drain_timeout", Duration::from_secs(1), Duration::from_secs(3600));
        let config = Self {
            listen: listen.unwrap_or(default.listen),
            admin_listen: admin_listen.unwrap_or(default.admin_listen),
            metrics_listen: metrics_listen.unwrap_or(default.metrics_listen),
            tls: section.section("tls").and_then(|tls| read_tls(&tls)),
            reflection: section.bool("reflection").unwrap_or_default(),
            insecure_allow_any_caller: section.bool("insecure_allow_any_caller").unwrap_or_default(),
            insecure_allow_plaintext: section.bool("insecure_allow_plaintext").unwrap_or_default(),
            replica: read_replica(section),
            drain_timeout: drain.unwrap_or(default.drain_timeout),
        };
        config.check_callers(section, authn);
        config.check_exposure(section);
        config
    }

    /// There must be a way to tell callers apart, unless the configuration says in as many words that there is none.
    fn check_callers(&self, section: &Section<'_>, authn: &AuthnConfig) {
        if self.insecure_allow_any_caller {
            let message = "callers who show nothing are let in as `anonymous`; without [grants] whoever reaches `listen` \
                           gets every token, and whoever reaches `admin_listen` administers the broker";
            section.warn_at("insecure_allow_any_caller", message);
        }
        if authn.mtls.is_some() && self.tls.is_none() {
            section.problem("client certificates come over TLS: set server.tls, or remove [authn.mtls]");
        }
    }

    /// What travels in the clear can be read and changed on the way, tokens and proofs of identity alike.
    fn check_exposure(&self, section: &Section<'_>) {
        if self.tls.is_some() {
            return;
        }
        for (key, address) in [("listen", &self.listen), ("admin_listen", &self.admin_listen)] {
            if !address.is_exposed() {
                continue;
            }
            if self.insecure_allow_plaintext {
                let message = format!("other machines reach {address} without TLS: tokens can be read on the way");
                section.warn_at("insecure_allow_plaintext", message);
            } else {
                section.problem_at(
                    key,
                    format!(
                        "other machines can reach {address}, and there is no TLS: set server.tls, use a loopback address \
                         or a Unix socket, or set server.insecure_allow_plaintext = true"
                    ),
                );
            }
        }
    }
}

fn read_tls(section: &Section<'_>) -> Option<ServerTlsConfig> {
    let cert_file = section.required("cert_file", Section::path_of);
    let key_file = section.required("key_file", Section::path_of);
    section.clone().finish();
    Some(ServerTlsConfig { cert_file: cert_file?, key_file: key_file? })
}

/// Each address serves one thing: who may read metrics may not thereby administer.
fn check_distinct(section: &Section<'_>, addresses: &[(&str, Option<Listen>)]) {
    for (i, (key, address)) in addresses.iter().enumerate() {
        let Some(address) = address else { continue };
        let taken = |(_, other): &&(&str, Option<Listen>)| other.as_ref().is_some_and(|o| address.collides_with(o));
        if let Some((other, _)) = addresses[..i].iter().find(taken) {
            section.problem_at(key, format!("{address} is taken by `{other}`"));
        }
    }
}

fn read_replica(section: &Section<'_>) -> Option<ReplicaId> {
    let text = section.string("replica")?;
    if text.len() > MAX_REPLICA || !text.bytes().all(|b| b.is_ascii_graphic()) {
        section
            .problem_at("replica", format!("expected at most {MAX_REPLICA} visible ASCII characters without spaces"));
        return None;
    }
    Some(ReplicaId::new(&text))
}
