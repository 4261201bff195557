//! Tests of the registry, and how other tests build a provider from a piece of configuration.

use std::path::Path;

use toml::de::DeTable;

use super::*;
use crate::{config::reader::Problems, provider::http::testing::Lookup};

/// Builds from the keys of a credential; the problems if there are any.
pub(crate) fn build_in(directory: &Path, keys: &str) -> Result<Built, Vec<String>> {
    build_by(&ProviderRegistry::builtin(), directory, keys)
}

/// The same, where names resolve to what the test says.
pub(crate) fn build_with_lookup(lookup: Arc<dyn Lookup>, keys: &str) -> Result<Built, Vec<String>> {
    let mut registry = ProviderRegistry::builtin();
    registry.context.clients = HttpClients::with_lookup(lookup);
    build_by(&registry, Path::new("."), keys)
}

fn build_by(registry: &ProviderRegistry, directory: &Path, keys: &str) -> Result<Built, Vec<String>> {
    let problems = Problems::new("c.toml", keys, directory.to_owned());
    let table = DeTable::parse(keys).expect("valid TOML");
    let section = Section::new(&problems, "credentials.x", table.get_ref(), 0);
    let built = registry.build(&section);
    section.finish();
    let messages = problems.into_messages();
    match built {
        Some(built) if messages.is_empty() => Ok(built),
        _ => Err(messages),
    }
}

/// The same, with paths that start in the current directory.
pub(crate) fn build(keys: &str) -> Result<Built, Vec<String>> {
    build_in(Path::new("."), keys)
}

#[test]
fn an_unknown_kind_is_told_the_known_ones_and_the_nearest() {
    let problems = build("provider = \"oauth\"").unwrap_err();
    let expected = "c.toml:1:12: credentials.x.provider: expected one of \"fixed\", \"oauth2\", \"session\", did you mean `oauth2`?";
    assert_eq!(problems, [expected]);
}

#[test]
fn a_credential_without_a_provider_is_a_problem() {
    assert_eq!(build("").unwrap_err(), ["c.toml:1:1: credentials.x: the key `provider` is missing"]);
}

#[test]
fn a_kind_can_be_added_and_replaced() {
    let factory = |kind| ProviderFactory { kind, build: |_, _| None };
    let registry = ProviderRegistry::builtin().with(factory("exec")).with(factory("fixed"));
    assert_eq!(registry.kinds().collect::<Vec<_>>(), ["exec", "fixed", "oauth2", "session"]);
}

#[test]
fn fields_of_an_identity_do_not_run_into_each_other() {
    assert_ne!(identity_of(&["ab", "c"]), identity_of(&["a", "bc"]));
    assert_eq!(identity_of(&["ab", "c"]), identity_of(&["ab", "c"]));
}
