//! A pgbouncer before a Postgres, in transaction mode.

use std::{
    fs,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::Child,
    time::Duration,
};

use anyhow::{Context as _, bail};
use tempfile::TempDir;
use tokio::net::TcpStream;
use url::Url;

use crate::{
    free_port,
    postgres::cluster::{self, Account},
};

/// Where Debian puts it, off the PATH of most accounts.
const DEBIAN: &str = "/usr/sbin/pgbouncer";

const ATTEMPTS: u32 = 5;
const POLL: Duration = Duration::from_millis(20);
const START_POLLS: u32 = 500;

/// A pgbouncer with few connections to its server, so that those who use it do share them. It ends with its value, or with
/// the process.
#[derive(Debug)]
pub struct PgBouncer {
    port: u16,
    watchdog: Child,
    directory: TempDir,
}

impl PgBouncer {
    /// How many connections to its server it has at most.
    pub const POOL_SIZE: u32 = 3;

    /// One before the server of a URL, whose user it logs in as; whoever comes to it needs no password.
    ///
    /// # Errors
    ///
    /// If there is no pgbouncer on this machine, or it does not start.
    pub async fn start(server: &str, password: Option<&str>) -> anyhow::Result<Self> {
        let (binary, account) = (binary()?, cluster::account()?);
        for _ in 0..ATTEMPTS {
            let port = free_port()?;
            let directory = cluster::directory("pgbouncer", account)?;
            let ini = write_configuration(directory.path(), account, port, &server.parse()?, password)?;
            let program = [binary.clone().into_os_string(), ini.into_os_string()];
            let watchdog = cluster::watched(account, directory.path(), "TERM", &program)?;
            let bouncer = Self { port, watchdog, directory };
            if bouncer.answers().await? {
                return Ok(bouncer);
            }
        }
        bail!("pgbouncer found no free port in {ATTEMPTS} attempts")
    }

    /// The same URL by way of it.
    ///
    /// # Errors
    ///
    /// If it is not a URL with a host.
    pub fn through(&self, url: &str) -> anyhow::Result<String> {
        let mut url: Url = url.parse()?;
        url.set_host(Some("127.0.0.1"))?;
        url.set_port(Some(self.port)).ok().context("the URL takes no port")?;
        Ok(url.into())
    }

    /// Waits until it accepts connections. False: its port is taken.
    async fn answers(&self) -> anyhow::Result<bool> {
        let log = self.directory.path().join("log");
        for _ in 0..START_POLLS {
            let text = fs::read_to_string(&log).unwrap_or_default();
            if text.contains("process up") && TcpStream::connect(("127.0.0.1", self.port)).await.is_ok() {
                return Ok(true);
            }
            if text.contains("Address already in use") {
                return Ok(false);
            }
            if text.contains("FATAL") {
                bail!("pgbouncer does not start: {}", text.trim());
            }
            tokio::time::sleep(POLL).await;
        }
        bail!("pgbouncer is not ready after {:?}", POLL * START_POLLS)
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        // The watchdog removes the directory as well.
        drop(self.watchdog.stdin.take());
        let _ = self.watchdog.wait();
    }
}

fn write_configuration(
    directory: &Path,
    account: Option<Account>,
    port: u16,
    server: &Url,
    password: Option<&str>,
) -> anyhow::Result<PathBuf> {
    let host = server.host_str().context("the server's URL has no host")?;
    let server_port = server.port().unwrap_or(5432);
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let mut database = format!("* = host={host} port={server_port} user={}", quoted(server.username()));
    if let Some(password) = password {
        database.push_str(&format!(" password={}", quoted(password)));
    }
    let pool_size = PgBouncer::POOL_SIZE;
    let text = format!(
        "[databases]\n{database}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
         auth_type = any\npool_mode = transaction\ndefault_pool_size = {pool_size}\nserver_idle_timeout = 2\nmax_client_conn = 500\n"
    );
    let ini = directory.join("pgbouncer.ini");
    fs::write(&ini, text)?;
    if let Some(Account { uid, gid }) = account {
        chown(&ini, Some(uid), Some(gid))?;
    }
    Ok(ini)
}

fn binary() -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut candidates = std::env::split_paths(&path).map(|d| d.join("pgbouncer")).chain([PathBuf::from(DEBIAN)]);
    let found = candidates.find(|binary| binary.is_file());
    found.with_context(|| format!("there is no pgbouncer, neither on the PATH nor at {DEBIAN}"))
}
