//! A running `tokencached`, and one that ran.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    thread,
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;
use tokencache_client::{AdminClient, Client};
use tokencache_testkit::ChildGuard;
use tokio::time::{sleep, timeout};

use crate::broker::{ENCRYPTION, ENCRYPTION_KEY};

/// How long anything may take that is not meant to be waited for. It is far more than is needed, so that a busy machine
/// fails no test.
const PATIENCE: Duration = Duration::from_secs(60);

const POLL: Duration = Duration::from_millis(20);

/// The program with nothing of this process's environment that could change what it does.
pub(crate) fn tokencached() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tokencached"));
    command.env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

/// How a command ended and what it said.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    /// Runs a command that ends by itself.
    pub(crate) fn of(command: &mut Command) -> Self {
        let mut run = Daemon::launch(command);
        let mut left = PATIENCE;
        while !left.is_zero() {
            if let Some(status) = run.process.child().try_wait().expect("a child of ours") {
                return run.outcome(status);
            }
            thread::sleep(POLL);
            left = left.saturating_sub(POLL);
        }
        panic!("it does not end:\n{}{}", run.stdout(), run.stderr());
    }

    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }
}

/// A broker that serves. It ends, at the latest, when this is dropped.
#[derive(Debug)]
pub(crate) struct Daemon {
    process: ChildGuard,
    output: TempDir,
}

impl Daemon {
    /// Starts `tokencached` with a configuration, which is written to `directory`, and waits until it serves.
    pub(crate) async fn serve(directory: &Path, configuration: &str) -> Self {
        Self::start(Self::command(directory, configuration)).await
    }

    /// The command that [`Daemon::serve`] runs, for tests that add to it.
    pub(crate) fn command(directory: &Path, configuration: &str) -> Command {
        let file = directory.join("tokencached.toml");
        fs::write(directory.join("encryption.key"), ENCRYPTION_KEY).expect("a file");
        fs::write(&file, format!("{configuration}\n{ENCRYPTION}")).expect("a file");
        let mut command = tokencached();
        command.current_dir(directory).args(["serve", "--config"]).arg(file);
        command
    }

    /// Starts any command that serves, and waits until it does.
    pub(crate) async fn start(mut command: Command) -> Self {
        let mut daemon = Self::launch(&mut command);
        daemon.until("it serves", |daemon| daemon.metrics_address().is_some()).await;
        let ready = format!("http://{}/readyz", daemon.metrics_address().expect("seen before"));
        let http = http_client();
        let serves = async {
            while !http.get(&ready).send().await.is_ok_and(|answer| answer.status().is_success()) {
                daemon.must_run();
                sleep(POLL).await;
            }
        };
        timeout(PATIENCE, serves).await.expect("it serves in time");
        daemon
    }

    /// Starts a command without waiting for anything.
    pub(crate) fn launch(command: &mut Command) -> Self {
        let output = TempDir::new().expect("a directory");
        let file = |name| File::create(output.path().join(name)).expect("a file");
        command.stdout(file("stdout")).stderr(file("stderr"));
        Self { process: ChildGuard::spawn(command).expect("the program can be run"), output }
    }

    /// A client of its client API.
    pub(crate) fn client(&self) -> Client {
        let endpoint = format!("http://{}", self.client_address());
        Client::builder().endpoint(endpoint).build().expect("a valid endpoint")
    }

    /// A client of its admin API.
    pub(crate) fn admin(&self) -> AdminClient {
        let endpoint = format!("http://{}", self.admin_address());
        AdminClient::builder().endpoint(endpoint).build_admin().expect("a valid endpoint")
    }

    /// `host:port` of the client API.
    pub(crate) fn client_address(&self) -> String {
        self.address("the client API").expect("it listens")
    }

    /// `host:port` of the admin API, which in dev mode is on the one port that serves all.
    pub(crate) fn admin_address(&self) -> String {
        self.address("the admin API").unwrap_or_else(|| self.client_address())
    }

    /// `host:port` of metrics and health.
    pub(crate) fn metrics_address(&self) -> Option<String> {
        self.address("metrics and health")
    }

    /// What `/metrics` says.
    pub(crate) async fn metrics(&self) -> String {
        let url = format!("http://{}/metrics", self.metrics_address().expect("it listens"));
        let answer = http_client().get(url).send().await.expect("an answer");
        answer.text().await.expect("text")
    }

    /// Its process id, which is its own until it was waited for.
    pub(crate) fn id(&mut self) -> u32 {
        self.process.child().id()
    }

    /// Asks for an orderly end.
    pub(crate) fn terminate(&mut self) {
        self.process.terminate();
    }

    /// Tells it to look again at what may have changed (SIGHUP).
    pub(crate) fn hang_up(&mut self) {
        self.process.hang_up();
    }

    /// Ends it as a crash would (SIGKILL).
    pub(crate) fn kill(mut self) -> Outcome {
        self.process.child().kill().expect("it can be killed");
        let status = self.process.child().wait().expect("it ends");
        self.outcome(status)
    }

    /// Asks for an orderly end and waits for it.
    pub(crate) async fn stop(mut self) -> Outcome {
        self.terminate();
        self.end().await
    }

    /// Waits until it ends.
    pub(crate) async fn end(mut self) -> Outcome {
        let ended = async {
            loop {
                if let Some(status) = self.process.child().try_wait().expect("a child of ours") {
                    return status;
                }
                sleep(POLL).await;
            }
        };
        let status = timeout(PATIENCE, ended).await;
        let status = status.unwrap_or_else(|_| panic!("it does not end:\n{}", self.stderr()));
        self.outcome(status)
    }

    /// Waits until its log has a message that begins like this.
    pub(crate) async fn until_logged(&mut self, message: &str) {
        self.until(message, |daemon| daemon.logged(message).is_some()).await;
    }

    /// What it has printed so far.
    pub(crate) fn stdout(&self) -> String {
        self.read("stdout")
    }

    /// What it has logged so far.
    pub(crate) fn stderr(&self) -> String {
        self.read("stderr")
    }

    async fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let wait = async {
            while !holds(self) {
                self.must_run();
                sleep(POLL).await;
            }
        };
        if timeout(PATIENCE, wait).await.is_err() {
            panic!("waited in vain for {what}:\n{}", self.stderr());
        }
    }

    fn must_run(&mut self) {
        if let Some(status) = self.process.child().try_wait().expect("a child of ours") {
            panic!("it ended by itself ({status}):\n{}{}", self.stdout(), self.stderr());
        }
    }

    /// The first entry of the log with such a message.
    fn logged(&self, message: &str) -> Option<Value> {
        let entries = self.stderr();
        let mut entries = entries.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        entries.find(|entry| entry["message"].as_str().is_some_and(|text| text.starts_with(message)))
    }

    fn address(&self, what: &str) -> Option<String> {
        let entry = self.logged(&format!("listening: {what}"))?;
        Some(entry["address"].as_str().expect("an address").to_owned())
    }

    fn outcome(&self, status: ExitStatus) -> Outcome {
        Outcome { status, stdout: self.stdout(), stderr: self.stderr() }
    }

    fn read(&self, name: &str) -> String {
        let path: PathBuf = self.output.path().join(name);
        String::from_utf8_lossy(&fs::read(path).expect("its output")).into_owned()
    }
}

/// A client that speaks to this machine and nothing between.
pub(crate) fn http_client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().expect("a client")
}

/// The part of a configuration that has every listener pick a free port.
pub(crate) const FREE_PORTS: &str = "[server]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\nmetrics_listen = \"127.0.0.1:0\"\ninsecure_allow_any_caller = true\n";
