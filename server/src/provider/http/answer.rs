//! An upstream's answer, and what it means where the protocol says nothing more precise.

use std::{
    fmt,
    ops::Deref,
    time::{Duration, UNIX_EPOCH},
};

use ::http::{HeaderMap, StatusCode, header::RETRY_AFTER};
use serde_json::Value;
use thiserror::Error;
use zeroize::{Zeroize as _, Zeroizing};

use crate::{
    error::{Error, ErrorKind},
    time::Timestamp,
};

/// The shortest and the longest wait that an upstream can ask for.
const RETRY_AFTER_BOUNDS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));

/// What an upstream answered.
pub struct Answer {
    /// Who answered, for texts.
    pub host: String,
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, as far as it was read.
    pub body: Zeroizing<Vec<u8>>,
    /// Why the body is not the whole one.
    pub fault: Option<BodyFault>,
}

/// Why a body was not read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BodyFault {
    /// It is longer than 64 KiB.
    #[error("with a body of more than 64 KiB")]
    TooLong,
    /// It is compressed, although the request asked for none of that.
    #[error("with a compressed body, which was not asked for")]
    Encoded,
    /// The connection ended first.
    #[error("with a body that breaks off")]
    Truncated,
    /// The time ran out first.
    #[error("with a body that did not end in time")]
    Slow,
}

/// JSON that may hold secrets: its texts are wiped when it is dropped.
#[derive(Default)]
pub struct Document(Value);

impl Deref for Document {
    type Target = Value;

    fn deref(&self) -> &Value {
        &self.0
    }
}

impl Drop for Document {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(items) => items.iter_mut().for_each(wipe),
        Value::Object(entries) => entries.values_mut().for_each(wipe),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from {}, {} bytes", self.status.as_u16(), self.host, self.body.len())
    }
}

impl Answer {
    /// The body as JSON, if it is whole. Nesting is bounded by `serde_json`.
    #[must_use]
    pub fn json(&self) -> Option<Document> {
        if self.fault.is_some() {
            return None;
        }
        serde_json::from_slice(&self.body).ok().map(Document)
    }

    /// How long the upstream asks to wait (RFC 9110 section 10.2.3), at least 1 s and at most 1 h.
    #[must_use]
    pub fn retry_after(&self, now: Timestamp) -> Option<Duration> {
        let text = self.headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
        let delay = if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            // More digits than fit mean a very long time.
            Duration::from_secs(text.parse().unwrap_or(u64::MAX))
        } else {
            let at = httpdate::parse_http_date(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
            Timestamp::from_millis(0).after(at).since(now)
        };
        Some(delay.clamp(RETRY_AFTER_BOUNDS.0, RETRY_AFTER_BOUNDS.1))
    }

    /// The error of an answer that is unusable although its status is a success; `what` says how.
    #[must_use]
    pub fn unusable(&self, kind: ErrorKind, what: impl fmt::Display) -> Error {
        Error::new(kind, format!("{} answered {} {what}", self.host, self.status.as_u16()))
    }

    /// The error of an answer whose body is not the whole one or is not what was expected.
    #[must_use]
    pub fn illegible(&self) -> Error {
        match self.fault {
            Some(fault @ BodyFault::Slow) => self.unusable(ErrorKind::UpstreamSlow, fault),
            Some(fault) => self.unusable(ErrorKind::UpstreamDown, fault),
            None => self.unusable(ErrorKind::UpstreamDown, "with a body that is not JSON"),
        }
    }

    /// The transient error of an answer whose status is not a success.
    #[must_use]
    pub fn failure(&self, now: Timestamp) -> Error {
        let status = self.status.as_u16();
        let kind = if status == 429 { ErrorKind::UpstreamThrottled } else { ErrorKind::UpstreamDown };
        let hint = if self.status.is_redirection() { ": redirects are not followed" } else { "" };
        let error = Error::new(kind, format!("{} answered {status}{hint}", self.host));
        match self.retry_after(now) {
            Some(delay) => error.with_retry_after(delay),
            None => error,
        }
    }

    /// Whether the upstream may have done what was asked, although its status is not a success.
    ///
    /// A gateway answers 5xx also if its back end vanished in mid-work. A 503 with Retry-After, like a 429, was shed
    /// before the work began.
    #[must_use]
    pub fn is_ambiguous(&self) -> bool {
        let shed = self.status == StatusCode::SERVICE_UNAVAILABLE && self.headers.contains_key(RETRY_AFTER);
        self.status == StatusCode::REQUEST_TIMEOUT || (self.status.is_server_error() && !shed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, retry_after: Option<&str>) -> Answer {
        let mut headers = HeaderMap::new();
        if let Some(value) = retry_after {
            headers.insert(RETRY_AFTER, value.parse().expect("a header value"));
        }
        let status = StatusCode::from_u16(status).expect("a status");
        Answer { host: "idp.example".into(), status, headers, body: Zeroizing::default(), fault: None }
    }

    #[test]
    fn no_text_of_a_document_is_left_once_it_is_wiped_and_none_is_shown() {
        let mut value = serde_json::json!({ "a": "s3cr3t", "b": [{ "c": ["s3cr3t", 1, null] }], "d": true });
        assert!(!format!("{:?}", Document(value.clone())).contains("s3cr3t"));
        wipe(&mut value);
        assert_eq!(value, serde_json::json!({ "a": "", "b": [{ "c": ["", 1, null] }], "d": true }));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_within_bounds() {
        let now = Timestamp::from_millis(784_111_777_000 - 30_000); // 30 s before the date below
        for (header, seconds) in [
            ("120", Some(120)),
            ("0", Some(1)),
            ("99999999999999999999999999", Some(3600)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(30)),
            ("Sun, 06 Nov 1993 08:49:37 GMT", None),
            ("Sat, 06 Nov 1993 08:49:37 GMT", Some(1)),
            ("-1", None),
            ("soon", None),
            ("", None),
        ] {
            let found = answer(429, Some(header)).retry_after(now);
            assert_eq!(found, seconds.map(Duration::from_secs), "{header}");
        }
    }

    #[test]
    fn a_failure_tells_throttled_from_down_and_explains_redirects() {
        let now = Timestamp::from_millis(0);
        let throttled = answer(429, Some("7")).failure(now);
        assert_eq!(
            (throttled.kind(), throttled.retry_after()),
            (ErrorKind::UpstreamThrottled, Some(Duration::from_secs(7)))
        );
        let moved = answer(302, None).failure(now);
        assert_eq!(moved.to_string(), "idp.example answered 302: redirects are not followed");
        assert_eq!(moved.kind(), ErrorKind::UpstreamDown);
    }

    #[test]
    fn only_answers_of_a_server_that_may_have_begun_are_ambiguous() {
        for (status, retry_after, ambiguous) in [
            (500, None, true),
            (502, None, true),
            (503, None, true),
            (503, Some("1"), false),
            (429, None, false),
            (404, None, false),
            (408, None, true),
        ] {
            assert_eq!(answer(status, retry_after).is_ambiguous(), ambiguous, "{status}");
        }
    }
}
