//! Who may call and what they may do, as configured; and a worker that follows the configuration as it changes.

use std::{num::NonZeroU32, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::AppError;
use crate::{
    authn::{
        self, Authenticator, BearerAuthenticator, Methods,
        api_key::ApiKeys,
        jwt::{JwtAuthenticator, JwtKeys, JwtRules},
        rate::CallerRate,
    },
    config::{Config, ConfigError, MtlsConfig},
    policy::{self, AllowAll, Policy},
    provider::http::HttpClients,
    rpc::tls::{ServerTls, TlsFiles},
    store::SharedStore,
    time::SharedClock,
};

/// How often the files are looked at. Not by notifications: of a Kubernetes volume, whose links are swapped, and of a
/// network file system they do not come.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Reads the configuration again.
pub(super) type Rereader = Arc<dyn Fn() -> Result<Config, ConfigError> + Send + Sync>;

/// Whoever knows the JWTs of an issuer.
type Issuers = Vec<Arc<JwtAuthenticator>>;

/// Who may call and what they may do.
#[derive(Debug)]
pub(super) struct Access {
    pub(super) authn: Arc<dyn Authenticator>,
    pub(super) policy: Arc<dyn Policy>,
    pub(super) rate: Option<Arc<CallerRate>>,
    pub(super) tls: Option<ServerTls>,
    /// `None`: nobody has an API key.
    pub(super) api_keys: Option<Arc<ApiKeys>>,
    issuers: Issuers,
    mtls: Option<MtlsConfig>,
    live_authn: Arc<authn::Live>,
    live_policy: Arc<policy::Live>,
    clock: SharedClock,
}

impl Access {
    /// As the configuration says.
    pub(super) fn build(config: &Config, store: &SharedStore, clock: &SharedClock) -> Result<Self, AppError> {
        let wants_keys = config.authn.api_keys;
        let api_keys = wants_keys.then(|| Arc::new(ApiKeys::new(Arc::clone(store), Arc::clone(clock))));
        let issuers = issuers(config, &Issuers::new(), clock)?;
        let methods = methods(config, api_keys.as_ref(), &issuers, clock);
        let (live_authn, live_policy) =
            (Arc::new(authn::Live::new(methods)), Arc::new(policy::Live::new(policy(config))));
        let rate = config.limits.calls_per_second_per_caller.and_then(NonZeroU32::new);
        Ok(Self {
            authn: Arc::clone(&live_authn) as _,
            policy: Arc::clone(&live_policy) as _,
            rate: rate.map(|rate| Arc::new(CallerRate::new(rate))),
            tls: tls(config)?,
            api_keys,
            issuers,
            mtls: config.authn.mtls.clone(),
            live_authn,
            live_policy,
            clock: Arc::clone(clock),
        })
    }

    /// Follows the configuration's file, and those of certificates.
    pub(super) fn follow(&self, file: Option<PathBuf>, reread: Option<Rereader>) -> Follower {
        Follower {
            config: reread.zip(file).map(|(reread, file)| (reread, Watched::new(vec![file]))),
            tls: self.tls.clone().map(|tls| {
                let watched = Watched::new(tls.paths());
                (tls, watched)
            }),
            authn: Arc::clone(&self.live_authn),
            policy: Arc::clone(&self.live_policy),
            api_keys: self.api_keys.clone(),
            issuers: self.issuers.clone(),
            mtls: self.mtls.clone(),
            clock: Arc::clone(&self.clock),
        }
    }
}

fn policy(config: &Config) -> Arc<dyn Policy> {
    let nothing_said = config.server.insecure_allow_any_caller && config.grants.grants().is_empty();
    if nothing_said { Arc::new(AllowAll) } else { Arc::new(config.grants.clone()) }
}

/// The issuers of the configuration. One whose rules are those of a `known` one stays: its keys outlive an outage of the
/// issuer, and so they do a change of something else.
fn issuers(config: &Config, known: &Issuers, clock: &SharedClock) -> Result<Issuers, AppError> {
    let clients = HttpClients::default();
    let issuer = |rules: &JwtRules| {
        if let Some(same) = known.iter().find(|issuer| issuer.rules() == rules) {
            return Ok(Arc::clone(same));
        }
        let client = clients.get(&rules.http);
        let client = client.map_err(|error| AppError::Issuer(rules.name.clone(), error.to_string()))?;
        let keys = Arc::new(JwtKeys::new(rules.keys.clone(), client));
        Ok(Arc::new(JwtAuthenticator::new(rules.clone(), keys, Arc::clone(clock))))
    };
    config.authn.jwt.iter().map(issuer).collect()
}

fn methods(config: &Config, api_keys: Option<&Arc<ApiKeys>>, issuers: &Issuers, clock: &SharedClock) -> Methods {
    let mut bearers: Vec<Arc<dyn BearerAuthenticator>> = Vec::new();
    bearers.extend(api_keys.filter(|_| config.authn.api_keys).map(|keys| Arc::clone(keys) as _));
    bearers.extend(issuers.iter().map(|issuer| Arc::clone(issuer) as _));
    Methods {
        bearers,
        peer_users: config.authn.unix_users,
        anonymous: config.server.insecure_allow_any_caller,
        clock: Arc::clone(clock),
    }
}

fn tls(config: &Config) -> Result<Option<ServerTls>, AppError> {
    let Some(files) = &config.server.tls else { return Ok(None) };
    let clients = config.authn.mtls.as_ref().map(|mtls| (mtls.ca_file.clone(), mtls.rules.clone()));
    let files = TlsFiles { cert_file: files.cert_file.clone(), key_file: files.key_file.clone(), clients };
    ServerTls::load(files).map(Some).map_err(AppError::Tls)
}

/// Files, and what they were like when they were last looked at.
struct Watched {
    paths: Vec<PathBuf>,
    seen: Vec<Option<Vec<u8>>>,
}

impl Watched {
    fn new(paths: Vec<PathBuf>) -> Self {
        let mut watched = Self { paths, seen: vec![] };
        watched.seen = watched.look();
        watched
    }

    /// Their contents, for a change may leave time and size as they were; as hashes, for some are secret.
    fn look(&self) -> Vec<Option<Vec<u8>>> {
        let hash = |path: &PathBuf| {
            let bytes = zeroize::Zeroizing::new(std::fs::read(path).ok()?);
            Some(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes).as_ref().to_vec())
        };
        self.paths.iter().map(hash).collect()
    }

    fn has_changed(&mut self) -> bool {
        let now = self.look();
        // A file that is missing for a moment is being replaced.
        let changed = now != self.seen && now.iter().all(Option::is_some);
        if changed {
            self.seen = now;
        }
        changed
    }
}

/// Follows files as they change, and takes over what can be changed while the broker runs: all of it, or nothing. A worker.
pub(super) struct Follower {
    config: Option<(Rereader, Watched)>,
    tls: Option<(ServerTls, Watched)>,
    authn: Arc<authn::Live>,
    policy: Arc<policy::Live>,
    api_keys: Option<Arc<ApiKeys>>,
    issuers: Issuers,
    /// What client certificates mean is settled at the start.
    mtls: Option<MtlsConfig>,
    clock: SharedClock,
}

impl Follower {
    /// Runs until it is told to stop. SIGHUP has everything read again, changed or not.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let Ok(mut hangup) = signal(SignalKind::hangup()) else {
            error!("the handler of SIGHUP cannot be installed");
            return stop.cancelled().await;
        };
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let told = tokio::select! {
                _ = looks.tick() => false,
                _ = hangup.recv() => true,
                () = stop.cancelled() => return,
            };
            // Files may be slow to read.
            let looked = tokio::task::spawn_blocking(move || {
                self.look(told);
                self
            });
            match looked.await {
                Ok(follower) => self = follower,
                Err(panic) => {
                    error!(%panic, "the configuration is no longer followed");
                    return stop.cancelled().await;
                }
            }
        }
    }

    fn look(&mut self, told: bool) {
        if let Some((tls, watched)) = &mut self.tls
            && (watched.has_changed() || told)
        {
            match tls.reload() {
                Ok(()) => info!("the certificates are read anew"),
                Err(error) => error!(%error, "the certificates cannot be used; the old ones stay"),
            }
        }
        let Some((reread, watched)) = &mut self.config else { return };
        if !watched.has_changed() && !told {
            return;
        }
        let taken = reread().map_err(|error| error.to_string()).and_then(|config| {
            let issuers = issuers(&config, &self.issuers, &self.clock).map_err(|error| error.to_string())?;
            Ok((issuers, config))
        });
        match taken {
            Ok((issuers, config)) => {
                self.issuers = issuers;
                self.authn.replace(methods(&config, self.api_keys.as_ref(), &self.issuers, &self.clock));
                self.policy.replace(policy(&config));
                info!(grants = config.grants.grants().len(), "the configuration is read anew: [authn] and [grants]");
                self.warn_of_the_rest(&config);
            }
            Err(problems) => error!(%problems, "the configuration cannot be used; everything stays as it was"),
        }
    }

    fn warn_of_the_rest(&self, config: &Config) {
        if config.authn.api_keys && self.api_keys.is_none() {
            warn!("API keys are taken from the next start on");
        }
        if config.authn.mtls != self.mtls {
            warn!("[authn.mtls] has changed and counts from the next start on; until then it is what it was");
        }
    }
}
