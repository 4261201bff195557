//! The configuration file: every option, its bounds and its default.
//!
//! `config/default.toml` documents the options and is what an empty file means; a test holds the two together.
//! A configuration is used only if nothing is wrong with it, and everything that is wrong is told at once.

use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::{audit::AuditSettings, credential::Catalog, policy::rules::Rules, provider::registry::ProviderRegistry};

mod audit;
mod authn;
mod cache;
mod check;
mod credential;
mod defaults;
mod encryption;
mod endpoint;
mod grant;
mod limits;
mod load;
mod plain;
pub mod reader;
pub mod secret;
mod server;
mod store;
mod telemetry;

#[cfg(test)]
mod tests;

pub use authn::{AuthnConfig, MtlsConfig};
pub use cache::CacheConfig;
pub use check::{Report, check};
pub use defaults::Defaults;
pub use encryption::EncryptionConfig;
pub use limits::Limits;
pub use server::{Listen, ServerConfig, ServerTlsConfig};
pub use store::StoreConfig;
pub use telemetry::TelemetryConfig;

use load::Reading;

/// The annotated default configuration.
pub const DEFAULT: &str = include_str!("config/default.toml");

/// What is wrong with a configuration by which nobody could call.
pub const NOBODY: &str = "nobody could call: configure how callers prove who they are, in [authn] (mtls, jwt, api_keys or \
                          unix_users), or let everybody in with server.insecure_allow_any_caller = true";

/// A configuration without problems.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Where the broker listens and how it ends.
    pub server: ServerConfig,
    /// How callers prove who they are.
    pub authn: AuthnConfig,
    /// Who may do what.
    pub grants: Rules,
    /// How much callers may demand.
    pub limits: Limits,
    /// Where tokens and grants outlive the process.
    pub store: StoreConfig,
    /// The keys that what is stored is sealed with.
    pub encryption: EncryptionConfig,
    /// How much is held in memory.
    pub cache: CacheConfig,
    /// Where traces are sent.
    pub telemetry: TelemetryConfig,
    /// Where it is recorded who got which token.
    pub audit: AuditSettings,
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
    /// Whether there is no way to tell callers apart, and nothing says that everybody is let in.
    #[must_use]
    pub fn nobody_could_call(&self) -> bool {
        self.authn.is_empty() && !self.server.insecure_allow_any_caller
    }

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
