//! From the service's errors to gRPC statuses with typed details.

use tokencache_proto::ERROR_DOMAIN;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _, pb};
use tracing::error;

use crate::error::{Error, ErrorKind};

/// The most violations that are told. A status travels in headers, in its details and once more in its message; clients
/// reset a call whose headers exceed 8 to 16 KiB.
const MAX_VIOLATIONS: usize = 20;

/// The code of each kind. Exhaustive on purpose: a new kind does not compile until it has one.
const fn code(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::BadName | ErrorKind::BadRequest => Code::InvalidArgument,
        ErrorKind::NoIdentity | ErrorKind::BadIdentity => Code::Unauthenticated,
        ErrorKind::NotAllowed => Code::PermissionDenied,
        ErrorKind::NoSuchCredential => Code::NotFound,
        ErrorKind::NeedsReauth | ErrorKind::Misconfigured | ErrorKind::KeyMissing | ErrorKind::ConfigTampered => {
            Code::FailedPrecondition
        }
        ErrorKind::TooManyInvalidations | ErrorKind::TooManyRequests | ErrorKind::Overloaded => Code::ResourceExhausted,
        ErrorKind::UpstreamDown
        | ErrorKind::UpstreamThrottled
        | ErrorKind::StoreDown
        | ErrorKind::AuditDown
        | ErrorKind::Draining => Code::Unavailable,
        ErrorKind::UpstreamSlow => Code::DeadlineExceeded,
        ErrorKind::Bug => Code::Internal,
    }
}

/// The status of an error, with `ErrorInfo`, and `RetryInfo` and `BadRequest` where they apply.
#[must_use]
pub fn to_status(error: &Error) -> Status {
    let mut details = ErrorDetails::with_error_info(error.kind().reason(), ERROR_DOMAIN, []);
    if let Some(delay) = error.retry_after() {
        details.set_retry_info(Some(delay));
    }
    for violation in error.violations().iter().take(MAX_VIOLATIONS) {
        details.add_bad_request_violation(&violation.field, &violation.description);
    }
    Status::with_error_details(code(error.kind()), text(error), details)
}

/// What the caller reads. Of a defect it learns nothing: the log has it.
fn text(error: &Error) -> String {
    if error.kind() == ErrorKind::Bug {
        error!(detail = error.message(), "a defect of the broker");
        return "internal error; the broker's log says more".into();
    }
    match error.violations().len() {
        all if all > MAX_VIOLATIONS => format!("{}: the first {MAX_VIOLATIONS} of {all} are told", error.message()),
        _ => error.to_string(),
    }
}

/// The same as a message, for a place inside another message.
#[must_use]
pub fn to_message(error: &Error) -> pb::Status {
    let status = to_status(error);
    prost::Message::decode(status.details()).unwrap_or_else(|_| pb::Status {
        code: i32::from(status.code()),
        message: status.message().to_owned(),
        details: vec![],
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::error::Violation;

    #[test]
    fn every_error_carries_its_reason_under_our_domain() {
        for kind in ErrorKind::ALL {
            let status = to_status(&Error::new(kind, "text"));
            let info = status.get_error_details().error_info().cloned().expect("every status has ErrorInfo");
            assert_eq!((info.reason.as_str(), info.domain.as_str()), (kind.reason(), "tokencache"));
            assert_ne!(status.code(), Code::Unknown);
        }
    }

    #[test]
    fn a_retry_delay_and_all_violations_are_sent_along() {
        let violation = |field: &str| Violation { field: field.into(), description: "wrong".into() };
        let error = Error::bad_request(vec![violation("a"), violation("b")]).with_retry_after(Duration::from_secs(3));
        let details = to_status(&error).get_error_details();
        assert_eq!(details.retry_info().and_then(|info| info.retry_delay), Some(Duration::from_secs(3)));
        assert_eq!(details.bad_request().map(|bad| bad.field_violations.len()), Some(2));
    }

    #[test]
    fn the_detail_of_a_defect_is_not_told() {
        let status = to_status(&Error::bug("s3cr3t detail"));
        assert!(!format!("{status:?}").contains("s3cr3t"));
    }

    #[test]
    fn the_message_form_is_the_same_status() {
        let message = to_message(&Error::new(ErrorKind::UpstreamDown, "down"));
        assert_eq!((message.code, message.message.as_str(), message.details.len()), (14, "down", 1));
    }
}
