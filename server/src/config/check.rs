//! `check-config`: everything that can be said of a configuration without serving it.

use std::{fmt, path::Path};

use futures::{StreamExt as _, stream};
use humantime::format_duration;

use super::{Config, NOBODY, load::Reading, reader::NamedSecret};
use crate::{
    credential::{Credential, WhenDegraded},
    provider::{GrantUse, Rotation, registry::ProviderRegistry},
};

/// How many secrets are read at once: each may be a process.
const AT_ONCE: usize = 8;

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The file.
    pub file: String,
    /// Why it cannot be used, as `file:line:column: path: message`.
    pub problems: Vec<String>,
    /// What is allowed but unwise, in the same form.
    pub warnings: Vec<String>,
    /// What it says: a line for the server and one for each credential. Empty if there is any problem.
    pub summary: Vec<String>,
}

impl Report {
    /// Whether the file can be used.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.problems.is_empty()
    }
}

impl fmt::Display for Report {
    /// One finding a line, without a line break at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problems.iter().try_for_each(|problem| writeln!(f, "{problem}"))?;
        self.warnings.iter().try_for_each(|warning| writeln!(f, "warning: {warning}"))?;
        self.summary.iter().try_for_each(|line| writeln!(f, "{line}"))?;
        match self.problems.len() {
            0 => write!(f, "{}: ok", self.file),
            1 => write!(f, "{}: 1 problem", self.file),
            count => write!(f, "{}: {count} problems", self.file),
        }
    }
}

/// Reads a configuration and every secret that it names. Asks no upstream and no store.
pub async fn check(path: &Path, registry: &ProviderRegistry) -> Report {
    let file = path.display().to_string();
    let Reading { config, problems } = match Reading::of_file(path, registry) {
        Ok(reading) => reading,
        Err(error) => return Report { file, problems: error.problems, warnings: vec![], summary: vec![] },
    };
    let secrets = problems.secrets();
    let mut attempts = stream::iter(secrets).map(try_secret).buffer_unordered(AT_ONCE);
    while let Some(failure) = attempts.next().await {
        if let Some((offset, message)) = failure {
            problems.note(offset, message);
        }
    }
    drop(attempts);
    let summary = if problems.is_empty() { summary(&config) } else { vec![] };
    let mut warnings = problems.warnings();
    if config.nobody_could_call() {
        warnings.push(format!("{file}: server: {NOBODY}"));
    }
    Report { file, warnings, problems: problems.into_messages(), summary }
}

async fn try_secret(secret: NamedSecret) -> Option<(usize, String)> {
    let error = secret.source.read().await.err()?;
    Some((secret.offset, format!("{}: {error}", secret.path)))
}

fn summary(config: &Config) -> Vec<String> {
    let server = &config.server;
    let mut lines = vec![format!(
        "server: client API on {}, admin API on {}, metrics on {}; store {}",
        server.listen, server.admin_listen, server.metrics_listen, config.store.url
    )];
    lines.extend(config.credentials.iter().map(|credential| describe(credential)));
    lines
}

fn describe(credential: &Credential) -> String {
    let window = credential.refresh.window.map_or_else(|| "by lifetime".into(), |w| format_duration(w).to_string());
    let rule = &credential.reject_on;
    let reject_on: Vec<_> = rule.statuses.iter().map(u16::to_string).chain(rule.errors.iter().cloned()).collect();
    let grant = match credential.provider.capabilities().grant {
        GrantUse::None => String::new(),
        GrantUse::Refresh(Rotation::None) => ", refresh token without rotation".into(),
        GrantUse::Refresh(Rotation::Grace(time)) => {
            format!(", rotating refresh token, grace {}", format_duration(time))
        }
        GrantUse::Refresh(Rotation::Strict) => ", rotating refresh token, strict".into(),
    };
    let degraded = match credential.when_degraded {
        WhenDegraded::Serve => "",
        WhenDegraded::Refuse => ", refuses when degraded",
    };
    format!(
        "credential {}: {}{grant}, refresh window {window}, reject on {}{degraded}",
        credential.name,
        credential.provider.kind(),
        if reject_on.is_empty() { "nothing".into() } else { reject_on.join(" ") },
    )
}
