//! The configuration file: every option, its bounds and its default.
//!
//! `config/default.toml` documents the options and is what an empty file means; a test holds the two together.
//! A configuration is used only if nothing is wrong with it, and everything that is wrong is told at once.

use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::{credential::Catalog, provider::registry::ProviderRegistry};

mod cache;
mod check;
mod credential;
mod defaults;
mod encryption;
mod endpoint;
mod load;
mod plain;
pub mod reader;
pub mod secret;
mod server;
mod store;

#[cfg(test)]
mod tests;

pub use cache::CacheConfig;
pub use check::{Report, check};
pub use defaults::Defaults;
pub use encryption::EncryptionConfig;
pub use server::{Listen, ServerConfig};
pub use store::StoreConfig;

use load::Reading;

/// The annotated default configuration.
pub const DEFAULT: &str = include_str!("config/default.toml");

/// A configuration without problems.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Where the broker listens and how it ends.
    pub server: ServerConfig,
    /// Where tokens and grants outlive the process.
    pub store: StoreConfig,
    /// The keys that what is stored is sealed with.
    pub encryption: EncryptionConfig,
    /// How much is held in memory.
    pub cache: CacheConfig,
    /// Whose tokens it obtains.
    pub credentials: Catalog,
    /// What is allowed but unwise, as `file:line:column: path: message`; to be logged at the start.
    pub warnings: Vec<String>,
}

/// Why a configuration cannot be used: every problem, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}", .problems.join("\n"))]
pub struct ConfigError {
    /// Each as `file:line:column: path: message`; without a place where the file as a whole is meant.
    pub problems: Vec<String>,
}

impl ConfigError {
    fn single(path: &Path, message: &str) -> Self {
        Self { problems: vec![format!("{}: {message}", path.display())] }
    }
}

impl Config {
    /// Reads a file. Relative paths in it start at its directory. Secrets are not read: they may come later.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or anything in it is wrong.
    pub fn load(path: &Path, registry: &ProviderRegistry) -> Result<Self, ConfigError> {
        Reading::of_file(path, registry)?.finish()
    }

    /// Reads a text, as if it stood in `file_name` in `directory`. Touches no file but those that a provider's factory
    /// reads, such as CA bundles.
    ///
    /// # Errors
    ///
    /// If anything in it is wrong.
    pub fn parse(
        file_name: &str,
        text: &str,
        directory: impl Into<PathBuf>,
        registry: &ProviderRegistry,
    ) -> Result<Self, ConfigError> {
        Reading::of_text(file_name, text, directory.into(), registry).finish()
    }
}
