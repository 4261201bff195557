//! What is recorded. No field can hold a secret: closed words, validated names, numbers and fingerprints; of a caller only
//! who it proved to be, of an upstream nothing but the kind of its error.

use std::{borrow::Cow, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{
    error::ErrorKind,
    types::{Caller, CredentialName, Fingerprint, Generation, Peer, TokenKey},
};

/// The longest subject, in bytes; what is longer is cut off.
const MAX_SUBJECT: usize = 512;

/// Words of which there is a fixed number, with their spelling.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            /// Every word.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Its spelling.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The word that is spelled so.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|word| word.as_str() == text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Cow::<'de, str>::deserialize(deserializer)?;
                Self::parse(&text).ok_or_else(|| D::Error::custom("an unknown word"))
            }
        }
    };
}

words! {
    /// What happened.
    Kind {
        /// A chain begins: the process has started.
        Started = "started",
        /// A chain ends in order.
        Stopped = "stopped",
        /// A token was handed out.
        TokenIssued = "token_issued",
        /// A caller was told that it has the current token already.
        NotModified = "not_modified",
        /// A caller began to watch a token.
        WatchOpened = "watch_opened",
        /// A token was handed to a watcher.
        TokenPushed = "token_pushed",
        /// A caller reported a token as refused by the upstream.
        Rejection = "rejection",
        /// The upstream was asked for a token.
        Refresh = "refresh",
        /// An operator called.
        AdminCall = "admin_call",
        /// A call was answered with an error.
        CallRefused = "call_refused",
        /// Events were lost for want of room; only where the log is allowed to lose any, and of background work.
        Lost = "lost",
    }
}

words! {
    /// Which rpc was called.
    Rpc {
        /// `TokenService.GetToken`.
        GetToken = "GetToken",
        /// `TokenService.WatchTokens`.
        WatchTokens = "WatchTokens",
        /// `TokenService.InvalidateToken`.
        InvalidateToken = "InvalidateToken",
        /// `AdminService.ListCredentials`.
        ListCredentials = "ListCredentials",
        /// `AdminService.DescribeCredential`.
        DescribeCredential = "DescribeCredential",
        /// `AdminService.RefreshToken`.
        RefreshToken = "RefreshToken",
        /// `AdminService.InvalidateCredentials`.
        InvalidateCredentials = "InvalidateCredentials",
        /// `AdminService.ListReplicas`.
        ListReplicas = "ListReplicas",
        /// `AdminService.GetServerInfo`.
        GetServerInfo = "GetServerInfo",
        /// `AdminService.ListAuditEvents`.
        ListAuditEvents = "ListAuditEvents",
        /// `AdminService.TailAuditEvents`.
        TailAuditEvents = "TailAuditEvents",
        /// `AdminService.RotateEncryptionKey`.
        RotateEncryptionKey = "RotateEncryptionKey",
        /// `ServerReflection.ServerReflectionInfo`, of either version.
        ServerReflectionInfo = "ServerReflectionInfo",
    }
}

words! {
    /// Why it happened.
    Reason {
        /// The token was in memory.
        Hit = "hit",
        /// The caller waited for the store or the upstream.
        Miss = "miss",
        /// The token at hand was due to be replaced.
        RefreshAhead = "refresh_ahead",
        /// The token at hand was reported as refused.
        Report = "report",
        /// An operator said so.
        Operator = "operator",
        /// The token reported as refused was taken out of service.
        Invalidated = "invalidated",
        /// The token reported as refused had been replaced already, or the report was not believed.
        Unchanged = "unchanged",
    }
}

/// Who acted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// `None`: it has not been authenticated (yet).
    caller: Option<Caller>,
    /// Where the call came from.
    pub peer: Peer,
}

impl Actor {
    /// A caller that has not been authenticated (yet): only where it calls from is known.
    #[must_use]
    pub const fn unknown(peer: Peer) -> Self {
        Self { caller: None, peer }
    }

    /// An authenticated caller.
    #[must_use]
    pub const fn new(caller: Caller, peer: Peer) -> Self {
        Self { caller: Some(caller), peer }
    }

    /// Who the caller proved to be, empty if that is not known; a subject of unreasonable length is cut off.
    #[must_use]
    pub fn subject(&self) -> &str {
        let subject = self.caller.as_ref().map(Caller::subject).unwrap_or_default();
        &subject[..subject.floor_char_boundary(MAX_SUBJECT)]
    }
}

/// A W3C trace id: what joins an event to a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceId([u8; 16]);

impl TraceId {
    /// The trace id of a `traceparent` header (W3C Trace Context section 3.2). `None` for anything else.
    #[must_use]
    pub fn of_traceparent(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (version, id) = (parts.next()?, parts.next()?);
        let (parent, flags) = (parts.next()?, parts.next()?);
        let is_hex = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let shaped = version.len() == 2 && id.len() == 32 && parent.len() == 16 && flags.len() == 2;
        if !shaped || version == "ff" || ![version, id, parent, flags].into_iter().all(is_hex) {
            return None;
        }
        let mut bytes = [0; 16];
        hex::decode_to_slice(id, &mut bytes).ok()?;
        (bytes != [0; 16]).then_some(Self(bytes))
    }

    /// Its 16 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// 32 hexadecimal digits.
    #[must_use]
    pub fn to_hex(self) -> String {
        hex::encode(self.0)
    }
}

/// What happened, before it has a place in the chain.
#[derive(Clone, Debug)]
pub struct AuditEvent {
    /// What happened.
    pub kind: Kind,
    /// Which rpc it came by. `None`: background work.
    pub rpc: Option<Rpc>,
    /// Who acted. `None`: the broker by itself.
    pub actor: Option<Actor>,
    /// Which credential it was about, where there is no key.
    pub credential: Option<CredentialName>,
    /// Which token it was about.
    pub key: Option<TokenKey>,
    /// Its generation.
    pub generation: Option<Generation>,
    /// Its fingerprint.
    pub fingerprint: Option<Fingerprint>,
    /// What went wrong. `None`: nothing.
    pub error: Option<ErrorKind>,
    /// Why it happened.
    pub reason: Option<Reason>,
    /// The grant of the policy that decided.
    pub grant: Option<Arc<str>>,
    /// The trace that the call belongs to.
    pub trace: Option<TraceId>,
    /// The upstream's HTTP status, as reported.
    pub http_status: Option<u16>,
    /// How many there were: of equal refusals, lost events, invalidated tokens.
    pub count: Option<u64>,
}

impl AuditEvent {
    /// An event about which nothing else is known.
    #[must_use]
    pub const fn new(kind: Kind) -> Self {
        Self {
            kind,
            rpc: None,
            actor: None,
            credential: None,
            key: None,
            generation: None,
            fingerprint: None,
            error: None,
            reason: None,
            grant: None,
            trace: None,
            http_status: None,
            count: None,
        }
    }

    /// The credential that it is about.
    #[must_use]
    pub fn credential(&self) -> Option<&CredentialName> {
        self.key.as_ref().map(TokenKey::credential).or(self.credential.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_id_is_taken_from_a_valid_traceparent_alone() {
        let valid = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let id = TraceId::of_traceparent(valid).expect("a valid header");
        assert_eq!(id.to_hex(), "4bf92f3577b34da6a3ce929d0e0e4736");
        for bad in [
            "",
            "4bf92f3577b34da6a3ce929d0e0e4736",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-s3cr3ts3cr3ts3cr3ts3cr3ts3cr3ts3-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceId::of_traceparent(bad), None, "{bad}");
        }
    }

    #[test]
    fn every_word_is_read_back() {
        for kind in Kind::ALL {
            assert_eq!(Kind::parse(kind.as_str()), Some(*kind));
        }
        for rpc in Rpc::ALL {
            assert_eq!(Rpc::parse(rpc.as_str()), Some(*rpc));
        }
    }

    #[test]
    fn a_subject_of_unreasonable_length_is_cut_off_between_characters() {
        let actor = Actor::new(Caller::new("é".repeat(400)), Peer::Unknown);
        assert_eq!(actor.subject(), "é".repeat(256));
        assert_eq!(Actor::new(Caller::new("key:ci"), Peer::Unknown).subject(), "key:ci");
    }
}
