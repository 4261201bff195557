//! A real `tokencached` as a process that can be killed, stopped and started again.

use std::{
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio, id},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use tokencache_proto::v1::{admin_service_client::AdminServiceClient, token_service_client::TokenServiceClient};
use tokio::{
    process::{Child, Command},
    sync::Mutex,
    time::{sleep, timeout},
};
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::scene::Ports;

/// How long a replica may take to end after SIGTERM.
pub(crate) const END: Duration = Duration::from_secs(25);

/// Below the ports that the kernel hands out, for a replica that is down must find its own again.
const FIRST_PORT: u16 = 20_000;
const LAST_PORT: u16 = 32_000;

/// One replica. Its directory and its ports outlive its process.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) index: usize,
    program: PathBuf,
    directory: PathBuf,
    ports: Ports,
    process: Mutex<Option<Child>>,
    lives: AtomicU32,
}

impl Replica {
    /// A replica in a directory that holds its configuration.
    pub(crate) fn new(index: usize, program: PathBuf, directory: PathBuf, ports: Ports) -> Self {
        Self { index, program, directory, ports, process: Mutex::default(), lives: AtomicU32::new(0) }
    }

    /// Starts the process, if it does not run; does not wait until it serves.
    pub(crate) async fn start(&self) -> Result<()> {
        let mut process = self.process.lock().await;
        if process.is_some() {
            return Ok(());
        }
        let log = File::options().create(true).append(true).open(self.log())?;
        let mut command = Command::new(&self.program);
        command.args(["serve", "--config", "tokencached.toml"]).current_dir(&self.directory);
        command.env("RUST_LOG", "info,tokencache_server=debug").stdin(Stdio::null());
        command.stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
        *process = Some(command.spawn().with_context(|| format!("cannot run {}", self.program.display()))?);
        self.lives.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Waits until it serves.
    pub(crate) async fn serving(&self, patience: Duration) -> Result<()> {
        let mut health = HealthClient::new(self.channel(self.ports.client)?);
        let serving = async {
            loop {
                let answer = timeout(Duration::from_secs(2), health.check(HealthCheckRequest::default())).await;
                if matches!(answer, Ok(Ok(answer)) if answer.get_ref().status() == ServingStatus::Serving) {
                    return Ok(());
                }
                if let Some(status) = self.ended().await? {
                    bail!("r{} ended with {status} instead of serving", self.index);
                }
                sleep(Duration::from_millis(100)).await;
            }
        };
        timeout(patience, serving).await.with_context(|| format!("r{} does not serve", self.index))?
    }

    /// How the process ended, if it did so by itself.
    pub(crate) async fn ended(&self) -> Result<Option<ExitStatus>> {
        match &mut *self.process.lock().await {
            Some(process) => Ok(process.try_wait()?),
            None => Ok(None),
        }
    }

    /// SIGKILL.
    pub(crate) async fn kill(&self) -> Result<()> {
        match self.process.lock().await.take() {
            Some(mut process) => Ok(process.kill().await?),
            None => Ok(()),
        }
    }

    /// SIGTERM, and waits for the end. An end that is late or no success is an error.
    pub(crate) async fn terminate(&self) -> Result<()> {
        self.signal("TERM").await?;
        let Some(mut process) = self.process.lock().await.take() else { return Ok(()) };
        let Ok(status) = timeout(END, process.wait()).await else {
            process.kill().await?;
            bail!("r{} had not ended {END:?} after SIGTERM", self.index);
        };
        let status = status?;
        ensure!(status.success(), "r{} ended with {status} after SIGTERM", self.index);
        Ok(())
    }

    /// Sends a signal to the process, if it runs.
    pub(crate) async fn signal(&self, name: &str) -> Result<()> {
        // Under the lock, so that nobody waits for the process meanwhile: it keeps its id.
        let process = self.process.lock().await;
        match process.as_ref().and_then(Child::id) {
            Some(id) => signal(name, &[id]).await,
            None => Ok(()),
        }
    }

    /// A client of its client API.
    pub(crate) fn tokens(&self) -> Result<TokenServiceClient<Channel>> {
        Ok(TokenServiceClient::new(self.channel(self.ports.client)?))
    }

    /// A client of its admin API.
    pub(crate) fn admin(&self) -> Result<AdminServiceClient<Channel>> {
        Ok(AdminServiceClient::new(self.channel(self.ports.admin)?))
    }

    /// How often it was started.
    pub(crate) fn lives(&self) -> u32 {
        self.lives.load(Ordering::Relaxed)
    }

    /// Where it logs.
    pub(crate) fn log(&self) -> PathBuf {
        self.directory.join("tokencached.log")
    }

    fn channel(&self, port: u16) -> Result<Channel> {
        let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}"))?;
        Ok(endpoint.connect_timeout(Duration::from_secs(2)).connect_lazy())
    }
}

/// Sends a signal to processes that this run started.
pub(crate) async fn signal(name: &str, ids: &[u32]) -> Result<()> {
    let mut command = Command::new("kill");
    command.arg(format!("-{name}")).args(ids.iter().map(u32::to_string)).stderr(Stdio::null());
    command.status().await.context("cannot run kill")?;
    Ok(())
}

/// Ports that are free now and that the kernel gives to nobody else.
pub(crate) fn free_ports(count: usize) -> Result<Vec<u16>> {
    let span = u32::from(LAST_PORT - FIRST_PORT);
    let begin = u16::try_from(id().wrapping_mul(61) % span)?;
    let candidates = (0..LAST_PORT - FIRST_PORT).map(|i| FIRST_PORT + (begin + i) % (LAST_PORT - FIRST_PORT));
    let free: Vec<u16> =
        candidates.filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).take(count).collect();
    ensure!(free.len() == count, "there are no {count} free ports");
    Ok(free)
}

/// The lines of a log in which a replica panicked.
pub(crate) fn panics(log: &Path) -> Result<Vec<String>> {
    let text = fs::read(log)?;
    let text = String::from_utf8_lossy(&text);
    Ok(text.lines().filter(|line| line.contains("panicked at")).map(str::to_owned).collect())
}
