//! Who may call and what they may do, as configured; and a worker that follows the configuration as it changes.

use std::{
    num::NonZeroU32,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

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
    time::{Clock as _, SharedClock, SystemClock},
};

/// How often the files are looked at. Not by notifications: of a Kubernetes volume, whose links are swapped, and of a
/// network file system they do not come.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How long a file that was changed is young, in seconds.
const YOUNG: i64 = 10;

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
    /// For how many seconds after its last change a file is read at each look.
    young: i64,
    seen: Vec<Option<Seen>>,
}

/// A file as it was: its contents as a hash, for some are secret.
#[derive(Clone)]
struct Seen {
    stamp: Stamp,
    hash: Vec<u8>,
}

/// Where a file lies, how long it is, and when it was changed last by its file system's own account, which no writer sets:
/// the time of modification may be the same before and after.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    place: (u64, u64),
    length: u64,
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let file = std::fs::metadata(path).ok()?;
        let (place, changed) = ((file.dev(), file.ino()), (file.ctime(), file.ctime_nsec()));
        Some(Self { place, length: file.size(), changed })
    }

    /// Whether the file may have been changed again without getting another one: clocks of file systems are coarse.
    fn is_younger_than(&self, seconds: i64) -> bool {
        // The machine's clock, whatever the broker goes by: file systems go by that.
        SystemClock.now().as_millis() / 1000 - self.changed.0 < seconds
    }
}

impl Seen {
    fn read(path: &Path, stamp: Stamp) -> Option<Self> {
        let bytes = zeroize::Zeroizing::new(std::fs::read(path).ok()?);
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes).as_ref().to_vec();
        Some(Self { stamp, hash })
    }
}

impl Watched {
    fn new(paths: Vec<PathBuf>) -> Self {
        let mut watched = Self { seen: vec![None; paths.len()], young: YOUNG, paths };
        watched.seen = watched.look();
        watched
    }

    /// What they are like now. One with the stamp from before is not read: of a hundred thousand credentials the
    /// configuration has megabytes.
    fn look(&self) -> Vec<Option<Seen>> {
        let look = |(path, before): (&PathBuf, &Option<Seen>)| {
            let stamp = Stamp::of(path)?;
            match before {
                Some(before) if before.stamp == stamp && !stamp.is_younger_than(self.young) => Some(before.clone()),
                _ => Seen::read(path, stamp),
            }
        };
        self.paths.iter().zip(&self.seen).map(look).collect()
    }

    fn has_changed(&mut self) -> bool {
        let now = self.look();
        // A file that is missing for a moment is being replaced.
        if now.iter().any(Option::is_none) {
            return false;
        }
        let hashes =
            |seen: &[Option<Seen>]| seen.iter().map(|seen| seen.as_ref().map(|seen| seen.hash.clone())).collect();
        let (before, after): (Vec<_>, Vec<_>) = (hashes(&self.seen), hashes(&now));
        self.seen = now;
        before != after
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

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        os::unix::fs::symlink,
    };

    use super::*;

    #[test]
    fn changes_are_seen_whatever_they_leave_as_it_was() {
        // By their contents, as those of young files are, and by their stamps alone.
        [YOUNG, 0].into_iter().for_each(changes_are_seen);
    }

    fn changes_are_seen(young: i64) {
        // The clock of a file system may tick a hundred times a second.
        let tick = || std::thread::sleep(Duration::from_millis(50));
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "one").unwrap();
        let written = fs::metadata(&path).unwrap().modified().unwrap();
        let mut watched = Watched { young, ..Watched::new(vec![path.clone()]) };
        assert!(!watched.has_changed());
        tick();
        // Of the same length and the same time of modification.
        fs::write(&path, "two").unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(written).unwrap();
        assert!(watched.has_changed() && !watched.has_changed());
        // Only touched.
        tick();
        File::options().write(true).open(&path).unwrap().set_modified(written).unwrap();
        assert!(!watched.has_changed());
        // Gone for a moment, and then a link, as on a Kubernetes volume.
        fs::remove_file(&path).unwrap();
        assert!(!watched.has_changed());
        for text in ["three", "four"] {
            let target = directory.path().join(text);
            fs::write(&target, text).unwrap();
            let _ = fs::remove_file(&path);
            tick();
            symlink(&target, &path).unwrap();
            assert!(watched.has_changed() && !watched.has_changed(), "{text}");
        }
    }
}
