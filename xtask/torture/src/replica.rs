//! A real `tokencached` as a process that can be killed, stopped and started again.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{
        Mutex as StdMutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use tokencache_proto::v1::{admin_service_client::AdminServiceClient, token_service_client::TokenServiceClient};
use tokio::{
    process::{Child, Command},
    sync::Mutex,
    time::{Instant, sleep, timeout},
};
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::scene::Ports;

/// How long a replica may take to end after SIGTERM.
pub(crate) const END: Duration = Duration::from_secs(25);

/// One replica. Its directory and its ports outlive its process.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) index: usize,
    program: PathBuf,
    directory: PathBuf,
    ports: Ports,
    log_filter: String,
    process: Mutex<Option<Child>>,
    /// When its present life began.
    born: StdMutex<Instant>,
    lives: AtomicU32,
    /// `TOKENCACHE_FAILPOINTS` of the lives to come.
    failpoints: StdMutex<String>,
}

impl Replica {
    /// A replica in a directory that holds its configuration.
    pub(crate) fn new(index: usize, program: PathBuf, directory: PathBuf, ports: Ports, log_filter: String) -> Self {
        let (process, lives, failpoints) = (Mutex::default(), AtomicU32::new(0), StdMutex::default());
        let born = StdMutex::new(Instant::now());
        Self { index, program, directory, ports, log_filter, process, born, lives, failpoints }
    }

    /// At which points of a refresh, and how, the lives to come fail by themselves; empty: at none. Takes a program that
    /// was built with the feature `failpoints`.
    pub(crate) fn set_failpoints(&self, orders: &str) {
        orders.clone_into(&mut self.failpoints.lock().unwrap_or_else(PoisonError::into_inner));
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
        command.env("RUST_LOG", &self.log_filter).stdin(Stdio::null());
        command.env("TOKENCACHE_FAILPOINTS", &*self.failpoints.lock().unwrap_or_else(PoisonError::into_inner));
        command.stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
        *process = Some(command.spawn().with_context(|| format!("cannot run {}", self.program.display()))?);
        *self.born.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
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

    /// If the process has ended by itself, takes note of that: how.
    pub(crate) async fn bury(&self) -> Result<Option<ExitStatus>> {
        let mut process = self.process.lock().await;
        let Some(running) = &mut *process else { return Ok(None) };
        let ended = running.try_wait()?;
        if ended.is_some() {
            *process = None;
        }
        Ok(ended)
    }

    /// SIGKILL.
    pub(crate) async fn kill(&self) -> Result<()> {
        match self.process.lock().await.take() {
            Some(mut process) => Ok(process.kill().await?),
            None => Ok(()),
        }
    }

    /// SIGTERM, and waits for the end: how it ended. One that is late is an error.
    pub(crate) async fn terminate(&self) -> Result<Option<ExitStatus>> {
        self.signal("TERM").await?;
        let Some(mut process) = self.process.lock().await.take() else { return Ok(None) };
        let Ok(status) = timeout(END, process.wait()).await else {
            process.kill().await?;
            bail!("r{} had not ended {END:?} after SIGTERM", self.index);
        };
        Ok(Some(status?))
    }

    /// SIGTERM, and waits for the end. An end that is late or no success is an error.
    pub(crate) async fn end_in_peace(&self) -> Result<()> {
        match self.terminate().await? {
            Some(status) if !status.success() => bail!("r{} ended with {status} after SIGTERM", self.index),
            _ => Ok(()),
        }
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

    /// Since when its present life lasts.
    pub(crate) fn age(&self) -> Duration {
        self.born.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    /// How often it was started.
    pub(crate) fn lives(&self) -> u32 {
        self.lives.load(Ordering::Relaxed)
    }

    /// Where it logs.
    pub(crate) fn log(&self) -> PathBuf {
        self.directory.join("tokencached.log")
    }

    /// The port of its client API.
    pub(crate) fn port(&self) -> u16 {
        self.ports.client
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

/// Whether a replica says in its log that it was built to fail where it is told to.
pub(crate) fn fails_on_purpose(log: &Path) -> Result<bool> {
    Ok(String::from_utf8_lossy(&fs::read(log)?).contains("this build fails on purpose"))
}

/// The lines of a log in which a replica panicked.
pub(crate) fn panics(log: &Path) -> Result<Vec<String>> {
    let text = fs::read(log)?;
    let text = String::from_utf8_lossy(&text);
    Ok(text.lines().filter(|line| line.contains("panicked at")).map(str::to_owned).collect())
}
