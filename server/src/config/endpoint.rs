//! `[endpoints."ORIGIN"]`: how the token endpoints of a server may be called, by all replicas together.

use std::collections::{BTreeMap, BTreeSet};

use super::reader::{Section, Value};
use crate::{
    credential::{Endpoint, EndpointRules},
    types::Origin,
};

/// The rules of all endpoints.
#[derive(Debug, Default)]
pub(super) struct Endpoints {
    defaults: EndpointRules,
    own: BTreeMap<Origin, EndpointRules>,
}

impl Endpoints {
    /// Reads the table of endpoints; `defaults` is the section with the rules of those that have none of their own.
    pub(super) fn read(table: Option<&Value<'_>>, defaults: &Section<'_>) -> Self {
        let mut endpoints = Self { defaults: read_rules(defaults, EndpointRules::default()), own: BTreeMap::new() };
        for (name, value) in table.and_then(Value::entries).unwrap_or_default() {
            let origin = Origin::parse(&name);
            if origin.is_none() {
                value.problem("an endpoint is named by its origin, without a path, such as \"https://idp.example\"");
            }
            let Some(section) = value.section() else { continue };
            let rules = read_rules(&section, endpoints.defaults);
            section.finish();
            if origin.is_some_and(|origin| endpoints.own.insert(origin, rules).is_some()) {
                value.problem("the same endpoint stands here twice");
            }
        }
        endpoints
    }

    /// The endpoint of this origin with its rules.
    pub(super) fn at(&self, origin: Origin) -> Endpoint {
        let rules = self.own.get(&origin).copied().unwrap_or(self.defaults);
        Endpoint { origin, rules }
    }

    /// Warns of tables whose endpoint no credential asks: a typing error would have no effect, and no other sign.
    pub(super) fn warn_of_unused(table: Option<&Value<'_>>, used: &BTreeSet<&Origin>) {
        for (name, value) in table.and_then(Value::entries).unwrap_or_default() {
            let Some(origin) = Origin::parse(&name) else { continue };
            if !used.contains(&origin) {
                value.warn("no credential asks this endpoint");
            }
        }
    }
}

fn read_rules(section: &Section<'_>, otherwise: EndpointRules) -> EndpointRules {
    let number = |key, most: u64| section.integer(key, 1..most + 1).and_then(|number| u32::try_from(number).ok());
    EndpointRules {
        max_concurrent: number("max_concurrent", 1024).unwrap_or(otherwise.max_concurrent),
        failures_to_open: number("failures_to_open", 1000).unwrap_or(otherwise.failures_to_open),
    }
}
