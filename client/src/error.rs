//! The one error of the client: a kind that says what the caller can do, and what the broker said.

use std::{error::Error as _, fmt, time::Duration};

use tonic::{Code, Status, TimeoutExpired};
use tonic_types::{ErrorDetails, RpcStatusExt as _, StatusExt as _, pb};

/// The result of whatever can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, named by what the caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request is invalid: mend it. [`Error::violations`] lists what is wrong, if the broker said so.
    InvalidRequest,
    /// The broker does not know who calls.
    Unauthenticated,
    /// The caller may not do this.
    NotAllowed,
    /// There is no such credential.
    NotFound,
    /// A person has to log in again or to change the configuration.
    NeedsOperator,
    /// Too many requests, or too many rejections of fresh tokens.
    Throttled,
    /// The upstream, the store or the broker itself cannot serve the call just now, or was too slow.
    Unavailable,
    /// The broker cannot be reached, or the connection was lost.
    Unreachable,
    /// The endpoint does not serve this call.
    Unimplemented,
    /// A defect of the broker, or an answer that makes no sense.
    Internal,
}

/// One invalid field of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Violation {
    /// The path of the field, e.g. `scopes[3]`.
    pub field: String,
    /// What is wrong with it.
    pub description: String,
}

/// Why a call failed. Never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Error {
    kind: ErrorKind,
    reason: Option<String>,
    message: String,
    retry_after: Option<Duration>,
    violations: Vec<Violation>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, reason: None, message: message.into(), retry_after: None, violations: Vec::new() }
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The broker's machine-readable reason, e.g. `UPSTREAM_DOWN`. `None` if the call did not get as far as the broker.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// The text for people.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// How long to wait before the next try, if the broker said so.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// The invalid fields of an [`ErrorKind::InvalidRequest`].
    #[must_use]
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// Whether the same call may succeed later without anybody's help.
    ///
    /// `TOO_MANY_INVALIDATIONS` is not transient: an upstream that refuses fresh tokens has, as a rule, withdrawn a
    /// permission.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self.kind {
            ErrorKind::Unavailable | ErrorKind::Unreachable => true,
            ErrorKind::Throttled => self.reason() != Some("TOO_MANY_INVALIDATIONS"),
            _ => false,
        }
    }

    /// What a call came to. A status with a source was made on this side of the wire.
    pub(crate) fn from_status(status: &Status) -> Self {
        if status.source().is_some() {
            return Self::from_transport(status);
        }
        Self::with_details(status.code(), status.message(), &status.get_error_details())
    }

    /// An error inside an answer. `None` if the status says OK.
    pub(crate) fn from_rpc(status: &pb::Status) -> Option<Self> {
        let code = Code::from(status.code);
        (code != Code::Ok).then(|| Self::with_details(code, &status.message, &status.get_error_details()))
    }

    /// The same error, with a reason if it had none.
    pub(crate) fn or_reason(mut self, reason: String) -> Self {
        if self.reason.is_none() && !reason.is_empty() {
            self.reason = Some(reason);
        }
        self
    }

    pub(crate) fn slow(limit: Duration) -> Self {
        Self::new(ErrorKind::Unavailable, format!("the broker did not answer within {} ms", limit.as_millis()))
    }

    fn from_transport(status: &Status) -> Self {
        let mut cause: &(dyn std::error::Error + 'static) = status;
        while let Some(source) = cause.source() {
            cause = source;
        }
        if cause.is::<TimeoutExpired>() {
            return Self::new(ErrorKind::Unavailable, "the broker did not answer within the deadline");
        }
        Self::new(ErrorKind::Unreachable, format!("cannot reach the broker: {cause}"))
    }

    fn with_details(code: Code, message: &str, details: &ErrorDetails) -> Self {
        let info = details.error_info().filter(|info| info.domain == tokencache_proto::ERROR_DOMAIN);
        let violations = details.bad_request().map(|bad| bad.field_violations.as_slice()).unwrap_or_default();
        let violation =
            |v: &tonic_types::FieldViolation| Violation { field: v.field.clone(), description: v.description.clone() };
        Self {
            kind: kind_of(code),
            reason: info.map(|info| info.reason.clone()),
            message: if message.is_empty() { code.description().to_lowercase() } else { message.into() },
            retry_after: details.retry_info().and_then(|info| info.retry_delay),
            violations: violations.iter().map(violation).collect(),
        }
    }
}

fn kind_of(code: Code) -> ErrorKind {
    match code {
        Code::InvalidArgument | Code::OutOfRange => ErrorKind::InvalidRequest,
        Code::Unauthenticated => ErrorKind::Unauthenticated,
        Code::PermissionDenied => ErrorKind::NotAllowed,
        Code::NotFound => ErrorKind::NotFound,
        Code::FailedPrecondition => ErrorKind::NeedsOperator,
        Code::ResourceExhausted => ErrorKind::Throttled,
        // A broker that goes down cancels or aborts what it cannot finish.
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Aborted => ErrorKind::Unavailable,
        Code::Unimplemented => ErrorKind::Unimplemented,
        Code::Ok | Code::Unknown | Code::AlreadyExists | Code::Internal | Code::DataLoss => ErrorKind::Internal,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        // The broker's message may list the fields already.
        for violation in self.violations.iter().filter(|v| !self.message.contains(&v.description)) {
            write!(f, "; {}: {}", violation.field, violation.description)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_of_a_status_are_decoded() {
        let mut details = ErrorDetails::new();
        details.set_error_info("UPSTREAM_DOWN", "tokencache", [("k".to_owned(), "v".to_owned())]);
        details.set_retry_info(Some(Duration::from_millis(1500)));
        let error = Error::from_status(&Status::with_error_details(Code::Unavailable, "the upstream is down", details));
        assert_eq!((error.kind(), error.reason()), (ErrorKind::Unavailable, Some("UPSTREAM_DOWN")));
        assert_eq!(error.retry_after(), Some(Duration::from_millis(1500)));
        assert!(error.is_transient());
        assert_eq!(error.to_string(), "the upstream is down");
    }

    #[test]
    fn every_violation_is_shown_once() {
        let mut details = ErrorDetails::new();
        details.add_bad_request_violation("scopes[0]", "must not be empty");
        details.add_bad_request_violation("audience", "is too long");
        let status = Status::with_error_details(Code::InvalidArgument, "scopes[0]: must not be empty", details);
        let error = Error::from_status(&status);
        assert_eq!(error.violations().len(), 2);
        assert_eq!(error.to_string(), "scopes[0]: must not be empty; audience: is too long");
    }

    #[test]
    fn a_reason_of_another_domain_is_not_ours() {
        let details =
            ErrorDetails::with_error_info("NEEDS_REAUTH", "proxy.example", [("k".to_owned(), "v".to_owned())]);
        let error = Error::from_status(&Status::with_error_details(Code::PermissionDenied, "no", details));
        assert_eq!(error.reason(), None);
    }

    #[test]
    fn a_storm_of_rejections_is_not_transient_but_a_rate_limit_is() {
        let throttled = |reason: &str| {
            let details = ErrorDetails::with_error_info(reason, "tokencache", [("k".to_owned(), "v".to_owned())]);
            Error::from_status(&Status::with_error_details(Code::ResourceExhausted, "later", details))
        };
        assert!(!throttled("TOO_MANY_INVALIDATIONS").is_transient());
        assert!(throttled("TOO_MANY_REQUESTS").is_transient());
    }

    #[test]
    fn a_status_without_a_message_gets_the_meaning_of_its_code() {
        let error = Error::from_status(&Status::new(Code::Unimplemented, ""));
        assert_eq!(error.kind(), ErrorKind::Unimplemented);
        assert_eq!(error.message(), "operation is not implemented or not supported");
    }
}
