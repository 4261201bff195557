//! `tokencached audit verify`.

use std::{fs::File, io::BufReader, path::PathBuf, sync::Arc};

use clap::Args;

use super::{CliResult, print};
use crate::{
    app::{AppError, Opened, open_store},
    audit::verify::{Report, RowVerifier, Verifier},
    config::Config,
    provider::registry::ProviderRegistry,
    store::{AuditFilter, StoreRegistry},
    time::SystemClock,
};

/// How many rows are read at once.
const PAGE: u32 = 1000;

/// What is verified.
#[derive(Args, Debug)]
pub(super) struct Verify {
    /// Files, in the order in which they were written.
    #[arg(required_unless_present = "config")]
    files: Vec<PathBuf>,
    /// A configuration: what its store keeps. Older events were deleted from it, which is no fault.
    #[arg(long, value_name = "FILE", conflicts_with = "files")]
    config: Option<PathBuf>,
    /// It is no fault that what came before the first file is missing.
    #[arg(long)]
    partial: bool,
}

impl Verify {
    pub(super) async fn run(self) -> CliResult {
        let report = match &self.config {
            Some(config) => verify_store(config.clone()).await?,
            None => self.verify_files()?,
        };
        for finding in &report.findings {
            print(&format!("{finding}\n"))?;
        }
        let (events, chains) = (report.events, report.chains);
        let end =
            if report.open { "; the last has no end: its process runs, was killed, or lines were cut off" } else { "" };
        print(&format!("{events} events in {chains} chains{end}\n"))?;
        if report.is_sound() { Ok(()) } else { Err("the audit log was changed".into()) }
    }

    fn verify_files(&self) -> std::io::Result<Report> {
        let mut verifier = Verifier::new(self.partial);
        for path in &self.files {
            let name = path.display().to_string();
            let told = |error: std::io::Error| std::io::Error::new(error.kind(), format!("{name}: {error}"));
            verifier.read(&name, BufReader::new(File::open(path).map_err(told)?)).map_err(told)?;
        }
        Ok(verifier.finish())
    }
}

async fn verify_store(file: PathBuf) -> Result<Report, Box<dyn std::error::Error + Send + Sync>> {
    let config = Config::load(&file, &ProviderRegistry::builtin())?;
    let Opened { store, .. } = open_store(&config, &StoreRegistry::builtin(), Arc::new(SystemClock)).await?;
    let (mut verifier, mut after) = (RowVerifier::default(), 0);
    loop {
        let rows = store.audit_events(after, AuditFilter::default(), PAGE).await.map_err(AppError::Store)?;
        let Some(last) = rows.last() else { break };
        after = last.id;
        rows.iter().for_each(|row| verifier.read(row));
    }
    store.close().await;
    Ok(verifier.finish())
}
