//! `tokencached key`: making keys, and replacing them in the store.

use std::{
    fs::OpenOptions,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::{Args, Subcommand};

use super::{CliResult, print};
use crate::{
    app::{AppError, open_store},
    config::Config,
    provider::registry::ProviderRegistry,
    store::{
        StoreRegistry,
        sealed::{KeyCensus, KeyMaterial},
    },
    time::SystemClock,
};

#[derive(Debug, Subcommand)]
pub(super) enum Key {
    /// Make a key for [encryption.keys]: 32 random bytes as base64.
    Generate {
        /// Write it to this file, readable by its owner alone; one that exists is left. Otherwise it is printed.
        #[arg(long, value_name = "PATH")]
        file: Option<PathBuf>,
    },
    /// Say which keys the rows of the store are sealed with, and whether all can be opened.
    Status(OnStore),
    /// Seal with the active key what is sealed with another one, or not at all. Works beside a running broker; one that was
    /// broken off is simply begun again.
    Rotate(OnStore),
}

#[derive(Debug, Args)]
pub(super) struct OnStore {
    /// The configuration.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

pub(super) async fn run(command: Key) -> CliResult {
    match command {
        Key::Generate { file } => generate(file.as_deref()),
        Key::Status(OnStore { config }) => on_store(&config, true).await,
        Key::Rotate(OnStore { config }) => on_store(&config, false).await,
    }
}

fn generate(file: Option<&Path>) -> CliResult {
    let text = KeyMaterial::generate()?.to_text();
    let Some(path) = file else {
        print(text.expose())?;
        return print("\n");
    };
    write_new(path, text.expose()).map_err(|error| format!("cannot write the file {}: {error}", path.display()))?;
    print(&format!("wrote {}; keep a copy where the database is not\n", path.display()))
}

/// A key that is overwritten takes with it what it has sealed.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()
}

async fn on_store(file: &Path, dry_run: bool) -> CliResult {
    let config = Config::load(file, &ProviderRegistry::builtin())?;
    let opened = open_store(&config, &StoreRegistry::builtin(), Arc::new(SystemClock)).await?;
    let census = opened.store.rotate_key(dry_run).await.map_err(AppError::Store)?;
    opened.store.close().await;
    print(&report(&census, dry_run))?;
    match census.unreadable.values().sum::<u64>() {
        0 => Ok(()),
        rows => Err(format!("{rows} rows cannot be opened; they were left as they are").into()),
    }
}

fn report(census: &KeyCensus, dry_run: bool) -> String {
    let what = if dry_run { "to be sealed anew" } else { "sealed anew" };
    let mut lines = vec![
        format!("active key: {}", census.active),
        format!("rows {what}: {}", census.resealed),
        format!("rows sealed with it already: {}", census.current),
    ];
    lines
        .extend(census.unreadable.iter().map(|(reason, rows)| format!("rows that cannot be opened, {reason}: {rows}")));
    lines.extend(census.remaining.iter().map(|(key, rows)| match key.as_str() {
        "" => format!("in the clear: {rows} rows"),
        key => format!("sealed with {key}: {rows} rows"),
    }));
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::types::Secret;

    #[test]
    fn a_key_file_is_its_owners_alone_and_never_overwritten() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("k");
        generate(Some(&path)).expect("written");
        let text = std::fs::read_to_string(&path).expect("readable");
        assert!(KeyMaterial::parse(&Secret::from(text.trim_end())).is_ok());
        assert_eq!(std::fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o600);
        let error = generate(Some(&path)).expect_err("it exists").to_string();
        assert!(error.contains("exists"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).expect("readable"), text);
    }

    #[test]
    fn a_report_names_each_key_and_each_reason() {
        let census = KeyCensus {
            active: "k2".into(),
            resealed: 3,
            current: 4,
            unreadable: [("REFUSED", 1)].into(),
            remaining: [("k1".into(), 1), ("k2".into(), 7)].into(),
        };
        assert_eq!(
            report(&census, false),
            "active key: k2\nrows sealed anew: 3\nrows sealed with it already: 4\nrows that cannot be opened, REFUSED: 1\n\
             sealed with k1: 1 rows\nsealed with k2: 7 rows\n"
        );
    }
}
