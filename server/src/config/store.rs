//! `[store]`: where tokens and grants outlive the process.

use std::path::PathBuf;

use url::Url;

use super::{
    reader::{Section, Value},
    secret::SecretSource,
};

/// The store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    /// Its URL: `memory:`, `sqlite:PATH` with a path that is relative to nothing but the working directory any more, or
    /// `postgres://…` without a password.
    pub url: String,
    /// The password of a Postgres store, read at the start and whenever the database refuses it.
    pub password: Option<SecretSource>,
    /// Where a process that has to end leaves what the store has not taken.
    pub spill_dir: PathBuf,
}

/// The default of `spill_dir`.
const SPILL_DIR: &str = "tokencache-spill";

impl Default for StoreConfig {
    fn default() -> Self {
        Self { url: "sqlite:tokencache.db".into(), password: None, spill_dir: SPILL_DIR.into() }
    }
}

impl StoreConfig {
    /// Reads the section; what is not there has its default.
    pub(super) fn read(section: &Section<'_>) -> Self {
        let default = Self::default();
        let url = section.value("url");
        let url = match &url {
            Some(value) => read_url(value),
            None => Some(format!("sqlite:{}", section.resolve("tokencache.db").display())),
        };
        let password = section.secret("password");
        if section.has("password") && url.as_ref().is_some_and(|url| !url.starts_with("postgres")) {
            section.problem_at("password", "only a Postgres store has a password");
        }
        let spill_dir = section.path_of("spill_dir").unwrap_or_else(|| section.resolve(SPILL_DIR));
        if section.string("spill_dir").is_some_and(|path| path.is_empty()) {
            section.problem_at("spill_dir", "expected the path of a directory");
        }
        Self { url: url.unwrap_or(default.url), password, spill_dir }
    }
}

fn read_url(value: &Value<'_>) -> Option<String> {
    let url = value.string()?;
    match url.split_once(':') {
        Some(("memory", "")) => Some(url),
        Some(("sqlite", path)) => read_sqlite(value, path),
        Some(("postgres" | "postgresql", _)) => read_postgres(value, &url),
        _ => {
            value.problem(
                "not the URL of a store; write \"memory:\", \"sqlite:PATH\" or \"postgres://USER@HOST/DATABASE\"",
            );
            None
        }
    }
}

fn read_sqlite(value: &Value<'_>, path: &str) -> Option<String> {
    if path.is_empty() || path.starts_with("//") || path.starts_with(':') {
        value.problem(
            "expected \"sqlite:PATH\" without `//`, such as \"sqlite:/var/lib/tokencache/tokencache.db\", or \"memory:\"",
        );
        return None;
    }
    Some(format!("sqlite:{}", value.resolve(path).display()))
}

/// The store's own registry parses the rest of the URL; here it is only made sure that no password stands in the file.
fn read_postgres(value: &Value<'_>, text: &str) -> Option<String> {
    let Some(url) = Url::parse(text).ok().filter(|url| url.as_str().contains("://")) else {
        value.problem("not a Postgres URL; write \"postgres://USER@HOST/DATABASE\"");
        return None;
    };
    if url.password().is_some() || url.query_pairs().any(|(key, _)| key == "password") {
        value.problem("a password must not stand in the file: write password = { env = \"NAME\" } beside the URL");
        return None;
    }
    Some(text.to_owned())
}
