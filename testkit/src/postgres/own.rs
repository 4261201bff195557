//! A Postgres of one test's own, which may stop it, start it again and have it followed by a standby.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Child,
};

use anyhow::{Context as _, ensure};
use tempfile::TempDir;

use super::cluster::{self, Account, KEEP};
use crate::free_port;

/// A server from the binaries on this machine, with no password. It ends with its value, or with the process.
#[derive(Debug)]
pub struct OwnPostgres {
    directory: TempDir,
    binaries: PathBuf,
    account: Option<Account>,
    port: u16,
    /// `None` while it is stopped.
    watchdog: Option<Child>,
}

impl OwnPostgres {
    /// An empty one.
    ///
    /// # Errors
    ///
    /// If there are no binaries of Postgres on this machine, or it does not start.
    pub async fn start() -> anyhow::Result<Self> {
        let mut server = Self::stopped()?;
        cluster::initdb(&server.binaries, server.account, server.directory.path())?;
        server.resume().await?;
        Ok(server)
    }

    /// Another one that follows this one, and takes no writes until it is promoted.
    ///
    /// # Errors
    ///
    /// If this one is stopped, or the other does not start.
    pub async fn standby(&self) -> anyhow::Result<Self> {
        let mut standby = Self::stopped()?;
        let backup = cluster::command(&self.binaries.join("pg_basebackup"), self.account)
            .args([
                "--host=127.0.0.1",
                "--username=postgres",
                "--checkpoint=fast",
                "--no-sync",
                "--write-recovery-conf",
            ])
            .arg(format!("--port={}", self.port))
            .arg("--pgdata")
            .arg(standby.directory.path().join("data"))
            .current_dir(standby.directory.path())
            .output()
            .context("cannot run pg_basebackup")?;
        ensure!(backup.status.success(), "pg_basebackup failed: {}", String::from_utf8_lossy(&backup.stderr).trim());
        standby.resume().await?;
        Ok(standby)
    }

    /// The URL of a database of it; `postgres` is there from the beginning.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// Its port of 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Ends it at once, as a crash does, and waits for that. What it holds stays.
    ///
    /// # Errors
    ///
    /// If the operating system refuses.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        let keep = self.directory.path().join(KEEP);
        fs::write(&keep, "")?;
        if let Some(mut watchdog) = self.watchdog.take() {
            drop(watchdog.stdin.take());
            watchdog.wait()?;
        }
        Ok(fs::remove_file(keep)?)
    }

    /// Starts it again, on the same port.
    ///
    /// # Errors
    ///
    /// If it does not start.
    pub async fn resume(&mut self) -> anyhow::Result<()> {
        let directory = self.directory.path();
        let _ = fs::remove_file(directory.join("log"));
        let mut watchdog = cluster::spawn(&self.binaries, self.account, directory, self.port, true)?;
        let answers = cluster::answers(&mut watchdog, directory, self.port).await?;
        self.watchdog = Some(watchdog);
        ensure!(answers, "somebody took port {}", self.port);
        Ok(())
    }

    fn stopped() -> anyhow::Result<Self> {
        let account = cluster::account()?;
        let directory = cluster::directory("postgres", account)?;
        Ok(Self { directory, binaries: cluster::binaries()?, account, port: free_port()?, watchdog: None })
    }

    /// Where it lies.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for OwnPostgres {
    fn drop(&mut self) {
        // The watchdog removes the directory as well.
        if let Some(mut watchdog) = self.watchdog.take() {
            drop(watchdog.stdin.take());
            let _ = watchdog.wait();
        }
    }
}
