//! The answer to a log-in.

use std::{collections::BTreeMap, time::Duration};

use ::http::{HeaderMap, header::SET_COOKIE};
use serde_json::Value;

use super::{
    config::{Config, LifetimePlace, TokenPlace},
    error::LoginFailure,
};
use crate::{
    error::ErrorKind,
    provider::{
        Minted,
        http::{Answer, Document},
        lifetime::seconds,
        text::is_presentable,
    },
    time::Timestamp,
    types::Secret,
};

/// Reads the session from an answer whose status is a success. The body matters only if something is picked from it.
pub(super) fn read_session(answer: &Answer, config: &Config, now: Timestamp) -> Result<Minted, LoginFailure> {
    let unusable = |what| LoginFailure::Unusable(answer.unusable(ErrorKind::UpstreamDown, what));
    let document = match answer.json() {
        Some(document) => document,
        None if config.needs_body() => return Err(LoginFailure::Unusable(answer.illegible())),
        None => Document::default(),
    };
    let access_token = match &config.token {
        TokenPlace::Pointer(pointer) => document.pointer(pointer).and_then(Value::as_str).map(Secret::from),
        TokenPlace::Header(name) => answer.headers.get(name).and_then(|v| v.to_str().ok()).map(Secret::from),
        TokenPlace::Cookie(name) => cookie(&answer.headers, name),
    };
    let access_token = access_token.filter(|token| !token.expose().is_empty());
    let access_token = access_token.ok_or_else(|| unusable("without the token where `token` says that it is"))?;
    if !is_presentable(access_token.expose()) {
        return Err(unusable("with a token that is not visible ASCII or has spaces at its ends"));
    }
    let told = told_lifetime(config, &document);
    Ok(Minted {
        lifetime: config.lifetime.apply(told, &access_token, now),
        token_type: config.token_type.clone(),
        scopes: None,
        attributes: if config.attributes.is_empty() { BTreeMap::new() } else { config.attributes.pick(&document) },
        grant: None,
        access_token,
    })
}

fn told_lifetime(config: &Config, document: &Value) -> Option<Duration> {
    match config.told_lifetime.as_ref()? {
        LifetimePlace::Always(lifetime) => Some(*lifetime),
        LifetimePlace::Pointer(pointer) => document.pointer(pointer).and_then(seconds),
    }
}

impl Config {
    /// Whether an answer without a JSON body is of no use.
    fn needs_body(&self) -> bool {
        let by_pointer = matches!(self.told_lifetime, Some(LifetimePlace::Pointer(_)));
        by_pointer || matches!(self.token, TokenPlace::Pointer(_)) || !self.attributes.is_empty()
    }
}

/// The value of a cookie that is being set (RFC 6265 section 5.2); the last one counts.
fn cookie(headers: &HeaderMap, name: &str) -> Option<Secret> {
    let pairs = headers
        .get_all(SET_COOKIE)
        .iter()
        .filter_map(|header| header.to_str().ok()?.split(';').next()?.split_once('='));
    let mut found = pairs.filter(|(found, _)| found.trim() == name).map(|(_, value)| Secret::from(value.trim()));
    found.next_back()
}

#[cfg(test)]
mod tests {
    use ::http::HeaderValue;

    use super::*;

    #[test]
    fn a_cookie_is_found_by_its_exact_name() {
        let mut headers = HeaderMap::new();
        for set in ["XSID=no; Path=/", "SID=a=b; HttpOnly; Secure", "sid=no", "broken"] {
            headers.append(SET_COOKIE, HeaderValue::from_static(set));
        }
        assert_eq!(cookie(&headers, "SID"), Some(Secret::from("a=b")));
        assert_eq!(cookie(&headers, "Path"), None);
    }
}
