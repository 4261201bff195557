//! What a refused log-in means.

use thiserror::Error;

use crate::{
    error::{Error, ErrorKind},
    provider::http::Answer,
    time::Timestamp,
};

/// Why there is no session.
#[derive(Debug, Error)]
pub(super) enum LoginFailure {
    /// The upstream refuses the user, the password or the request.
    #[error("{host} answered {status} to the log-in")]
    Refused { host: String, status: u16 },
    /// The answer is a success without a session.
    #[error("{0}")]
    Unusable(Error),
    /// Anything else: it may pass.
    #[error("{0}")]
    Transient(Error),
}

impl LoginFailure {
    /// Classifies an answer whose status is not a success.
    pub(super) fn read(answer: &Answer, now: Timestamp) -> Self {
        match answer.status.as_u16() {
            status @ (400 | 401 | 403 | 422) => Self::Refused { host: answer.host.clone(), status },
            _ => Self::Transient(answer.failure(now)),
        }
    }
}

impl From<LoginFailure> for Error {
    fn from(failure: LoginFailure) -> Self {
        match failure {
            LoginFailure::Refused { .. } => Self::new(ErrorKind::Misconfigured, failure.to_string()),
            LoginFailure::Unusable(error) | LoginFailure::Transient(error) => error,
        }
    }
}
