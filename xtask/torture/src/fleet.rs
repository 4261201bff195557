//! Everything that runs: the upstream, the database, the networks, the replicas; and the person who logs in again.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Result;
use tempfile::TempDir;
use tokencache_proto::v1::RefreshTokenRequest;
use tokio::{
    sync::{Mutex, mpsc},
    time::timeout,
};
use tonic_types::StatusExt as _;

use crate::{
    database::Database,
    history::{Event, History},
    idp::{IdentityProvider, Step},
    proxy::Proxy,
    replica::{Replica, free_ports},
    scene::{self, Ports, Surroundings},
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
    pub(crate) proxies: Vec<Proxy>,
    pub(crate) replicas: Vec<Arc<Replica>>,
    secrets: PathBuf,
    log_in: Mutex<()>,
    directory: TempDir,
}

impl Fleet {
    /// Starts everything; steps at which replicas are to be hurt are told on the other end of `blows`.
    pub(crate) async fn start(
        binary: &Path,
        count: usize,
        (truth, history, seed): (Arc<Truth>, History, u64),
        blows: mpsc::UnboundedSender<(Step, usize)>,
    ) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("tokencache-torture-").tempdir()?;
        let secrets = directory.path().join("secrets");
        std::fs::create_dir(&secrets)?;
        scene::write_secret(&secrets, "client", "client-secret")?;
        for (number, credential) in truth.credentials().iter().enumerate() {
            scene::write_secret(&secrets, &format!("{}.rt", credential.name), &truth.log_in(number))?;
        }
        let database = Database::create().await?;
        let idp = IdentityProvider::new(Arc::clone(&truth), history.clone(), seed, blows);
        let upstream = idp.listen(0).await?;
        let mut fleet = Self {
            history,
            truth,
            idp,
            database,
            proxies: vec![],
            replicas: vec![],
            secrets,
            log_in: Mutex::default(),
            directory,
        };
        let ports = free_ports(3 * count)?;
        for (index, ports) in ports.chunks_exact(3).enumerate() {
            let ports = Ports { client: ports[0], admin: ports[1], metrics: ports[2] };
            fleet.add_replica(binary, index, ports, upstream).await?;
        }
        // One after the other at first: whoever comes first makes the tables.
        for replica in &fleet.replicas {
            replica.start().await?;
            replica.serving(START).await?;
        }
        Ok(fleet)
    }

    async fn add_replica(&mut self, binary: &Path, index: usize, ports: Ports, upstream: u16) -> Result<()> {
        let (host, port) = self.database.address()?;
        let proxy = Proxy::start(host, port).await?;
        let own_upstream = self.idp.listen(index).await?;
        let store = self.database.through(proxy.port())?;
        let around =
            Surroundings { replica: index, ports, store: &store, upstream, own_upstream, secrets: &self.secrets };
        let directory = self.directory.path().join(format!("r{index}"));
        std::fs::create_dir(&directory)?;
        let text = scene::configuration(&around, self.truth.credentials());
        std::fs::write(directory.join("tokencached.toml"), text)?;
        self.proxies.push(proxy);
        self.replicas.push(Arc::new(Replica::new(index, binary.to_owned(), directory, ports)));
        Ok(())
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

/// The machine-readable reason of a failure; empty if it is not the broker's.
pub(crate) fn reason(status: &tonic::Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}
