//! `[encryption]`: the keys that tokens and refresh tokens are sealed with in the store.

use std::collections::BTreeMap;

use super::{
    reader::{Section, Value},
    secret::SecretSource,
};
use crate::store::sealed::KeyId;

/// The keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EncryptionConfig {
    /// The one that seals. `None`: nothing is sealed, and nothing may be kept that outlives the process.
    pub active: Option<KeyId>,
    /// All of them, each with the place that it is read from at the start.
    pub keys: BTreeMap<KeyId, SecretSource>,
    /// Take what was kept in the clear for what it is.
    pub accept_plaintext: bool,
    /// Keys that may be missing although rows are sealed with them.
    pub allow_missing_keys: Vec<KeyId>,
}

const RULE: &str =
    "the name of a key consists of a-z, 0-9, '.', '_' and '-', begins with a-z or 0-9 and has at most 32 bytes";

impl EncryptionConfig {
    /// Reads the section; what is not there has its default.
    pub(super) fn read(section: &Section<'_>) -> Self {
        let active = section.value("active").and_then(|value| read_id(&value));
        let keys = section.value("keys").and_then(|value| read_keys(&value)).unwrap_or_default();
        let allowed = section.value("allow_missing_keys").and_then(|value| value.items()).unwrap_or_default();
        let allow_missing_keys: Vec<_> = allowed.iter().filter_map(read_id).collect();
        let config = Self {
            active,
            keys,
            accept_plaintext: section.bool("accept_plaintext").unwrap_or_default(),
            allow_missing_keys,
        };
        config.check(section);
        config
    }

    fn check(&self, section: &Section<'_>) {
        match &self.active {
            None if section.has("keys") && !section.has("active") => {
                section.problem("the key `active` is missing: it names the key of `keys` that seals");
            }
            Some(active) if section.has("keys") && !self.keys.contains_key(active) && !self.keys.is_empty() => {
                let known: Vec<_> = self.keys.keys().map(KeyId::as_str).collect();
                section.problem_at("active", format!("there is no such key in `keys`; known: {}", known.join(", ")));
            }
            Some(_) if !section.has("keys") => {
                section.problem("the key `keys` is missing: a table of the keys, each with where it is read from");
            }
            _ => {}
        }
        if self.accept_plaintext {
            section.warn_at(
                "accept_plaintext",
                "whoever can write the database can plant tokens: drop it once `tokencached key rotate` has sealed all",
            );
        }
        for id in self.allow_missing_keys.iter().filter(|id| self.keys.contains_key(id)) {
            section.problem_at("allow_missing_keys", format!("the key {id} is in `keys`"));
        }
    }
}

fn read_id(value: &Value<'_>) -> Option<KeyId> {
    let id = KeyId::parse(&value.string()?);
    if id.is_none() {
        value.problem(RULE);
    }
    id
}

fn read_keys(value: &Value<'_>) -> Option<BTreeMap<KeyId, SecretSource>> {
    let entries = value.entries()?;
    if entries.is_empty() {
        value.problem("expected one key at least");
    }
    let read = |(name, source): (String, Value<'_>)| {
        let id = KeyId::parse(&name);
        if id.is_none() {
            source.problem(RULE);
        }
        source.secret().and_then(|source| Some((id?, source)))
    };
    Some(entries.into_iter().filter_map(read).collect())
}
