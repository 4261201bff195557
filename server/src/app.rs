//! The composition root: from a configuration to a running broker. The one place that names concrete plug-ins.

mod access;
mod ending;
mod replay;
mod sealing;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use prometheus_client::registry::Registry;
use rand::RngExt as _;
use thiserror::Error;
use tokio::{
    select,
    sync::{Notify, oneshot},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info, warn};

pub use self::sealing::{Opened, open_store};
use self::{
    access::{Access, Rereader},
    ending::Drain,
    replay::replay,
};
use crate::{
    audit::{AuditError, AuditLog, Makings, Writers},
    authn::{AnyCaller, Authenticator},
    cache::{
        Parts, TokenCache,
        fleet::Fleet,
        flight::budget::Budgets,
        guard::StormGuard,
        history::History,
        hub::Hub,
        janitor::Janitor,
        memory::Memory,
        pending::{Pending, Settler},
        refresher::{Orders, Refresher, Schedule, WarmStart},
        trust::Trust,
        turns::Turns,
    },
    config::{self, Config, Listen, secret::SecretError},
    dev::DemoUpstream,
    error::{Error as ServiceError, ErrorKind},
    failpoint::Failpoints,
    lifecycle::{Phase, Readiness, Shutdown},
    metrics::{self, Metrics, Process, Sampled},
    pipeline::Pipeline,
    policy::{AllowAll, Policy},
    provider::registry::ProviderRegistry,
    rng::SharedRng,
    rpc::{
        admin_service::{Admin, ServerFacts},
        calls::Calls,
        front::Offer,
        headers::AnswerHeaders,
        routes::{HealthTeller, Services},
        serve::{Bound, Terms, serve},
        shed::Shed,
        token_service::Tokens,
    },
    store::{
        ObservedTokenStore, SharedStore, StoreRegistry,
        sealed::{KeyId, Sealer},
        spill::Spill,
    },
    time::{SharedClock, SystemClock},
    trace::{SpanMetrics, TraceError, Tracer},
    types::ReplicaId,
    worker::Workers,
};

/// How often a store that does not answer at the start is tried again.
const STORE_RETRY: Duration = Duration::from_secs(1);

/// How long the first touch with the other replicas is waited for before callers are told to come.
const FIRST_TOUCH: Duration = Duration::from_secs(5);

/// How long the last spans may hold up the end.
const LAST_SPANS: Duration = Duration::from_secs(3);

/// What a listener serves: the client API; in dev mode everything.
pub const CLIENT_API: &str = "the client API";

/// What a listener serves: the admin API.
pub const ADMIN_API: &str = "the admin API";

/// What a listener serves: metrics and health over HTTP.
pub const METRICS: &str = "metrics and health";

/// Why the broker does not start, or ended.
#[derive(Debug, Error)]
pub enum AppError {
    /// An address cannot be listened on.
    #[error("cannot listen on {0}: {1}")]
    Listen(Listen, io::Error),
    /// There is no way to tell callers apart, and nothing says that everybody is let in.
    #[error("{}", config::NOBODY)]
    NobodyCouldCall,
    /// A certificate cannot be used.
    #[error("TLS: {0}")]
    Tls(io::Error),
    /// The keys of an issuer of JWTs cannot be fetched with these settings.
    #[error("authn.jwt.{0}: {1}")]
    Issuer(String, String),
    /// The password of the store cannot be read.
    #[error("the password of the store: {0}")]
    Password(#[from] SecretError),
    /// A key of the store cannot be read.
    #[error("the key {0} of [encryption]: {1}")]
    Key(KeyId, String),
    /// There is no key, and a store that outlives the process.
    #[error("{text}", text = sealing::NO_KEY)]
    NoKey,
    /// The store cannot be used, and will not heal by itself.
    #[error("the store: {0}")]
    Store(ServiceError),
    /// Traces cannot be sent with these settings.
    #[error("{0}")]
    Trace(#[from] TraceError),
    /// The audit log cannot be written.
    #[error("{0}")]
    Audit(#[from] AuditError),
    /// The thread of the audit log cannot be started.
    #[error("the audit log cannot be started: {0}")]
    AuditThread(io::Error),
    /// The demo upstream of dev mode cannot be set up.
    #[error("the demo upstream: {0}")]
    Demo(io::Error),
    /// A worker ended.
    #[error("{0} ended early")]
    Worker(&'static str),
    /// Some work could not be finished.
    #[error("not everything was finished in time: {0} flights were left")]
    Unfinished(usize),
}

/// A broker that is ready to run.
#[derive(Debug)]
pub struct App {
    config: Config,
    store: SharedStore,
    sealer: Option<Arc<Sealer>>,
    cache: Arc<TokenCache>,
    orders: Orders,
    flights: TaskTracker,
    rotations: TaskTracker,
    pending: Arc<Pending>,
    readiness: Readiness,
    draining: CancellationToken,
    replica: ReplicaId,
    headers: AnswerHeaders,
    shed: Shed,
    calls: Calls,
    listening: metrics::Listeners,
    tracer: Tracer,
    health: HealthTeller,
    access: Access,
    config_file: Option<PathBuf>,
    dev: bool,
    audit: (AuditLog, Writers),
    demo: Option<DemoUpstream>,
    listeners: Vec<(&'static str, Bound, Offer)>,
}

/// What an [`App`] is built with besides its configuration.
#[derive(Debug)]
pub struct Assembly {
    /// Whether it runs in dev mode: one port serves all.
    pub dev: bool,
    /// The kinds of provider, for `GetServerInfo`.
    pub providers: Vec<String>,
    /// The kinds of store.
    pub stores: StoreRegistry,
    /// What time it is.
    pub clock: SharedClock,
    /// Jitter and nonces.
    pub rng: SharedRng,
    /// Finds out who calls, if the configuration does not say how.
    pub authn: Option<Arc<dyn Authenticator>>,
    /// Decides whether they may, if the configuration does not.
    pub policy: Option<Arc<dyn Policy>>,
    /// The file of the configuration, which is followed as it changes.
    pub config_file: Option<PathBuf>,
}

impl Assembly {
    /// What the real program is built with.
    #[must_use]
    pub fn standard(dev: bool, providers: &ProviderRegistry) -> Self {
        Self {
            dev,
            providers: providers.kinds().map(str::to_owned).collect(),
            stores: StoreRegistry::builtin(),
            clock: Arc::new(SystemClock),
            rng: SharedRng::from_os(),
            authn: dev.then(|| Arc::new(AnyCaller) as _),
            policy: dev.then(|| Arc::new(AllowAll) as _),
            config_file: None,
        }
    }
}

impl App {
    /// Binds the listeners and puts the parts together. Does not wait for the store.
    ///
    /// # Errors
    ///
    /// If an address or the store's configuration cannot be used, or there is no key for a store that outlives the process.
    pub async fn build(config: Config, assembly: Assembly) -> Result<Self, AppError> {
        let Assembly { dev, providers, stores, clock, rng, authn, policy, config_file } = assembly;
        let Opened { store, sealer } = open_store(&config, &stores, Arc::clone(&clock)).await?;
        if store.is_persistent() && sealer.is_none() {
            return Err(AppError::NoKey);
        }
        if authn.is_none() && config.nobody_could_call() {
            return Err(AppError::NobodyCouldCall);
        }
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let store: SharedStore = Arc::new(ObservedTokenStore::new(store, metrics.store.clone()));
        let listening = metrics.listeners.clone();
        if !store.is_shared() {
            metrics.fleet.replicas(1, 0);
        }
        let access = Access::build(&config, &store, &clock)?;
        let (authn, policy) =
            (authn.unwrap_or_else(|| access.authn.clone()), policy.unwrap_or_else(|| access.policy.clone()));
        let replica = config.server.replica.clone().unwrap_or_else(|| make_up_replica(&rng));
        let tracer = begin_tracing(&config, &replica, &rng, &mut registry)?;
        let makings = Makings {
            clock: Arc::clone(&clock),
            chain: rng.with(|rng| rng.random()),
            replica: replica.clone(),
            store: Arc::clone(&store),
            metrics: metrics.audit.clone(),
        };
        let (audit, records, writers) = AuditLog::open(&config.audit, makings)?;
        let (schedule, orders) = Schedule::new();
        let (flights, rotations, pending) = (TaskTracker::new(), TaskTracker::new(), Arc::<Pending>::default());
        let parts = Parts {
            store: Arc::clone(&store),
            memory: Memory::new(config.cache.max_tokens),
            hub: Hub::default(),
            schedule,
            history: History::default(),
            trust: if store.is_shared() { Trust::shared(Arc::clone(&clock)) } else { Trust::sole(Arc::clone(&clock)) },
            guard: StormGuard::default(),
            turns: Turns::default(),
            budgets: Budgets::default(),
            tracer: tracer.clone(),
            metrics,
            audit: audit.clone(),
            started_at: clock.now(),
            clock: Arc::clone(&clock),
            rng,
            replica: replica.clone(),
            pending: Arc::clone(&pending),
            failpoints: Failpoints::from_environment(),
            rotations: rotations.clone(),
        };
        let facts =
            ServerFacts { replica: replica.clone(), started_at: parts.started_at, store: store.kind(), providers, dev };
        let cache =
            Arc::new(TokenCache::new(parts, config.credentials.clone(), config.cache.max_tokens, flights.clone()));
        cache.register(&mut registry);
        registry.register_collector(Box::new(Process::new(facts.started_at)));
        let pipeline = Arc::new(Pipeline {
            authn,
            rate: access.rate.clone(),
            policy,
            catalog: config.credentials.clone(),
            cache: Arc::clone(&cache),
            audit: audit.clone(),
            records,
        });

        let (readiness, draining) = (Readiness::default(), CancellationToken::new());
        let (calls, shed) = (Calls::default(), Shed::new(config.limits.max_calls, config.limits.calls_per_second));
        calls.register(&mut registry);
        shed.register(&mut registry);
        let phase = readiness.clone();
        let ready = move || u64::from(phase.is_serving());
        Sampled::register(&mut registry, "tokencache_ready", "1 while callers are to come here", ready);
        let services = Services {
            tokens: Tokens { pipeline: Arc::clone(&pipeline), clock: Arc::clone(&clock), draining: draining.clone() },
            admin: Admin { pipeline: Arc::clone(&pipeline), clock, facts, draining: draining.clone() },
            pipeline,
            client_reflection: config.server.reflection,
            registry: Arc::new(registry),
            readiness: readiness.clone(),
        };
        let routes = services.distribute(dev);
        let mut listeners = vec![(CLIENT_API, bind(&config.server.listen).await?, routes.client)];
        if let Some(admin) = routes.admin {
            listeners.push((ADMIN_API, bind(&config.server.admin_listen).await?, admin));
        }
        listeners.push((METRICS, bind(&config.server.metrics_listen).await?, routes.metrics));
        let headers = AnswerHeaders::new(&replica);
        let health = routes.health;
        Ok(Self {
            config,
            store,
            sealer,
            cache,
            orders,
            flights,
            rotations,
            pending,
            readiness,
            draining,
            replica,
            headers,
            shed,
            calls,
            listening,
            tracer,
            health,
            access,
            config_file,
            dev,
            audit: (audit, writers),
            demo: None,
            listeners,
        })
    }

    /// The same, with the upstream of dev mode beside it.
    #[must_use]
    pub fn with_demo(self, demo: DemoUpstream) -> Self {
        Self { demo: Some(demo), ..self }
    }

    /// The audit log, for whoever is told that its file was moved away.
    #[must_use]
    pub fn audit(&self) -> AuditLog {
        self.audit.0.clone()
    }

    /// The addresses that are listened on, by what they serve.
    #[must_use]
    pub fn addresses(&self) -> Vec<(&'static str, Listen)> {
        self.listeners.iter().filter_map(|(what, bound, _)| Some((*what, bound.address().ok()?))).collect()
    }

    /// Runs until it is told to end, then finishes what it has begun.
    ///
    /// # Errors
    ///
    /// If the store cannot be used at all, a worker ends early, or flights are left unfinished.
    pub async fn run(self, shutdown: Shutdown) -> Result<(), AppError> {
        for warning in &self.config.warnings {
            warn!("{warning}");
        }
        let (audit, writers) = self.audit;
        let writing = writers.start().map_err(AppError::AuditThread)?;
        let stop_listening = CancellationToken::new();
        let mut servers = JoinSet::new();
        for (what, bound, offer) in self.listeners {
            if let Ok(address) = bound.address() {
                info!(%address, "listening: {what}");
            }
            let terms = Terms {
                // Scrapers have neither certificates nor secrets to tell.
                tls: self.access.tls.clone().filter(|_| what != METRICS),
                max_connections: self.config.limits.max_connections,
                http1: self.dev || what == METRICS,
                // A refusal in gRPC's form would look like success to a probe.
                shed: if what == METRICS { Shed::none() } else { self.shed.clone() },
                headers: self.headers.clone(),
                calls: self.calls.clone(),
                tracer: self.tracer.clone(),
                metrics: self.listening.of(short_name(what)),
            };
            servers.spawn(serve(bound, offer, terms, stop_listening.clone()));
        }
        let mut workers = Workers::default();
        workers.start("the refusals of the audit log", |stop| audit.sweep(stop));
        workers.start("the health teller", |stop| self.health.run(stop));
        // Ends when draining begins, before the flights are waited for: it would start new ones all the time.
        let (refresher, draining) = (Refresher::new(Arc::clone(&self.cache), self.orders), self.draining.clone());
        workers.start("the refresher", |_| refresher.run(draining));

        let follower = self.access.follow(self.config_file.clone(), reader(self.config_file.as_deref()));
        workers.start("the follower of files", |stop| follower.run(stop));
        if let Some(keys) = self.access.api_keys.clone() {
            workers.start("the reader of API keys", |stop| keys.run(stop));
        }

        let hint = Arc::new(Notify::new());
        if self.store.is_shared() {
            let (store, heard) = (Arc::clone(&self.store), Arc::clone(&hint));
            workers.start("the listener", |stop| async move {
                select! {
                    () = store.listen(heard) => {}
                    () = stop.cancelled() => {}
                }
            });
            let fleet = Fleet::new(Arc::clone(&self.cache), self.replica.clone(), Arc::clone(&hint));
            workers.start("the fleet's ear", |stop| fleet.run(stop));
        }
        workers.start("the settler", |stop| Settler::new(Arc::clone(&self.cache)).run(stop));
        let audit_kept = self.config.audit.store.then_some(self.config.audit.keep);
        workers.start("the janitor", |stop| Janitor::new(Arc::clone(&self.cache), audit_kept).run(stop));
        if let Some(demo) = self.demo {
            workers.start("the demo upstream", |stop| async move {
                if let Err(error) = demo.run(stop).await {
                    error!(%error, "the demo upstream failed");
                }
            });
        }

        let (readiness, store) = (self.readiness.clone(), Arc::clone(&self.store));
        let spill = Spill::new(&self.config.store.spill_dir, self.sealer);
        let prepared = prepare(&self.store, &shutdown);
        let warm_start = WarmStart::new(Arc::clone(&self.cache)).run(shutdown.orderly.clone());
        let outcome = select! {
            outcome = async {
                prepared.await?;
                replay(&spill, &store, &shutdown).await;
                // Its first try came before there was a schema.
                hint.notify_one();
                self.cache.in_touch(FIRST_TOUCH).await;
                readiness.enter(Phase::Serving);
                warm_start.await;
                shutdown.orderly.cancelled().await;
                Ok(())
            } => outcome,
            () = shutdown.orderly.cancelled() => Ok(()),
            failed = workers.first_to_fail() => Err(AppError::Worker(failed)),
            () = writing.ended_early() => Err(AppError::Worker("the audit log")),
            Some(ended) = servers.join_next() => {
                error!(?ended, "a listener ended");
                Err(AppError::Worker("a listener"))
            }
        };
        let drain = Drain {
            readiness: self.readiness,
            draining: self.draining,
            stop_listening,
            flights: self.flights,
            rotations: self.rotations,
            pending: self.pending,
            spill: spill.clone(),
            replica: self.replica,
            audit: writing,
            store: self.store,
            timeout: self.config.server.drain_timeout,
        };
        let drained = drain.run(servers, workers, &shutdown).await;
        finish_tracing(self.tracer).await;
        outcome.and(drained)
    }
}

/// Sends traces from now on, if there is a collector.
fn begin_tracing(
    config: &Config,
    replica: &ReplicaId,
    rng: &SharedRng,
    registry: &mut Registry,
) -> Result<Tracer, TraceError> {
    let spans = SpanMetrics::default();
    spans.register(registry);
    let Some(collector) = config.telemetry.collector(replica) else { return Ok(Tracer::off()) };
    Tracer::to(&collector, rng.with(|rng| rng.random()), spans)
}

/// Sends the last spans. In a thread that the end of the process does not wait for: the collector may not answer.
async fn finish_tracing(tracer: Tracer) {
    let (done, finished) = oneshot::channel();
    std::thread::spawn(move || {
        tracer.finish();
        // An error says that nobody waited for it so long.
        let _ = done.send(());
    });
    let _ = timeout(LAST_SPANS, finished).await;
}

/// The name of a listener where it has to be short.
fn short_name(what: &str) -> &'static str {
    match what {
        CLIENT_API => "client",
        ADMIN_API => "admin",
        _ => "metrics",
    }
}

/// Reads the configuration again, as the start did.
fn reader(file: Option<&Path>) -> Option<Rereader> {
    let file = file?.to_owned();
    Some(Arc::new(move || Config::load(&file, &ProviderRegistry::builtin())))
}

async fn bind(address: &Listen) -> Result<Bound, AppError> {
    Bound::bind(address).await.map_err(|error| AppError::Listen(address.clone(), error))
}

/// Prepares the store, however long it takes to answer; callers are told meanwhile that it does not.
async fn prepare(store: &SharedStore, shutdown: &Shutdown) -> Result<(), AppError> {
    while !shutdown.orderly.is_cancelled() {
        match store.prepare().await {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::StoreDown => {
                warn!(%error, "the store does not answer; trying again");
                sleep(STORE_RETRY).await;
            }
            Err(error) => return Err(AppError::Store(error)),
        }
    }
    Ok(())
}

/// The host's name and a random suffix: unique, and of use to a person.
fn make_up_replica(rng: &SharedRng) -> ReplicaId {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    let host = if host.is_empty() { "replica" } else { host };
    let suffix = rng.with(rand::Rng::next_u32);
    ReplicaId::new(&format!("{host}-{suffix:08x}"))
}

#[cfg(test)]
mod tests;
