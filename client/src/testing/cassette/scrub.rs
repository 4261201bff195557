//! What is written of headers, URLs and bodies: everything but secrets.

#![cfg_attr(not(feature = "reqwest"), expect(dead_code, reason = "the transports are behind features"))]

use http::{HeaderName, HeaderValue};
use serde_json::Value;

const REDACTED: &str = "[redacted]";

/// Headers whose standard says that they carry credentials, or that by custom do.
const HEADERS: [&str; 8] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "set-cookie",
    "x-api-key",
    "x-auth-token",
    "x-session",
    "www-authenticate",
];

/// Parameters and members that carry secrets: RFC 6749, 7521, 7523, 8628, 8693, OpenID Connect, and what log-ins call them.
const NAMES: [&str; 16] = [
    "access_token",
    "refresh_token",
    "id_token",
    "token",
    "subject_token",
    "actor_token",
    "code",
    "device_code",
    "code_verifier",
    "client_secret",
    "client_assertion",
    "assertion",
    "password",
    "secret",
    "session",
    "api_key",
];

pub(super) fn header(name: &HeaderName, value: &HeaderValue) -> String {
    match value.to_str() {
        Ok(text) if !value.is_sensitive() && !HEADERS.contains(&name.as_str()) => text.to_owned(),
        _ => REDACTED.to_owned(),
    }
}

pub(super) fn body(bytes: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(bytes) else { return format!("[{} bytes]", bytes.len()) };
    if let Ok(mut value @ (Value::Object(_) | Value::Array(_))) = serde_json::from_str(text) {
        return if redact(&mut value) { value.to_string() } else { text.to_owned() };
    }
    parameters(text)
}

/// Without a user's name and password, which reqwest sends as a header.
#[cfg(feature = "reqwest")]
pub(super) fn url(url: &reqwest::Url) -> String {
    let mut url = url.clone();
    // A URL that cannot have them has none.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    let query = url.query().map(parameters);
    url.set_query(query.as_deref());
    url.into()
}

/// Whether anything was a secret.
fn redact(value: &mut Value) -> bool {
    match value {
        Value::Object(members) => {
            let mut any = false;
            for (name, member) in members {
                if is_secret(name) && !member.is_null() {
                    *member = REDACTED.into();
                    any = true;
                } else {
                    any |= redact(member);
                }
            }
            any
        }
        Value::Array(items) => items.iter_mut().fold(false, |any, item| redact(item) | any),
        _ => false,
    }
}

/// A form or a query; any other text stays as it is.
fn parameters(text: &str) -> String {
    let part = |part: &str| match part.split_once('=') {
        Some((name, _)) if is_secret(name) => format!("{name}={REDACTED}"),
        _ => part.to_owned(),
    };
    text.split('&').map(part).collect::<Vec<_>>().join("&")
}

fn is_secret(name: &str) -> bool {
    NAMES.iter().any(|secret| name.eq_ignore_ascii_case(secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_written() {
        let json = br#"{"access_token":"s3cr3t","nested":[{"Password":"s3cr3t"}],"expires_in":60}"#;
        let form = b"grant_type=password&username=bot&password=s3cr3t&client_secret=s3cr3t";
        for text in [body(json), body(form)] {
            assert!(!text.contains("s3cr3t") && text.contains(REDACTED), "{text}");
        }
        assert!(body(json).contains("\"expires_in\":60"));
        assert!(body(form).starts_with("grant_type=password&username=bot&"));
        assert_eq!(body(&[0xff, 0]), "[2 bytes]");
        let mut own = HeaderValue::from_static("s3cr3t");
        own.set_sensitive(true);
        assert_eq!(header(&HeaderName::from_static("x-own"), &own), REDACTED);
        assert_eq!(header(&http::header::COOKIE, &HeaderValue::from_static("sid=s3cr3t")), REDACTED);
        assert_eq!(header(&http::header::ACCEPT, &HeaderValue::from_static("a/b")), "a/b");
    }

    #[test]
    fn what_has_no_secret_is_written_as_it_was() {
        for text in ["", "plain text", "{ \"a\" : 1 }", "a=b&c", "[1, 2]"] {
            assert_eq!(body(text.as_bytes()), text);
        }
    }
}
