//! How an upstream refused a token.

use http::StatusCode;

use crate::Rejection;

/// How an upstream refused a token. A status alone makes one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Refusal {
    status: Option<u16>,
    error: String,
    description: String,
}

impl Refusal {
    /// By an HTTP status. The credential's `reject_on` says which ones mean a dead token.
    pub fn status(status: u16) -> Self {
        Self { status: Some(status), ..Self::default() }
    }

    /// With an error code: `error` of `WWW-Authenticate` (RFC 6750 section 3), or one of the upstream's own.
    pub fn error(mut self, code: impl Into<String>) -> Self {
        self.error = code.into();
        self
    }

    /// With a description for the operator.
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.description = description.into();
        self
    }

    /// Whether it surely means a dead token, so that report and replacement are one call.
    pub(crate) fn is_plain(&self) -> bool {
        self.status.is_none_or(|status| status == 401)
    }

    pub(crate) fn rejection(&self, rejection: Rejection) -> Rejection {
        let rejection = match self.status {
            Some(status) => rejection.http_status(status),
            None => rejection,
        };
        rejection.error(self.error.as_str()).description(self.description.as_str())
    }
}

impl From<u16> for Refusal {
    fn from(status: u16) -> Self {
        Self::status(status)
    }
}

impl From<StatusCode> for Refusal {
    fn from(status: StatusCode) -> Self {
        Self::status(status.as_u16())
    }
}
