//! Where contenders run: their programs, their directory, their core.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;
use tokencache_testkit::{ChildGuard, steady_ports};

use super::tls::Certificates;
use crate::{clock::now, machine, machine::Cores, process::Family, upstream::Upstream};

/// How long a server may take to listen.
const PATIENCE: Duration = Duration::from_secs(60);

/// What contenders share.
pub(crate) struct Host {
    /// Where our own programs are.
    pub(crate) programs: PathBuf,
    pub(crate) cores: Cores,
    /// How many keys there are.
    pub(crate) keys: u32,
    pub(crate) upstream: Upstream,
    pub(crate) certificates: Certificates,
    directory: TempDir,
}

impl Host {
    pub(crate) fn new(programs: PathBuf, keys: u32) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("tokencache-bench-").tempdir()?;
        let cores = Cores::find()?;
        let upstream = Upstream::start(cores.generator)?;
        let certificates = Certificates::make(directory.path())?;
        // Accounts that servers change to have to get in.
        set_mode(directory.path(), 0o755)?;
        Ok(Self { programs, cores, keys, upstream, certificates, directory })
    }

    /// A directory for a server, made if it is not there.
    pub(crate) fn directory(&self, name: &str) -> Result<PathBuf> {
        let directory = self.directory.path().join(name);
        fs::create_dir_all(&directory)?;
        Ok(directory)
    }

    /// Does something on the server's core: processes that it starts stay there.
    pub(crate) fn on_server_core<R>(&self, start: impl FnOnce() -> Result<R>) -> Result<R> {
        machine::pin(self.cores.server)?;
        let started = start();
        machine::pin(self.cores.generator)?;
        started
    }

    /// Starts a server on its core, logging into its directory, and waits until it listens.
    pub(crate) fn start(
        &self,
        command: &mut Command,
        directory: &Path,
        address: SocketAddr,
    ) -> Result<(ChildGuard, Family)> {
        let log = fs::File::create(directory.join("log"))?;
        command.current_dir(directory).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let spawn =
            || ChildGuard::spawn(command).with_context(|| format!("cannot run {}", command.get_program().display()));
        let mut guard = self.on_server_core(spawn)?;
        let family = Family(guard.child().id());
        let deadline = now() + PATIENCE;
        while TcpStream::connect(address).is_err() {
            if let Some(status) = guard.child().try_wait()? {
                let log = fs::read_to_string(directory.join("log")).unwrap_or_default();
                let end = log.lines().rev().take(5).collect::<Vec<_>>().join(" | ");
                bail!("{} ended with {status}: {end}", command.get_program().display());
            }
            ensure!(now() < deadline, "{} does not listen after {PATIENCE:?}", command.get_program().display());
            thread::sleep(Duration::from_millis(20));
        }
        Ok((guard, family))
    }
}

/// Addresses on loopback that are free.
pub(crate) fn addresses<const N: usize>() -> Result<[SocketAddr; N]> {
    let ports = steady_ports(N)?;
    Ok(std::array::from_fn(|nth| ([127, 0, 0, 1], ports[nth]).into()))
}

/// A program that is installed: on the PATH, or where Debian keeps servers.
pub(crate) fn installed(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    places.push("/usr/sbin".into());
    let found = places.into_iter().map(|place| place.join(name)).find(|program| program.is_file());
    found.with_context(|| format!("{name} is not installed"))
}

pub(crate) fn set_mode(path: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
}
