//! A whole broker in this process: built from a configuration, on free ports, over any store, with a clock that the test
//! moves on.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tempfile::TempDir;
use tokencache_client::{AdminClient, Client};
use tokencache_proto::{
    ERROR_DOMAIN,
    v1::{admin_service_client::AdminServiceClient, token_service_client::TokenServiceClient},
};
use tokencache_server::{
    app::{ADMIN_API, App, AppError, Assembly, CLIENT_API, METRICS},
    config::{Config, Listen},
    lifecycle::Shutdown,
    provider::registry::ProviderRegistry,
    store::sealed::KeyMaterial,
    time::{Clock, SharedClock, SystemClock, Timestamp},
    types::ReplicaId,
};
use tokencache_testkit::Postgres;
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_types::StatusExt as _;

use crate::upstream::{CLIENT_ID, CLIENT_SECRET, Upstream};

/// How long anything may take that must happen at some time.
const PATIENCE: Duration = Duration::from_secs(60);

const POLL: Duration = Duration::from_millis(20);

/// The key that all brokers here seal with: those that share a store share it.
pub(crate) const ENCRYPTION_KEY: &str = "YSBrZXkgb2YgMzIgYnl0ZXMgZm9yIHRlc3RzIG9ubHk=";

/// The section that names it.
pub(crate) const ENCRYPTION: &str = "[encryption]\nactive = \"it\"\nkeys = { it = { file = \"encryption.key\" } }\n";

/// The section of a broker that has been given another key, and seals with that.
const REKEYED: &str = "[encryption]\nactive = \"next\"\n\
    keys = { next = { file = \"next.key\" }, it = { file = \"encryption.key\" } }\n";

/// The replica id of every broker here.
pub(crate) const REPLICA: &str = "it-1";

/// The machine's clock, and how far the test has moved it on.
#[derive(Debug, Default)]
pub(crate) struct ShiftedClock(AtomicU64);

impl ShiftedClock {
    /// Moves on at once.
    pub(crate) fn advance(&self, by: Duration) {
        self.0.fetch_add(u64::try_from(by.as_millis()).expect("a short time"), Ordering::SeqCst);
    }
}

impl Clock for ShiftedClock {
    fn now(&self) -> Timestamp {
        SystemClock.now().after(Duration::from_millis(self.0.load(Ordering::SeqCst)))
    }

    fn uptime(&self) -> Duration {
        SystemClock.uptime()
    }
}

/// A store that the tests run over.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Over {
    Memory,
    Sqlite,
    Postgres,
}

/// What outlives a broker: its files, its store, its upstream and time.
#[derive(Debug)]
pub(crate) struct Stage {
    directory: TempDir,
    store: String,
    /// Where audit events go, as in the configuration.
    sinks: String,
    rekeyed: AtomicBool,
    pub(crate) upstream: Upstream,
    pub(crate) clock: Arc<ShiftedClock>,
}

impl Stage {
    /// An empty store, and an upstream that works.
    pub(crate) async fn new(over: Over) -> Self {
        let url = match over {
            Over::Memory => "memory:".into(),
            Over::Sqlite => "sqlite:tokens.db".into(),
            Over::Postgres => {
                let server = Postgres::start().await.expect("a Postgres to test with");
                server.new_database().await.expect("a new database")
            }
        };
        Self::with_store(&url).await
    }

    /// The same over the store of this URL.
    pub(crate) async fn with_store(url: &str) -> Self {
        let directory = TempDir::new().expect("a directory");
        let mut store = format!("url = {url:?}\n");
        if url.starts_with("postgres")
            && let Some(password) = Postgres::start().await.expect("a Postgres to test with").password()
        {
            write(&directory, "store.password", password);
            store.push_str("password = { file = \"store.password\" }\n");
        }
        write(&directory, "client.secret", CLIENT_SECRET);
        write(&directory, "encryption.key", ENCRYPTION_KEY);
        let clock = Arc::new(ShiftedClock::default());
        let upstream = Upstream::start(shared(&clock)).await;
        let sinks = "[\"memory\"]".into();
        Self { directory, store, sinks, rekeyed: AtomicBool::new(false), upstream, clock }
    }

    /// Has the brokers record to these sinks.
    pub(crate) fn with_sinks(self, sinks: &str) -> Self {
        Self { sinks: sinks.into(), ..self }
    }

    /// From now on brokers seal with another key, and open what the first one has sealed.
    pub(crate) fn use_another_key(&self) {
        let key = KeyMaterial::generate().expect("randomness").to_text();
        write(&self.directory, "next.key", key.expose());
        self.rekeyed.store(true, Ordering::Relaxed);
    }

    /// A file beside the configuration.
    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    /// A credential of this upstream with `keys` besides.
    pub(crate) fn credential(&self, name: &str, keys: &str) -> String {
        self.table(name, &format!("grant = \"client_credentials\"\n{keys}"))
    }

    /// A credential with a rotating refresh token.
    pub(crate) fn rotating(&self, name: &str) -> String {
        let file = format!("{}.rt", name.replace('/', "-"));
        write(&self.directory, &file, &self.upstream.new_family());
        self.table(name, &format!("grant = \"refresh_token\"\nrefresh_token = {{ file = {file:?} }}\n"))
    }

    fn table(&self, name: &str, keys: &str) -> String {
        let url = self.upstream.url();
        format!(
            "[credentials.{name:?}]\nprovider = \"oauth2\"\ntoken_url = \"{url}/token\"\nrevocation_url = \"{url}/revoke\"\n\
             client_id = \"{CLIENT_ID}\"\nclient_secret = {{ file = \"client.secret\" }}\n{keys}\n"
        )
    }

    /// The configuration of a broker with these credentials, which lets everybody in.
    pub(crate) fn config(&self, credentials: &str) -> Config {
        self.config_with("insecure_allow_any_caller = true\n", credentials)
    }

    /// The configuration of a broker with these further keys of `[server]`, and these tables.
    pub(crate) fn config_with(&self, server: &str, tables: &str) -> Config {
        let registry = ProviderRegistry::builtin().with_clock(shared(&self.clock));
        let text = self.text_with(server, tables);
        Config::parse("test.toml", &text, self.directory.path(), &registry).expect("a valid configuration")
    }

    /// The same as a text.
    pub(crate) fn text_with(&self, server: &str, tables: &str) -> String {
        let encryption = if self.rekeyed.load(Ordering::Relaxed) { REKEYED } else { ENCRYPTION };
        format!(
            "[server]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\nmetrics_listen = \"127.0.0.1:0\"\n\
             replica = {REPLICA:?}\ndrain_timeout = \"30s\"\n{server}[audit]\nsinks = {}\n[store]\n{}{encryption}{tables}",
            self.sinks, self.store
        )
    }

    /// Starts a broker that knows its callers, and waits until it serves.
    pub(crate) async fn start_guarded(&self, server: &str, tables: &str) -> Broker {
        let broker = self.launch_with(self.config_with(server, tables), false).await;
        eventually("the broker serves", async || broker.http("/readyz").await.status().is_success()).await;
        broker
    }

    /// Starts a broker, and waits until it serves.
    pub(crate) async fn start(&self, credentials: &str) -> Broker {
        let broker = self.launch(credentials, false).await;
        broker.serving().await;
        broker
    }

    /// Starts a broker in dev mode: one port serves all.
    pub(crate) async fn start_dev(&self, credentials: &str) -> Broker {
        let broker = self.launch(credentials, true).await;
        broker.serving().await;
        broker
    }

    /// Starts a broker, whether its store answers or not.
    pub(crate) async fn launch(&self, credentials: &str, dev: bool) -> Broker {
        self.launch_with(self.config(credentials), dev).await
    }

    /// Starts one more replica, under a name of its own, and waits until it serves.
    pub(crate) async fn start_replica(&self, name: &str, credentials: &str) -> Broker {
        let mut config = self.config(credentials);
        config.server.replica = Some(ReplicaId::new(name));
        let broker = self.launch_with(config, false).await;
        broker.serving().await;
        broker
    }

    async fn launch_with(&self, config: Config, dev: bool) -> Broker {
        let assembly = Assembly { clock: shared(&self.clock), ..Assembly::standard(dev, &ProviderRegistry::builtin()) };
        let app = App::build(config, assembly).await.expect("free ports and a valid store");
        let addresses = app.addresses();
        let address = |what| {
            addresses.iter().find_map(|(name, listen)| match listen {
                Listen::Tcp(address) if *name == what => Some(*address),
                _ => None,
            })
        };
        let client = address(CLIENT_API).expect("it listens");
        let (admin, metrics) = (address(ADMIN_API).unwrap_or(client), address(METRICS).expect("it listens"));
        let shutdown = Shutdown::default();
        let running = tokio::spawn(app.run(shutdown.clone()));
        Broker { client, admin, metrics, shutdown, running }
    }
}

fn write(directory: &TempDir, file: impl AsRef<Path>, text: &str) {
    std::fs::write(directory.path().join(file), text).expect("a file");
}

fn shared(clock: &Arc<ShiftedClock>) -> SharedClock {
    Arc::clone(clock) as SharedClock
}

/// A running broker. It ends at once when it is dropped; [`Broker::stop`] ends it in order.
#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) client: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) metrics: SocketAddr,
    shutdown: Shutdown,
    running: JoinHandle<Result<(), AppError>>,
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl Broker {
    /// The client library.
    pub(crate) fn library(&self) -> Client {
        let builder = Client::builder().endpoint(format!("http://{}", self.client)).deadline(PATIENCE);
        builder.build().expect("a valid endpoint")
    }

    /// The client library's part for operators.
    pub(crate) fn operator(&self) -> AdminClient {
        let builder = AdminClient::builder().endpoint(format!("http://{}", self.admin)).deadline(PATIENCE);
        builder.build_admin().expect("a valid endpoint")
    }

    /// The client API, bare, over a connection of its own.
    pub(crate) async fn tokens(&self) -> TokenServiceClient<Channel> {
        TokenServiceClient::new(connect(self.client).await)
    }

    /// The admin API, bare.
    pub(crate) async fn admin(&self) -> AdminServiceClient<Channel> {
        AdminServiceClient::new(connect(self.admin).await)
    }

    /// What `grpc.health.v1` says of the replica: its number.
    pub(crate) async fn health(&self) -> i32 {
        let mut client = HealthClient::new(connect(self.client).await);
        let request = HealthCheckRequest { service: String::new() };
        client.check(request).await.expect("the health service answers").into_inner().status
    }

    /// Reads from the listener of metrics and health.
    pub(crate) async fn http(&self, path: &str) -> reqwest::Response {
        let client = reqwest::Client::builder().no_proxy().build().expect("valid settings");
        client.get(format!("http://{}{path}", self.metrics)).send().await.expect("an answer")
    }

    /// The value of a counter without labels.
    pub(crate) async fn metric(&self, name: &str) -> u64 {
        let text = self.http("/metrics").await.text().await.expect("text");
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no counter {name} in {text}")).parse().expect("a number")
    }

    /// Waits until callers are to come here.
    pub(crate) async fn serving(&self) {
        eventually("the broker serves", async || self.http("/readyz").await.status().is_success()).await;
        eventually("its health says so", async || self.health().await == 1).await;
    }

    /// Orders an end, without waiting for it.
    pub(crate) fn drain(&self) {
        self.shutdown.orderly.cancel();
    }

    /// Ends in order; nothing may be left unfinished.
    pub(crate) async fn stop(mut self) {
        self.drain();
        let ended = timeout(PATIENCE, &mut self.running).await.expect("it ends");
        ended.expect("it does not panic").expect("nothing is left");
    }
}

/// A connection of its own.
pub(crate) async fn connect(address: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("a valid address");
    endpoint.tcp_nodelay(true).connect().await.expect("somebody listens")
}

/// Waits until something is the case.
pub(crate) async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !is_so().await {
            sleep(POLL).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}

/// The machine-readable reason of an error of the broker.
pub(crate) fn reason(status: &Status) -> String {
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("an error without ErrorInfo: {status:?}"));
    assert_eq!(info.domain, ERROR_DOMAIN);
    info.reason.clone()
}

/// Makes a call until it is answered otherwise than with an error that says when to come again: a machine that does much
/// else may keep the store waiting.
pub(crate) async fn patiently<T>(mut call: impl AsyncFnMut() -> Result<T, Status>) -> Result<T, Status> {
    let wait = async {
        loop {
            let answer = call().await;
            let Some(pause) = answer.as_ref().err().and_then(come_again) else { return answer };
            sleep(pause).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| Err(Status::aborted("told to come again all the time")))
}

/// When to come again, where the error says so.
pub(crate) fn come_again(status: &Status) -> Option<Duration> {
    status.get_error_details().retry_info()?.retry_delay
}

/// The invalid fields of a request.
pub(crate) fn fields(status: &Status) -> Vec<String> {
    let details = status.get_error_details();
    let bad = details.bad_request().unwrap_or_else(|| panic!("an error without BadRequest: {status:?}"));
    bad.field_violations.iter().map(|violation| violation.field.clone()).collect()
}
