//! Everything that runs: the upstream, the database, the networks, the replicas; and the person who logs in again.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Result;
use tempfile::TempDir;
use tokencache_proto::v1::RefreshTokenRequest;
use tokencache_testkit::steady_ports;
use tokio::{
    sync::{Mutex, mpsc},
    time::timeout,
};
use tonic_types::StatusExt as _;

use crate::{
    clock::Clock,
    database::{Database, Deed, Kept},
    history::{Event, History},
    idp::{IdentityProvider, Step},
    proxy::Proxy,
    replica::Replica,
    scene::{self, Plan, Ports, Surroundings},
    truth::Truth,
};

/// How long a replica may take to start.
const START: Duration = Duration::from_secs(30);

/// How long an operator waits for a refresh.
const OPERATOR: Duration = Duration::from_secs(8);

/// What runs.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub(crate) history: History,
    pub(crate) truth: Arc<Truth>,
    pub(crate) idp: Arc<IdentityProvider>,
    pub(crate) database: Database,
    /// The ways of the replicas to the database.
    pub(crate) proxies: Vec<Proxy>,
    /// Their ways to the upstream.
    pub(crate) upstreams: Vec<Proxy>,
    pub(crate) replicas: Vec<Arc<Replica>>,
    secrets: PathBuf,
    log_in: Mutex<()>,
    directory: TempDir,
}

impl Fleet {
    /// Starts everything; steps at which replicas are to be hurt are told on the other end of `blows`.
    pub(crate) async fn start(
        binary: &Path,
        plan: &Plan,
        clock: Clock,
        blows: mpsc::UnboundedSender<(Step, usize)>,
    ) -> Result<Self> {
        let history = History::new(clock);
        let truth = Arc::new(Truth::new(clock, plan.credentials.clone(), plan.seed ^ 1));
        truth.set_patience(plan.timeout);
        let directory = tempfile::Builder::new().prefix("tokencache-torture-").tempdir()?;
        let secrets = directory.path().join("secrets");
        log_in_all(&truth, &secrets)?;
        let database = Database::create(plan.with_standby).await?;
        let idp = IdentityProvider::new(Arc::clone(&truth), history.clone(), plan.seed ^ 2, blows);
        let upstream = idp.listen(0).await?;
        let mut fleet = Self {
            history,
            truth,
            idp,
            database,
            proxies: vec![],
            upstreams: vec![],
            replicas: vec![],
            secrets,
            log_in: Mutex::default(),
            directory,
        };
        let ports = steady_ports(3 * plan.replicas)?;
        for (index, ports) in ports.chunks_exact(3).enumerate() {
            let ports = Ports { client: ports[0], admin: ports[1], metrics: ports[2] };
            fleet.add_replica(binary, plan, (index, ports), upstream).await?;
        }
        // One after the other at first: whoever comes first makes the tables.
        for replica in &fleet.replicas {
            replica.start().await?;
            replica.serving(START).await?;
        }
        Ok(fleet)
    }

    /// Every refresh token that the first replica could open.
    pub(crate) async fn refresh_tokens(&self) -> Result<Vec<Kept>> {
        self.database.refresh_tokens(&self.directory.path().join("r0/tokencached.toml")).await
    }

    async fn add_replica(
        &mut self,
        binary: &Path,
        plan: &Plan,
        (index, ports): (usize, Ports),
        upstream: u16,
    ) -> Result<()> {
        let proxy = Proxy::start(self.database.address().await?).await?;
        let seen_as = self.idp.listen(index).await?;
        let own_upstream = Proxy::start(SocketAddr::from((Ipv4Addr::LOCALHOST, seen_as))).await?;
        let around = Surroundings {
            replica: index,
            ports,
            store: &self.database.through(proxy.port())?,
            upstream,
            own_upstream: own_upstream.port(),
            secrets: &self.secrets,
        };
        let directory = self.directory.path().join(format!("r{index}"));
        std::fs::create_dir(&directory)?;
        std::fs::write(directory.join("tokencached.toml"), scene::configuration(&around, plan))?;
        self.proxies.push(proxy);
        self.upstreams.push(own_upstream);
        let replica = Replica::new(index, binary.to_owned(), directory, ports, plan.log.clone());
        self.replicas.push(Arc::new(replica));
        Ok(())
    }

    /// Does something to the database, and waits until all is well again. All replicas are led to a new primary.
    pub(crate) async fn hurt_database(&self, deed: Deed) -> Result<()> {
        let lead = |primary| self.proxies.iter().for_each(|proxy| proxy.lead_to(primary));
        self.database.hurt(deed, &self.history, lead).await
    }

    /// Somebody was told that a grant is lost. If it is, and this is news, a person logs in again.
    pub(crate) async fn heard_of_loss(&self, name: &str, words: &str, replica: usize) -> Result<()> {
        let Some(number) = self.truth.number(name) else { return Ok(()) };
        let _one_at_a_time = self.log_in.lock().await;
        if !self.truth.report(number, words) {
            return Ok(());
        }
        let first = self.truth.log_in(number);
        scene::write_secret(&self.secrets, &format!("{name}.rt"), &first)?;
        self.history.add(Event::LoggedIn { credential: name.to_owned(), reported: words.to_owned() });
        // So that it is seen before the next check of lost grants; whether this replica is up is no matter.
        let _ = self.refresh(name, replica).await;
        Ok(())
    }

    /// An operator has a credential refreshed. `Err`: the reason and the words of the refusal.
    pub(crate) async fn refresh(&self, name: &str, replica: usize) -> Result<(), (String, String)> {
        let failed = |text: String| (String::new(), text);
        let mut admin = self.replicas[replica].admin().map_err(|error| failed(error.to_string()))?;
        let request = RefreshTokenRequest { credential: name.to_owned(), ..Default::default() };
        match timeout(OPERATOR, admin.refresh_token(request)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(status)) => Err((reason(&status), status.message().to_owned())),
            Err(_) => Err(failed("no answer".to_owned())),
        }
    }
}

/// Logs in once for each credential, and leaves its refresh token where the replicas look for it.
fn log_in_all(truth: &Truth, secrets: &Path) -> Result<()> {
    std::fs::create_dir(secrets)?;
    scene::write_secret(secrets, "client", "client-secret")?;
    scene::write_secret(secrets, scene::ENCRYPTION_KEY, "YSBrZXkgb2YgMzIgYnl0ZXMgZm9yIHRlc3RzIG9ubHk=")?;
    for (number, credential) in truth.credentials().iter().enumerate() {
        scene::write_secret(secrets, &format!("{}.rt", credential.name), &truth.log_in(number))?;
    }
    Ok(())
}

/// The machine-readable reason of a failure; empty if it is not the broker's.
pub(crate) fn reason(status: &tonic::Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}
