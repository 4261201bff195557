//! `[defaults]`: the rules of credentials that do not have their own.

use std::time::Duration;

use super::reader::{Section, Value};
use crate::credential::{RefreshRules, RejectOn, WhenDegraded};

const SECOND: Duration = Duration::from_secs(1);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// The rules that may stand in `[defaults]` and in each credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// When tokens are replaced.
    pub refresh: RefreshRules,
    /// How long one attempt to get a token may take, everything included.
    pub timeout: Duration,
    /// Which answers of an upstream mean a dead token.
    pub reject_on: RejectOn,
    /// What a replica that has lost touch with the fleet does.
    pub when_degraded: WhenDegraded,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            refresh: RefreshRules::default(),
            timeout: Duration::from_secs(10),
            reject_on: RejectOn::default(),
            when_degraded: WhenDegraded::default(),
        }
    }
}

impl Defaults {
    /// Reads the rules of a section; what is not there is as in `otherwise`.
    pub(super) fn read(section: &Section<'_>, otherwise: &Self) -> Self {
        let degraded = [("serve", WhenDegraded::Serve), ("refuse", WhenDegraded::Refuse)];
        let reject_on = section.value("reject_on").and_then(|value| read_reject_on(&value));
        Self {
            refresh: RefreshRules {
                window: section.duration_in("refresh_window", SECOND, YEAR).or(otherwise.refresh.window),
                idle_window: section.duration_in("idle_window", SECOND, YEAR).or(otherwise.refresh.idle_window),
            },
            timeout: section.duration_in("timeout", SECOND, SECOND * 300).unwrap_or(otherwise.timeout),
            reject_on: reject_on.unwrap_or_else(|| otherwise.reject_on.clone()),
            when_degraded: section.choice("when_degraded", &degraded).unwrap_or(otherwise.when_degraded),
        }
    }
}

/// HTTP statuses as integers and error codes as strings, in one list.
fn read_reject_on(value: &Value<'_>) -> Option<RejectOn> {
    let mut rule = RejectOn { statuses: vec![], errors: vec![] };
    for item in value.items()? {
        if item.get().is_integer() {
            let status = item.integer_in(100, 599).and_then(|status| u16::try_from(status).ok());
            rule.statuses.extend(status);
        } else if item.get().is_str() {
            rule.errors.extend(item.string());
        } else {
            let _: Option<()> = item.expected("an HTTP status such as 401 or an error code such as \"invalid_token\"");
        }
    }
    Some(rule)
}
