//! What an authorization server's refusal means (RFC 6749 section 5.2).

use serde_json::Value;
use thiserror::Error;

use crate::{
    error::{Error, ErrorKind},
    provider::http::Answer,
    time::Timestamp,
};

/// The codes that are permanent in a JSON body of 400, 401 or 403, from RFC 6749 section 5.2 and RFC 8707 section 2.
/// `invalid_grant` is the one that depends on the grant.
const PERMANENT: [&str; 7] = [
    INVALID_GRANT,
    "invalid_client",
    "invalid_request",
    "invalid_scope",
    "invalid_target",
    "unauthorized_client",
    "unsupported_grant_type",
];

const INVALID_GRANT: &str = "invalid_grant";

/// An answer whose status is not a success.
#[derive(Debug, Error)]
pub(super) enum OAuthFailure {
    /// The refresh token is no longer valid.
    #[error("{host} answered {status} {INVALID_GRANT}: the refresh token is no longer valid")]
    GrantLost { host: String, status: u16 },
    /// The request as configured is refused.
    #[error("{host} answered {status} {code}")]
    Refused { host: String, status: u16, code: &'static str },
    /// Anything else: it may pass.
    #[error("{error}")]
    Transient { error: Error, ambiguous: bool },
}

impl OAuthFailure {
    /// Classifies an answer. Only a known code is shown: the rest of the body is the server's secret.
    pub(super) fn read(answer: &Answer, invalid_grant_is_loss: bool, now: Timestamp) -> Self {
        let (host, status) = (answer.host.clone(), answer.status.as_u16());
        match known_code(answer).filter(|_| matches!(status, 400 | 401 | 403)) {
            Some(INVALID_GRANT) if invalid_grant_is_loss => Self::GrantLost { host, status },
            Some(code) => Self::Refused { host, status, code },
            None => Self::Transient { error: answer.failure(now), ambiguous: answer.is_ambiguous() },
        }
    }

    /// Whether the server may have used up the refresh token all the same.
    pub(super) fn is_ambiguous(&self) -> bool {
        matches!(self, Self::Transient { ambiguous: true, .. })
    }
}

/// The error code of a body, if it is one that this module knows.
pub(super) fn known_code(answer: &Answer) -> Option<&'static str> {
    let body = answer.json()?;
    let code = body.get("error").and_then(Value::as_str)?;
    PERMANENT.into_iter().find(|known| *known == code)
}

impl From<OAuthFailure> for Error {
    fn from(failure: OAuthFailure) -> Self {
        let kind = match failure {
            OAuthFailure::GrantLost { .. } => ErrorKind::NeedsReauth,
            OAuthFailure::Refused { .. } => ErrorKind::Misconfigured,
            OAuthFailure::Transient { error, .. } => return error,
        };
        Self::new(kind, failure.to_string())
    }
}
