//! The one error of the service: a kind that says what the caller can do, and a text for people.
//!
//! Plug-ins have errors of their own and convert them at their border. A text never holds a secret, nor any part of an
//! upstream's response body.

use std::{borrow::Cow, fmt, time::Duration};

/// The result of whatever can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, named by what the caller can do about it.
///
/// Each kind is one `reason` of the gRPC contract; `rpc/status.rs` gives it its code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// A name breaks the rules for names.
    BadName,
    /// Fields of the request are invalid; [`Error::violations`] lists all of them.
    BadRequest,
    /// The caller did not say who it is.
    NoIdentity,
    /// The caller's proof of identity is invalid.
    BadIdentity,
    /// The caller may not do this.
    NotAllowed,
    /// There is no such credential.
    NoSuchCredential,
    /// The grant is lost or revoked: a person has to log in again. Permanent.
    NeedsReauth,
    /// The upstream refuses the request as configured. Permanent until the configuration changes.
    Misconfigured,
    /// The key that a row is sealed with is not in the ring.
    KeyMissing,
    /// A stored grant does not open under its credential's present configuration: one of them was changed by other hands than
    /// this broker's. Permanent until the configuration or the grant changes.
    ConfigTampered,
    /// The upstream refuses freshly minted tokens; no more are minted for a while.
    TooManyInvalidations,
    /// The caller exceeds its rate.
    TooManyRequests,
    /// The replica has more work than it can take.
    Overloaded,
    /// The upstream cannot be reached or fails. Transient: heals without a human.
    UpstreamDown,
    /// The upstream asks for fewer requests. Transient.
    UpstreamThrottled,
    /// The upstream did not answer in time. Transient.
    UpstreamSlow,
    /// The store cannot be reached or fails. Transient.
    StoreDown,
    /// The audit log does not take the event without which nothing is answered. Transient.
    AuditDown,
    /// The replica is shutting down; another one will answer. Transient.
    Draining,
    /// A defect of the broker.
    Bug,
}

impl ErrorKind {
    /// Every kind.
    pub const ALL: [Self; 20] = [
        Self::BadName,
        Self::BadRequest,
        Self::NoIdentity,
        Self::BadIdentity,
        Self::NotAllowed,
        Self::NoSuchCredential,
        Self::NeedsReauth,
        Self::Misconfigured,
        Self::KeyMissing,
        Self::ConfigTampered,
        Self::TooManyInvalidations,
        Self::TooManyRequests,
        Self::Overloaded,
        Self::UpstreamDown,
        Self::UpstreamThrottled,
        Self::UpstreamSlow,
        Self::StoreDown,
        Self::AuditDown,
        Self::Draining,
        Self::Bug,
    ];

    /// The machine-readable reason of the gRPC contract.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::BadName => "BAD_NAME",
            Self::BadRequest => "BAD_REQUEST",
            Self::NoIdentity => "NO_IDENTITY",
            Self::BadIdentity => "BAD_IDENTITY",
            Self::NotAllowed => "NOT_ALLOWED",
            Self::NoSuchCredential => "NO_SUCH_CREDENTIAL",
            Self::NeedsReauth => "NEEDS_REAUTH",
            Self::Misconfigured => "MISCONFIGURED",
            Self::KeyMissing => "KEY_MISSING",
            Self::ConfigTampered => "CONFIG_TAMPERED",
            Self::TooManyInvalidations => "TOO_MANY_INVALIDATIONS",
            Self::TooManyRequests => "TOO_MANY_REQUESTS",
            Self::Overloaded => "OVERLOADED",
            Self::UpstreamDown => "UPSTREAM_DOWN",
            Self::UpstreamThrottled => "UPSTREAM_THROTTLED",
            Self::UpstreamSlow => "UPSTREAM_SLOW",
            Self::StoreDown => "STORE_DOWN",
            Self::AuditDown => "AUDIT_DOWN",
            Self::Draining => "DRAINING",
            Self::Bug => "BUG",
        }
    }

    /// The kind with this reason.
    #[must_use]
    pub fn from_reason(reason: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.reason() == reason)
    }

    /// Whether no attempt can succeed until a person changes the grant or the configuration.
    #[must_use]
    pub const fn is_permanent(self) -> bool {
        matches!(self, Self::NeedsReauth | Self::Misconfigured | Self::ConfigTampered)
    }
}

/// One invalid field of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The path of the field, e.g. `scopes[3]`.
    pub field: String,
    /// What is wrong with it and what would be right.
    pub description: String,
}

/// An error of the service. Cheap to share: a flight hands the same one to all who wait for it.
#[derive(Clone, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    message: Cow<'static, str>,
    retry_after: Option<Duration>,
    violations: Vec<Violation>,
}

impl Error {
    /// An error of `kind`; `message` is lower case, without a trailing dot and without secrets.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, message: message.into(), retry_after: None, violations: Vec::new() }
    }

    /// An invalid request: all of its violations at once.
    #[must_use]
    pub fn bad_request(violations: Vec<Violation>) -> Self {
        Self { violations, ..Self::new(ErrorKind::BadRequest, "the request has invalid fields") }
    }

    /// A defect of the broker. `detail` goes to the log, never to a caller.
    pub fn bug(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Bug, detail)
    }

    /// The same error, with the time after which a retry may help.
    #[must_use]
    pub fn with_retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The text for people.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// How long to wait before the next try, if one may help.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// The invalid fields of a [`ErrorKind::BadRequest`].
    #[must_use]
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for (i, violation) in self.violations.iter().enumerate() {
            let separator = if i == 0 { ": " } else { "; " };
            write!(f, "{separator}{}: {}", violation.field, violation.description)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {self}", self.kind.reason())
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_names_its_kind() {
        for kind in ErrorKind::ALL {
            assert_eq!(ErrorKind::from_reason(kind.reason()), Some(kind));
        }
    }
}
