//! Who calls, and what they can show for it.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    sync::{Arc, LazyLock},
};

use super::Secret;
use crate::time::Timestamp;

/// Where a call comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A TCP connection.
    Tcp(SocketAddr),
    /// A Unix socket, and who was at its other end when it was connected, as the kernel says.
    Unix(Option<PeerUser>),
    /// Not known: a call within the process.
    Unknown,
}

/// The user at the other end of a Unix socket (`SO_PEERCRED`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerUser {
    /// The user's id.
    pub uid: u32,
    /// The primary group's id.
    pub gid: u32,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(Some(user)) => write!(f, "unix:{}", user.uid),
            Self::Unix(None) => f.write_str("unix"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

/// What a caller shows of itself, before anybody has looked whether it is true.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// Where the call comes from.
    pub peer: Peer,
    /// The identity in the client's certificate, or why it has none. `None`: no certificate. Its chain was verified when
    /// the connection was made; its expiry counts at every call.
    pub certificate: Option<Result<Caller, &'static str>>,
    /// What the `authorization` header presents with the scheme `Bearer` (RFC 6750 section 2.1), or that it is none.
    pub bearer: Option<Result<Secret, &'static str>>,
}

impl Evidence {
    /// Nothing but where the call comes from.
    #[must_use]
    pub fn of_peer(peer: Peer) -> Self {
        Self { peer, certificate: None, bearer: None }
    }
}

/// An authenticated caller. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Caller(Arc<Identity>);

/// Who somebody is.
#[derive(Debug, PartialEq, Eq)]
struct Identity {
    subject: Box<str>,
    claims: Claims,
    expires_at: Option<Timestamp>,
}

/// What else is known of a caller: names, each with one value or several.
pub type Claims = BTreeMap<String, Vec<String>>;

/// The subject of a caller that nothing is known of.
pub const ANONYMOUS: &str = "anonymous";

impl Caller {
    /// A caller that is known by `subject`: `spiffe://…`, `dns:NAME`, `jwt:ISSUER/SUB`, `key:NAME` or `uid:NUMBER`.
    #[must_use]
    pub fn new(subject: impl Into<Box<str>>) -> Self {
        Self(Arc::new(Identity { subject: subject.into(), claims: Claims::new(), expires_at: None }))
    }

    /// A caller with claims and an end.
    #[must_use]
    pub fn with_claims(subject: impl Into<Box<str>>, claims: Claims, expires_at: Option<Timestamp>) -> Self {
        Self(Arc::new(Identity { subject: subject.into(), claims, expires_at }))
    }

    /// Anybody who can reach the listener.
    #[must_use]
    pub fn anonymous() -> Self {
        static ANYBODY: LazyLock<Caller> = LazyLock::new(|| Caller::new(ANONYMOUS));
        ANYBODY.clone()
    }

    /// What it is known by. It holds no secret.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.0.subject
    }

    /// The values of a claim.
    #[must_use]
    pub fn claim(&self, name: &str) -> &[String] {
        self.0.claims.get(name).map_or(&[], Vec::as_slice)
    }

    /// From when on it is this no more.
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.0.expires_at
    }

    /// Whether its identity has run out.
    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.0.expires_at.is_some_and(|end| end <= now)
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.subject())
    }
}
