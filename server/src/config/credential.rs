//! `[credentials.NAME]`: a credential; what its provider needs is read by the provider's factory.

use std::sync::Arc;

use url::Url;

use super::{
    defaults::Defaults,
    endpoint::Endpoints,
    plain::warn_of_plain_secrets,
    reader::{Section, Value},
};
use crate::{
    credential::{AskDefaults, Credential},
    provider::{deadline::DeadlineProvider, registry::ProviderRegistry},
    types::CredentialName,
};

/// Reads every credential.
pub(super) fn read_all(
    table: &Value<'_>,
    registry: &ProviderRegistry,
    defaults: &Defaults,
    endpoints: &Endpoints,
) -> Vec<Credential> {
    if !table.get().is_table() {
        table.problem("expected a table for each credential, which begins with [credentials.NAME]");
        return Vec::new();
    }
    let entries = table.entries().unwrap_or_default();
    entries.iter().filter_map(|(name, value)| read(name, value, registry, defaults, endpoints)).collect()
}

/// Reads one, even if its name is wrong, so that all of its problems are found at once.
fn read(
    name_text: &str,
    value: &Value<'_>,
    registry: &ProviderRegistry,
    defaults: &Defaults,
    endpoints: &Endpoints,
) -> Option<Credential> {
    let name = CredentialName::parse(name_text).map_err(|rule| value.problem(rule.to_string())).ok();
    let section = value.section()?;
    if let Some(rest) = unquoted_rest(&section, value) {
        value.problem(format!("a name with a dot is quoted: write [credentials.{:?}]", format!("{name_text}.{rest}")));
        return None;
    }
    let rules = Defaults::read(&section, defaults);
    let ask = read_ask(&section);
    let built = registry.build(&section);
    warn_of_plain_secrets(value);
    section.finish();
    let built = built?;
    built.warnings.iter().for_each(|warning| value.warn(warning));
    let endpoint = built.provider.endpoint().map(|origin| endpoints.at(origin));
    Some(Credential {
        name: name?,
        endpoint,
        provider: Arc::new(DeadlineProvider::new(built.provider, rules.timeout)),
        defaults: ask,
        refresh: rules.refresh,
        reject_on: rules.reject_on,
        when_degraded: rules.when_degraded,
        timeout: rules.timeout,
        config: built.identity,
    })
}

/// The part of a name behind its dot, where TOML took the dot for the beginning of a table inside.
fn unquoted_rest(section: &Section<'_>, value: &Value<'_>) -> Option<String> {
    if section.has("provider") {
        return None;
    }
    let is_credential = |inner: &Value<'_>| inner.get().as_table().is_some_and(|table| table.contains_key("provider"));
    value.entries()?.into_iter().find(|(_, inner)| is_credential(inner)).map(|(key, _)| key)
}

fn read_ask(section: &Section<'_>) -> AskDefaults {
    AskDefaults {
        scopes: read_list(
            section,
            "scopes",
            is_scope,
            "a scope consists of visible ASCII without spaces, `\"` and `\\`",
        ),
        audience: section.string("audience"),
        resources: read_list(section, "resources", is_resource, "a resource is an absolute URI without a fragment"),
    }
}

fn read_list(section: &Section<'_>, key: &'static str, valid: fn(&str) -> bool, rule: &str) -> Vec<String> {
    let items = section.value(key).and_then(|value| value.items()).unwrap_or_default();
    let mut list = Vec::with_capacity(items.len());
    for item in items {
        let Some(text) = item.string() else { continue };
        if !valid(&text) {
            item.problem(rule);
        }
        list.push(text);
    }
    list
}

/// RFC 6749 section 3.3.
fn is_scope(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e))
}

/// RFC 8707 section 2.
fn is_resource(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| url.fragment().is_none())
}
