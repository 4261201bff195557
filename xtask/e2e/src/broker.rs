//! The real `tokencached` as a process: its configuration, its start, its end.

use std::{
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::{sleep, timeout},
};
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::idp::IdentityProvider;

/// How long a start or an end may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// How much of the log is shown when a scenario fails.
const TAIL_LINES: usize = 60;

/// The secrets that are handed over by the environment.
pub(crate) const SECRETS: [(&str, &str); 3] =
    [("E2E_CI", "s3cr:et/ %+x"), ("E2E_CI_POST", "post-secret"), ("E2E_SHORT", "short-secret")];

/// Where the client secret of the rotating credential is, as a file.
const CRM_SECRET: &str = "crm-secret";

/// Where the key is that the store is sealed with, as a file.
const ENCRYPTION_KEY: &str = "encryption.key";

/// Where tokens are kept.
#[derive(Debug)]
pub(crate) enum Store {
    /// A file in the broker's directory.
    Sqlite,
    /// A database; the password stands apart, for the configuration takes none within a URL.
    Postgres { url: String, password: Option<String> },
}

impl Store {
    fn section(&self, directory: &Path) -> String {
        let key = directory.join(ENCRYPTION_KEY);
        format!(
            "{}[encryption]\nactive = \"e2e\"\nkeys = {{ e2e = {{ file = {key:?} }} }}\n",
            self.store_section(directory)
        )
    }

    fn store_section(&self, directory: &Path) -> String {
        match self {
            Self::Sqlite => format!("[store]\nurl = \"sqlite:{}\"\n", directory.join("tokencache.db").display()),
            Self::Postgres { url, password: None } => format!("[store]\nurl = \"{url}\"\n"),
            Self::Postgres { url, .. } => {
                format!("[store]\nurl = \"{url}\"\npassword = {{ env = \"E2E_POSTGRES\" }}\n")
            }
        }
    }

    fn password(&self) -> Option<&str> {
        match self {
            Self::Sqlite => None,
            Self::Postgres { password, .. } => password.as_deref(),
        }
    }
}

/// One broker: its directory outlives its process, so that it can be started again.
#[derive(Debug)]
pub(crate) struct Broker {
    program: PathBuf,
    directory: TempDir,
    store: Store,
    ports: Ports,
    process: Option<Child>,
}

#[derive(Debug)]
struct Ports {
    client: u16,
    admin: u16,
    metrics: u16,
}

impl Broker {
    /// Writes the configuration; [`Self::start`] starts the process.
    pub(crate) async fn configure(program: PathBuf, store: Store, idp: &IdentityProvider) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let ports = free_ports()?;
        write_private(&directory.path().join("crm.secret"), CRM_SECRET)?;
        write_private(&directory.path().join(ENCRYPTION_KEY), "YSBrZXkgb2YgMzIgYnl0ZXMgZm9yIHRlc3RzIG9ubHk=")?;
        write_private(&directory.path().join("crm.rt"), &idp.seed().await?)?;
        let text = configuration(&ports, &store.section(directory.path()), idp.issuer());
        fs::write(directory.path().join("tokencached.toml"), text)?;
        Ok(Self { program, directory, store, ports, process: None })
    }

    /// Starts the process and waits until it serves.
    pub(crate) async fn start(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.log_path())?;
        let mut command = Command::new(&self.program);
        command
            .args(["serve", "--config", "tokencached.toml"])
            .current_dir(self.directory.path())
            .envs(SECRETS)
            .env("RUST_LOG", "debug")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true);
        if let Some(password) = self.store.password() {
            command.env("E2E_POSTGRES", password);
        }
        let process = self.process.insert(command.spawn().context("cannot run tokencached")?);
        let endpoint = endpoint(self.ports.client)?;
        match timeout(PATIENCE, serving(endpoint, process)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(error.context(self.log_tail())),
            Err(_) => bail!("tokencached does not serve after {PATIENCE:?}:\n{}", self.log_tail()),
        }
    }

    /// Asks the process to end (SIGTERM) and waits until it has, which must be a success.
    pub(crate) async fn stop(&mut self) -> Result<()> {
        let mut process = self.process.take().context("tokencached does not run")?;
        let id = process.id().context("tokencached ended by itself")?.to_string();
        let sent = Command::new("kill").args(["-TERM", &id]).status().await?;
        ensure!(sent.success(), "cannot send SIGTERM");
        let status = timeout(PATIENCE, process.wait()).await.context("tokencached does not end after SIGTERM")??;
        ensure!(status.success(), "tokencached ended with {status} after SIGTERM:\n{}", self.log_tail());
        Ok(())
    }

    /// Ends the process at once (SIGKILL), as a crash would.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        let mut process = self.process.take().context("tokencached does not run")?;
        Ok(process.kill().await?)
    }

    /// A connection to the client API, made at the first call.
    pub(crate) fn channel(&self) -> Result<Channel> {
        Ok(endpoint(self.ports.client)?.connect_lazy())
    }

    /// The address of the client API.
    pub(crate) fn addr(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.client)
    }

    /// The address of the admin API.
    pub(crate) fn admin_addr(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.admin)
    }

    /// All that the process has printed and logged, over all of its lives.
    pub(crate) fn log(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(self.log_path())?).into_owned())
    }

    /// The end of the log, for a person.
    pub(crate) fn log_tail(&self) -> String {
        let log = self.log().unwrap_or_else(|error| format!("no log: {error}"));
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("tokencached.log")
    }
}

fn endpoint(port: u16) -> Result<Endpoint> {
    Ok(Endpoint::from_shared(format!("http://127.0.0.1:{port}"))?.connect_timeout(Duration::from_secs(5)))
}

/// Waits until the health service says that it serves; a process that ends instead is an error.
async fn serving(endpoint: Endpoint, process: &mut Child) -> Result<()> {
    let mut health = HealthClient::new(endpoint.connect_lazy());
    loop {
        if let Some(status) = process.try_wait()? {
            bail!("tokencached ended with {status}");
        }
        let answer = health.check(HealthCheckRequest::default()).await;
        if answer.is_ok_and(|answer| answer.get_ref().status() == ServingStatus::Serving) {
            return Ok(());
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Three ports that are free now. All are held until the last is drawn, so that they differ.
fn free_ports() -> Result<Ports> {
    let held =
        [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
    let [client, admin, metrics] = &held;
    Ok(Ports {
        client: client.local_addr()?.port(),
        admin: admin.local_addr()?.port(),
        metrics: metrics.local_addr()?.port(),
    })
}

fn write_private(path: &Path, text: &str) -> Result<()> {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}

fn configuration(ports: &Ports, store: &str, issuer: &str) -> String {
    let Ports { client, admin, metrics } = ports;
    format!(
        r#"[server]
listen = "127.0.0.1:{client}"
admin_listen = "127.0.0.1:{admin}"
metrics_listen = "127.0.0.1:{metrics}"
insecure_allow_any_caller = true

{store}
[credentials.ci]
provider = "oauth2"
grant = "client_credentials"
issuer = "{issuer}"
client_id = "ci"
client_secret = {{ env = "E2E_CI" }}
client_auth = "client_secret_basic"
scopes = ["api:read"]

[credentials.ci-post]
provider = "oauth2"
grant = "client_credentials"
token_url = "{issuer}/token"
client_id = "ci-post"
client_secret = {{ env = "E2E_CI_POST" }}
client_auth = "client_secret_post"
scopes = ["api:read"]

[credentials.short]
provider = "oauth2"
grant = "client_credentials"
issuer = "{issuer}"
client_id = "short"
client_secret = {{ env = "E2E_SHORT" }}
scopes = ["api:read"]

[credentials."crm/prod"]
provider = "oauth2"
grant = "refresh_token"
issuer = "{issuer}"
client_id = "crm"
client_secret = {{ file = "crm.secret" }}
refresh_token = {{ file = "crm.rt" }}
rotation = "strict"
"#
    )
}
