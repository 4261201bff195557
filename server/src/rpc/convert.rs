//! Between the messages on the wire and the types of the service. Every invalid field is named, all at once.

use std::time::Duration;

use prost_types::{Duration as ProtoDuration, Timestamp as ProtoTimestamp};
use tokencache_proto::v1::{self, invalidate_token_request::Rejected};
use url::Url;

use crate::{
    cache::memory::Entry,
    error::{Error, ErrorKind, Result, Violation},
    time::Timestamp,
    types::{CredentialName, Fingerprint, Generation, RejectedToken, Rejection, Selector, TokenRequest},
};

/// The most scopes of a request, and the longest.
const MAX_SCOPES: usize = 128;
const MAX_SCOPE_LEN: usize = 256;

/// The most resources of a request; the longest resource, and the longest audience.
const MAX_RESOURCES: usize = 32;
const MAX_URI_LEN: usize = 2048;

/// The longest error code of a report.
const MAX_ERROR_LEN: usize = 256;

/// The violations found so far.
#[derive(Debug, Default)]
pub struct Check(Vec<Violation>);

impl Check {
    /// Notes that `field` is wrong.
    pub fn add(&mut self, field: impl Into<String>, description: impl Into<String>) {
        self.0.push(Violation { field: field.into(), description: description.into() });
    }

    /// The value, if nothing is wrong.
    ///
    /// # Errors
    ///
    /// `BadRequest` with all violations.
    pub fn finish<T>(self, value: T) -> Result<T> {
        if self.0.is_empty() { Ok(value) } else { Err(Error::bad_request(self.0)) }
    }
}

/// A credential's name.
///
/// # Errors
///
/// `BadName` with the rule that it breaks.
pub fn name(text: &str) -> Result<CredentialName> {
    CredentialName::parse(text).map_err(|rule| Error::new(ErrorKind::BadName, rule.to_string()))
}

/// The fields that name a token.
pub fn selector(message: v1::TokenSelector) -> Result<Selector> {
    let mut check = Check::default();
    let selector = read_selector(&mut check, message)?;
    check.finish(selector)
}

/// The same as a part of a larger request. Only a bad name is told alone.
fn read_selector(check: &mut Check, message: v1::TokenSelector) -> Result<Selector> {
    let credential = name(&message.credential)?;
    list(check, "scopes", &message.scopes, MAX_SCOPES, scope_problem);
    list(check, "resources", &message.resources, MAX_RESOURCES, resource_problem);
    if let Some(problem) = audience_problem(&message.audience) {
        check.add("audience", problem);
    }
    Ok(Selector::new(credential, message.scopes, Some(message.audience), message.resources))
}

fn list(check: &mut Check, field: &str, items: &[String], max: usize, problem: impl Fn(&str) -> Option<&'static str>) {
    if items.len() > max {
        check.add(field, format!("at most {max} are allowed, these are {}", items.len()));
        return;
    }
    for (i, item) in items.iter().enumerate() {
        if let Some(problem) = problem(item) {
            check.add(format!("{field}[{i}]"), problem);
        }
    }
}

/// RFC 6749 section 3.3.
fn scope_problem(scope: &str) -> Option<&'static str> {
    let allowed = |b: u8| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
    if scope.is_empty() || scope.len() > MAX_SCOPE_LEN {
        Some("a scope has 1 to 256 bytes")
    } else if !scope.bytes().all(allowed) {
        Some("a scope consists of visible ASCII without spaces, '\"' and '\\'")
    } else {
        None
    }
}

/// RFC 8707 section 2.
fn resource_problem(resource: &str) -> Option<&'static str> {
    if resource.len() > MAX_URI_LEN {
        return Some("a resource has at most 2048 bytes");
    }
    if !resource.bytes().all(|b| b.is_ascii_graphic()) {
        return Some("a resource consists of visible ASCII without spaces");
    }
    match Url::parse(resource) {
        Ok(url) if url.fragment().is_none() => None,
        Ok(_) => Some("a resource has no fragment"),
        Err(_) => Some("a resource is an absolute URI"),
    }
}

fn audience_problem(audience: &str) -> Option<&'static str> {
    if audience.len() > MAX_URI_LEN {
        Some("an audience has at most 2048 bytes")
    } else if audience.chars().any(char::is_control) {
        Some("an audience has no control characters")
    } else {
        None
    }
}

/// `GetToken`.
pub fn token_request(message: v1::GetTokenRequest) -> Result<TokenRequest> {
    let v1::GetTokenRequest { credential, scopes, audience, resources, .. } = message;
    let mut check = Check::default();
    let selector = read_selector(&mut check, v1::TokenSelector { credential, scopes, audience, resources })?;
    let min_validity = match message.min_validity {
        None => Some(Duration::ZERO),
        Some(told) => duration(told),
    };
    if min_validity.is_none() {
        check.add("min_validity", "a duration that is not negative");
    }
    check.finish(())?;
    let min_validity = min_validity.ok_or_else(|| Error::bug("a violation was lost"))?;
    Ok(TokenRequest {
        selector,
        min_validity,
        if_generation_not: generation(message.if_generation_not),
        rejected: generation(message.rejected_generation),
    })
}

/// A duration that is not negative, and valid as its type demands. The conversion of `prost_types` negates first, which
/// overflows for the least of all.
fn duration(message: ProtoDuration) -> Option<Duration> {
    let seconds = u64::try_from(message.seconds).ok()?;
    let nanos = u32::try_from(message.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(seconds, nanos))
}

fn generation(number: u64) -> Option<Generation> {
    (number != 0).then_some(Generation::new(number))
}

/// `InvalidateToken`.
pub fn rejection(message: v1::InvalidateTokenRequest) -> Result<Rejection> {
    let v1::InvalidateTokenRequest { credential, scopes, audience, resources, .. } = message;
    let mut check = Check::default();
    let selector = read_selector(&mut check, v1::TokenSelector { credential, scopes, audience, resources })?;
    let rejected = match message.rejected {
        Some(Rejected::Generation(number)) => generation(number).map(RejectedToken::Generation),
        Some(Rejected::Fingerprint(text)) => Fingerprint::parse(&text).map(RejectedToken::Fingerprint),
        None => None,
    };
    if rejected.is_none() {
        check.add("rejected", "a generation from 1, or a fingerprint of 16 hexadecimal digits");
    }
    let http_status = match message.http_status {
        0 => None,
        status => {
            let status = u16::try_from(status).ok().filter(|status| (100..600).contains(status));
            if status.is_none() {
                check.add("http_status", "0, or a status from 100 to 599");
            }
            status
        }
    };
    if message.error.len() > MAX_ERROR_LEN {
        check.add("error", format!("at most {MAX_ERROR_LEN} bytes"));
    }
    check.finish(())?;
    let rejected = rejected.ok_or_else(|| Error::bug("a violation was lost"))?;
    let error = (!message.error.is_empty()).then_some(message.error);
    Ok(Rejection { selector, rejected, http_status, error })
}

/// A token for the one who asked for it: the only message with a secret in it.
#[must_use]
pub fn token(entry: &Entry) -> v1::Token {
    let token = &entry.token;
    v1::Token {
        access_token: token.access_token.expose().clone(),
        token_type: token.terms.token_type().to_owned(),
        expires_at: Some(timestamp(token.expires_at)),
        issued_at: Some(timestamp(token.issued_at)),
        scopes: token.terms.scopes().to_vec(),
        generation: token.generation.get(),
        fingerprint: token.fingerprint.to_string(),
        attributes: token.terms.attributes().clone().into_iter().collect(),
    }
}

/// A selector, as it names a key.
#[must_use]
pub fn selector_message(selector: &Selector) -> v1::TokenSelector {
    v1::TokenSelector {
        credential: selector.credential().to_string(),
        scopes: selector.scopes().to_vec(),
        audience: selector.audience().unwrap_or_default().to_owned(),
        resources: selector.resources().to_vec(),
    }
}

/// The time that a message tells, to the millisecond. `None` if it is not valid as its type demands.
#[must_use]
pub fn time(message: &ProtoTimestamp) -> Option<Timestamp> {
    let nanos = i64::from(u32::try_from(message.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?);
    Some(Timestamp::from_millis(message.seconds.checked_mul(1000)?.checked_add(nanos / 1_000_000)?))
}

/// A time.
#[must_use]
pub fn timestamp(time: Timestamp) -> ProtoTimestamp {
    let millis = time.as_millis();
    let nanos = i32::try_from(millis.rem_euclid(1000)).unwrap_or_default() * 1_000_000;
    ProtoTimestamp { seconds: millis.div_euclid(1000), nanos }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(credential: &str) -> v1::TokenSelector {
        v1::TokenSelector { credential: credential.into(), ..Default::default() }
    }

    #[test]
    fn each_rule_for_names_is_told_as_bad_name() {
        for bad in ["", "A", "a//b", "a/../b", "é", &"x".repeat(129)] {
            assert_eq!(selector(message(bad)).map_err(|e| e.kind()), Err(ErrorKind::BadName), "{bad:?}");
        }
    }

    #[test]
    fn all_violations_are_told_at_once() {
        let bad = v1::TokenSelector {
            scopes: vec!["ok".into(), "a b".into(), String::new()],
            audience: "a\r\nb".into(),
            resources: vec!["relative".into(), "https://a/#f".into(), "https://a/\0".into()],
            ..message("c")
        };
        let error = selector(bad).expect_err("six violations");
        let fields: Vec<_> = error.violations().iter().map(|v| v.field.as_str()).collect();
        assert_eq!(fields, ["scopes[1]", "scopes[2]", "resources[0]", "resources[1]", "resources[2]", "audience"]);
    }

    #[test]
    fn a_million_scopes_are_one_violation() {
        let bad = v1::TokenSelector { scopes: vec!["s".into(); 1_000_000], ..message("c") };
        let error = selector(bad).expect_err("too many");
        assert_eq!(error.violations().len(), 1);
        assert!(error.to_string().contains("at most 128"), "{error}");
    }

    #[test]
    fn a_report_names_a_generation_or_a_fingerprint() {
        let report = |rejected| v1::InvalidateTokenRequest { credential: "c".into(), rejected, ..Default::default() };
        assert!(rejection(report(None)).is_err());
        assert!(rejection(report(Some(Rejected::Generation(0)))).is_err());
        assert!(rejection(report(Some(Rejected::Fingerprint("xyz".into())))).is_err());
        assert!(rejection(report(Some(Rejected::Fingerprint("ba7816bf8f01cfea".into())))).is_ok());
        let strange = v1::InvalidateTokenRequest { http_status: 999, ..report(Some(Rejected::Generation(1))) };
        assert!(rejection(strange).is_err());
    }

    #[test]
    fn a_negative_validity_is_refused() {
        for (seconds, nanos) in [(-1, 0), (0, -1), (i64::MIN, 0), (1, -1), (1, 1_000_000_000)] {
            let min_validity = Some(ProtoDuration { seconds, nanos });
            let bad = v1::GetTokenRequest { credential: "c".into(), min_validity, ..Default::default() };
            assert_eq!(token_request(bad).map_err(|e| e.kind()), Err(ErrorKind::BadRequest), "{seconds} s {nanos} ns");
        }
    }

    #[test]
    fn times_before_the_epoch_keep_their_milliseconds() {
        let before = timestamp(Timestamp::from_millis(-1));
        assert_eq!((before.seconds, before.nanos), (-1, 999_000_000));
    }
}
