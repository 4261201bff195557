//! From the text of the file to the configuration and all that is wrong with it.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use toml::de::DeTable;

use super::{
    AuthnConfig, CacheConfig, Config, ConfigError, Defaults, EncryptionConfig, Limits, ServerConfig, StoreConfig,
    TelemetryConfig, audit, credential,
    endpoint::Endpoints,
    grant,
    reader::{Problems, Section},
};
use crate::{credential::Catalog, provider::registry::ProviderRegistry};

/// The largest file, in bytes: room for tens of thousands of credentials.
const MAX_LEN: u64 = 16 * 1024 * 1024;

/// What was read, to be used only if there is no problem.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) config: Config,
    pub(super) problems: Problems,
}

impl Reading {
    /// Reads a file. Fails only if there is no text to find problems in.
    pub(super) fn of_file(path: &Path, registry: &ProviderRegistry) -> Result<Self, ConfigError> {
        let failed = |error: io::Error| ConfigError::single(path, &format!("cannot read the file: {}", error.kind()));
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(failed)?;
        file.take(MAX_LEN + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > MAX_LEN {
            return Err(ConfigError::single(path, "the file is longer than 16 MiB"));
        }
        let text = String::from_utf8(bytes).map_err(|error| {
            let line = error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count() + 1;
            ConfigError::single(path, &format!("line {line} is not UTF-8"))
        })?;
        // Absolute, so that a later change of the working directory does not move the files that are named in it.
        let directory = std::path::absolute(path).map_err(failed)?.parent().map(Path::to_owned).unwrap_or_default();
        let reading = Self::of_text(&path.display().to_string(), &text, directory, registry);
        reading.warn_of_open_files();
        Ok(reading)
    }

    /// Reads a text. While it is not TOML, nothing is said of what it means: what a mistake swallowed would look missing.
    pub(super) fn of_text(file: &str, text: &str, directory: PathBuf, registry: &ProviderRegistry) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let problems = Problems::new(file, text, directory);
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            let offset = error.span().map_or(text.len(), |span| span.start);
            problems.note(offset, error.message().replace('\n', ", "));
        }
        let config = if errors.is_empty() { read(table.get_ref(), &problems, registry) } else { Config::default() };
        Self { config, problems }
    }

    /// The configuration, if there is no problem.
    pub(super) fn finish(self) -> Result<Config, ConfigError> {
        if !self.problems.is_empty() {
            return Err(ConfigError { problems: self.problems.into_messages() });
        }
        Ok(Config { warnings: self.problems.warnings(), ..self.config })
    }

    fn warn_of_open_files(&self) {
        for secret in self.problems.secrets() {
            if let Some((path, mode)) = secret.source.open_mode() {
                let message = format!(
                    "{}: others than its owner may use the file {path} (mode {mode:04o}): chmod 600 {path}",
                    secret.path,
                    path = path.display()
                );
                self.problems.warn(secret.offset, message);
            }
        }
    }
}

fn read(table: &DeTable<'_>, problems: &Problems, registry: &ProviderRegistry) -> Config {
    let root = Section::new(problems, "", table, 0);
    let section = |key| root.section(key).unwrap_or_else(|| Section::absent(problems, key, 0));
    let (server, store, cache, defaults) = (section("server"), section("store"), section("cache"), section("defaults"));
    let (authn, limits) = (section("authn"), section("limits"));
    let audit_log = section("audit");
    let encryption = section("encryption");
    let telemetry = section("telemetry");
    let (credentials, endpoints) = (root.value("credentials"), root.value("endpoints"));
    let rules = Defaults::read(&defaults, &Defaults::default());
    let endpoint_rules = Endpoints::read(endpoints.as_ref(), &defaults);
    let read_all = |table| credential::read_all(&table, registry, &rules, &endpoint_rules);
    let credentials = credentials.map(read_all).unwrap_or_default();
    let asked = credentials.iter().filter_map(|credential| Some(&credential.endpoint.as_ref()?.origin));
    Endpoints::warn_of_unused(endpoints.as_ref(), &asked.collect());
    let callers = AuthnConfig::read(&authn);
    let config = Config {
        server: ServerConfig::read(&server, &callers),
        authn: callers,
        grants: grant::read_all(root.value("grants").as_ref()),
        limits: Limits::read(&limits),
        store: StoreConfig::read(&store),
        encryption: EncryptionConfig::read(&encryption),
        cache: CacheConfig::read(&cache),
        telemetry: TelemetryConfig::read(&telemetry),
        audit: audit::read(&audit_log),
        credentials: Catalog::new(credentials),
        warnings: Vec::new(),
    };
    [root, server, authn, limits, store, encryption, cache, telemetry, audit_log, defaults]
        .into_iter()
        .for_each(Section::finish);
    config
}
