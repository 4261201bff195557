//! How long a token is valid, whatever an upstream says about it.

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::Value;

use crate::{config::reader::Section, time::Timestamp, types::Secret};

/// The lifetime of a token of which nobody says anything: that of most, and short enough to heal by itself.
const DEFAULT: Duration = Duration::from_secs(3600);

/// The longest lifetime that is believed: ten years.
pub(crate) const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// `default_lifetime` and `max_lifetime` of a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LifetimeRule {
    pub(crate) default: Duration,
    pub(crate) max: Duration,
}

impl Default for LifetimeRule {
    fn default() -> Self {
        Self { default: DEFAULT, max: LONGEST }
    }
}

impl LifetimeRule {
    /// Reads both keys, which may be absent.
    pub(crate) fn read(section: &Section<'_>) -> Self {
        let default = Self::default();
        Self {
            default: at_least_a_second(section, "default_lifetime").unwrap_or(default.default),
            max: at_least_a_second(section, "max_lifetime").unwrap_or(default.max).min(LONGEST),
        }
    }

    /// The lifetime of a token: the least of what the upstream told, what the token itself says if it is a JWT, and the
    /// maximum; the default if neither tells. Zero: it has expired.
    ///
    /// The JWT's signature is not verified: a forged `exp` could only shorten the life of a token that the forger chose.
    pub(crate) fn apply(&self, told: Option<Duration>, access_token: &Secret, now: Timestamp) -> Duration {
        let by_itself = jwt_expiry(access_token.expose()).map(|expiry| expiry.since(now));
        let shortest = [told, by_itself].into_iter().flatten().min();
        shortest.unwrap_or(self.default).min(self.max)
    }
}

/// Reads a duration of at least one second.
pub(crate) fn at_least_a_second(section: &Section<'_>, key: &'static str) -> Option<Duration> {
    let duration = section.duration(key)?;
    if duration < Duration::from_secs(1) {
        section.problem_at(key, "expected at least \"1s\"");
    }
    Some(duration)
}

/// Seconds as upstreams write them: an integer, a float, or either in a string. Zero and less are zero; what is not a
/// number counts as not told.
pub(crate) fn seconds(value: &Value) -> Option<Duration> {
    let seconds = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().parse().ok().filter(|seconds: &f64| seconds.is_finite())?,
        _ => return None,
    };
    // What does not fit into a duration is longer than anything that is believed.
    Some(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX))
}

/// The `exp` of a signed JWT (RFC 7519 section 4.1.4), without verifying it.
fn jwt_expiry(token: &str) -> Option<Timestamp> {
    let mut parts = token.split('.');
    let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let payload: Value = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
    let exp = payload.get("exp")?.as_number()?;
    seconds(&Value::Number(exp.clone())).map(|exp| Timestamp::from_millis(0).after(exp))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn jwt(payload: &str) -> Secret {
        Secret::new(format!("e30.{}.sig", BASE64_URL_SAFE_NO_PAD.encode(payload)))
    }

    #[test]
    fn seconds_come_as_integers_floats_and_strings() {
        for value in [json!(3600), json!(3600.0), json!("3600"), json!(" 3600.0 "), json!("3.6e3")] {
            assert_eq!(seconds(&value), Some(Duration::from_secs(3600)), "{value}");
        }
        for value in [json!(0), json!(-1), json!("-3600"), json!(-1e30), json!(i64::MIN)] {
            assert_eq!(seconds(&value), Some(Duration::ZERO), "{value}");
        }
        for value in [json!(1e30), json!("1e30"), json!(u64::MAX)] {
            assert!(seconds(&value).is_some_and(|d| d > LONGEST), "{value}");
        }
        for value in [json!(null), json!("NaN"), json!("inf"), json!(""), json!("soon"), json!(true), json!([3600])] {
            assert_eq!(seconds(&value), None, "{value}");
        }
    }

    #[test]
    fn the_least_of_what_is_told_and_what_the_jwt_says_counts() {
        let rule = LifetimeRule::default();
        let token = jwt(r#"{"exp":1600}"#); // 600 s after NOW
        assert_eq!(rule.apply(Some(Duration::from_secs(3600)), &token, NOW), Duration::from_secs(600));
        assert_eq!(rule.apply(Some(Duration::from_secs(60)), &token, NOW), Duration::from_secs(60));
        assert_eq!(rule.apply(None, &token, NOW), Duration::from_secs(600));
        assert_eq!(rule.apply(None, &jwt(r#"{"exp":1}"#), NOW), Duration::ZERO);
        assert_eq!(rule.apply(None, &jwt(r#"{"exp":1600.5}"#), NOW), Duration::from_millis(600_500));
    }

    #[test]
    fn without_a_word_the_default_counts_and_the_maximum_always() {
        let rule = LifetimeRule { default: Duration::from_secs(30), max: Duration::from_secs(100) };
        let opaque = Secret::from("opaque");
        assert_eq!(rule.apply(None, &opaque, NOW), Duration::from_secs(30));
        assert_eq!(rule.apply(Some(Duration::MAX), &opaque, NOW), Duration::from_secs(100));
        assert_eq!(LifetimeRule::default().apply(Some(Duration::MAX), &opaque, NOW), LONGEST);
        for odd in ["a.b.c", "..", "e30.e30", r#"e30.eyJleHAiOiJ4In0.s"#, "e30.bm90IGpzb24.s"] {
            assert_eq!(rule.apply(None, &Secret::from(odd), NOW), Duration::from_secs(30), "{odd}");
        }
    }

    proptest! {
        #[test]
        fn no_expiry_that_an_upstream_invents_panics(number in any::<f64>(), token in "[A-Za-z0-9_.-]{0,64}", exp in any::<f64>()) {
            let told = seconds(&json!(number.to_string()));
            for token in [Secret::new(token), jwt(&json!({ "exp": exp }).to_string())] {
                prop_assert!(LifetimeRule::default().apply(told, &token, NOW) <= LONGEST);
            }
        }
    }
}
