//! The form that is sent to a token endpoint and the JSON that comes back.

use std::fmt;

use serde::de::{self, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use super::{config::AnswerRules, error::known_code};
use crate::{
    error::{Error, ErrorKind},
    provider::{MintFailure, MintResult, Minted, form::Form, http::Answer, lifetime::seconds, text::is_presentable},
    time::Timestamp,
    types::{Secret, Selector},
};

/// Adds what is asked for: `scope` joined by spaces (RFC 6749 section 3.3), `audience`, and one `resource` for each
/// (RFC 8707 section 2).
pub(super) fn push_selector(form: &mut Form, selector: &Selector) {
    if !selector.scopes().is_empty() {
        form.push("scope", &selector.scopes().join(" "));
    }
    if let Some(audience) = selector.audience() {
        form.push("audience", audience);
    }
    for resource in selector.resources() {
        form.push("resource", resource);
    }
}

/// Reads the answer of a success. Whatever is wrong with it, a refresh token in it is given back.
pub(super) fn read_token(answer: &Answer, sent: Option<&Secret>, rules: &AnswerRules, now: Timestamp) -> MintResult {
    // One that comes unasked, to a log-in that is repeated anyway, is of no use.
    let grant = sent.and_then(|sent| refresh_token(&answer.body).filter(|token| token != sent));
    let Some(document) = answer.json() else {
        // What cannot be read may have held a refresh token.
        let in_doubt = sent.is_some() && grant.is_none();
        return Err(MintFailure { error: answer.illegible(), grant, in_doubt });
    };
    match read_document(answer, &document, rules, now) {
        Ok(minted) => Ok(Minted { grant, ..minted }),
        Err(error) => Err(MintFailure { error, grant, in_doubt: false }),
    }
}

fn read_document(answer: &Answer, document: &Value, rules: &AnswerRules, now: Timestamp) -> Result<Minted, Error> {
    let access_token = match document.get("access_token") {
        Some(Value::String(token)) if is_presentable(token) => Secret::from(token.as_str()),
        Some(Value::String(token)) if !token.is_empty() => {
            let what = "with an access_token that is not visible ASCII or has spaces at its ends";
            return Err(answer.unusable(ErrorKind::UpstreamDown, what));
        }
        _ => {
            let code = known_code(answer).map(|code| format!(" but with the error {code}")).unwrap_or_default();
            return Err(answer.unusable(ErrorKind::UpstreamDown, format!("without an access_token{code}")));
        }
    };
    Ok(Minted {
        token_type: token_type(answer, document, rules)?,
        lifetime: rules.lifetime.apply(document.get("expires_in").and_then(seconds), &access_token, now),
        scopes: document.get("scope").and_then(Value::as_str).map(scopes),
        attributes: rules.attributes.pick(document),
        grant: None,
        access_token,
    })
}

/// The type as the configuration spells it. RFC 6749 section 5.1 requires it of the server, but many a server that
/// leaves it out means Bearer.
fn token_type(answer: &Answer, document: &Value, rules: &AnswerRules) -> Result<String, Error> {
    let told = match document.get("token_type") {
        None | Some(Value::Null) => "Bearer",
        Some(Value::String(told)) => told,
        Some(_) => "",
    };
    let accepted = rules.token_types.iter().find(|accepted| accepted.eq_ignore_ascii_case(told));
    accepted.cloned().ok_or_else(|| {
        let what = format!("with a token_type other than {}; `token_types` can allow it", rules.token_types.join(", "));
        answer.unusable(ErrorKind::Misconfigured, what)
    })
}

fn scopes(text: &str) -> Vec<String> {
    let mut scopes: Vec<_> = text.split_ascii_whitespace().map(str::to_owned).collect();
    scopes.sort_unstable();
    scopes.dedup();
    scopes
}

/// The `refresh_token` of a JSON object, also of one that breaks off or is invalid further on; the last one, should there be
/// several, that is a text.
fn refresh_token(body: &[u8]) -> Option<Secret> {
    struct Finder<'a>(&'a mut Option<Secret>);

    impl<'de> Visitor<'de> for Finder<'_> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
            while let Some(key) = map.next_key::<String>()? {
                if key == "refresh_token" {
                    if let Value::String(token) = map.next_value()?
                        && !token.is_empty()
                    {
                        *self.0 = Some(Secret::new(token));
                    }
                } else {
                    map.next_value::<IgnoredAny>()?;
                }
            }
            Ok(())
        }
    }

    let mut found = None;
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    // An error ends the search; what was found by then counts.
    let _ = de::Deserializer::deserialize_map(&mut deserializer, Finder(&mut found));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refresh_token_is_found_in_an_object_that_breaks_off() {
        for body in [
            r#"{"refresh_token":"rt"}"#,
            r#"{"refresh_token":"rt","access_token":"a"#,
            r#"{"expires_in":1e999,"refresh_token":"rt","x":nonsense"#,
            r#"{"refresh_token":7,"refresh_token":"rt"}"#,
            r#"{"refresh_token":"rt","refresh_token":null}"#,
            &format!(r#"{{"deep":{},"refresh_token":"rt"}}"#, "[".repeat(5000) + &"]".repeat(5000)),
        ] {
            assert_eq!(refresh_token(body.as_bytes()), Some(Secret::from("rt")), "{body:.60}");
        }
        for body in [
            r#"{"refresh_token":"r"#,
            r#"{"refresh_token":""}"#,
            r#"{"refresh_token":null}"#,
            r#"{"refresh_token":7}"#,
            "[]",
            "",
        ] {
            assert_eq!(refresh_token(body.as_bytes()), None, "{body}");
        }
    }
}
