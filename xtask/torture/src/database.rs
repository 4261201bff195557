//! The database of the run: what is in its tables, and how its servers crash, stall and replace each other.
//!
//! Its own servers, where there are binaries for it: a primary, and a standby that has every commit before it is
//! acknowledged. Else the Postgres of the tests, which is not hurt.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::{Arc, Mutex as StdMutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use sqlx::{Connection as _, PgConnection, Row as _};
use tokencache_server::{
    app::{Opened, open_store},
    config::Config,
    provider::registry::ProviderRegistry,
    store::StoreRegistry,
    time::SystemClock,
    types::Secret,
};
use tokencache_testkit::{PgNode, Postgres};
use tokio::{sync::Mutex, time::sleep};
use url::Url;

use crate::{history::History, proxy};

const NAME: &str = "tokencache";

/// A refresh token in the tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) credential: String,
    pub(crate) refresh: String,
    /// It is the one that would be used next.
    pub(crate) current: bool,
}

/// What is done to the servers. Each deed ends with a primary, and a standby that follows it, if there was one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    /// A backend dies; the server ends all connections and recovers.
    Crash,
    /// All processes of the primary stop for a while.
    Pause(Duration),
    /// The primary is shut down in order, and started after a while.
    Restart(Duration),
    /// The primary dies, and the standby takes its place; after a while it gets a standby of its own.
    Failover(Duration),
    /// The same, where the primary does not die at first but stops: its connections stay and say nothing.
    FailoverFrozen(Duration),
    /// The standby goes away for a while: nothing is acknowledged meanwhile.
    NoStandby(Duration),
}

impl Deed {
    /// Its name in the history.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Crash => "database crash",
            Self::Pause(_) => "database stopped",
            Self::Restart(_) => "database restart",
            Self::Failover(_) => "database failover",
            Self::FailoverFrozen(_) => "database failover from a primary that hangs",
            Self::NoStandby(_) => "database standby gone",
        }
    }
}

/// The database.
#[derive(Debug)]
pub(crate) struct Database {
    /// Where the primary is now.
    url: StdMutex<Url>,
    /// The run's own servers.
    servers: Option<Mutex<Servers>>,
}

#[derive(Debug)]
struct Servers {
    primary: PgNode,
    standby: Option<PgNode>,
}

impl Database {
    /// An empty one, whose commits outlive the end of a server; with a standby if one is asked for and can be had.
    pub(crate) async fn create(with_standby: bool) -> Result<Self> {
        if PgNode::available().is_err() {
            let server = Postgres::start().await?;
            ensure!(server.password().is_none(), "the run needs a Postgres without a password");
            let url: Url = server.new_database().await?.parse()?;
            return Ok(Self { url: StdMutex::new(url), servers: None });
        }
        let primary = PgNode::primary().await?;
        let mut connection = PgConnection::connect(&primary.url("postgres")).await?;
        sqlx::raw_sql("CREATE DATABASE tokencache TEMPLATE template0").execute(&mut connection).await?;
        connection.close().await?;
        let mut servers = Servers { primary, standby: None };
        if with_standby {
            servers.follow().await?;
        }
        let url = servers.primary.url(NAME).parse()?;
        Ok(Self { url: StdMutex::new(url), servers: Some(Mutex::new(servers)) })
    }

    /// Where the primary listens.
    pub(crate) async fn address(&self) -> Result<SocketAddr> {
        let url = self.url();
        let host = url.host_str().context("the database's URL has no host")?;
        proxy::resolve(host, url.port().unwrap_or(5432)).await
    }

    /// Its URL by way of a port of loopback.
    pub(crate) fn through(&self, port: u16) -> Result<String> {
        let mut url = self.url();
        url.set_host(Some("127.0.0.1"))?;
        url.set_port(Some(port)).ok().context("the database's URL takes no port")?;
        Ok(url.into())
    }

    /// Whether its servers are this run's own.
    pub(crate) fn can_be_hurt(&self) -> bool {
        self.servers.is_some()
    }

    /// Does something to the servers, and waits until all is well again; nothing if they are not this run's own or
    /// something is being done to them already. `lead` is called with the address of a new primary.
    pub(crate) async fn hurt(&self, deed: Deed, history: &History, lead: impl Fn(SocketAddr)) -> Result<()> {
        let Some(servers) = &self.servers else { return Ok(()) };
        let mut servers = servers.lock().await;
        match deed {
            Deed::Crash => servers.primary.crash().await?,
            Deed::Pause(pause) => {
                servers.primary.freeze().await?;
                sleep(pause).await;
                servers.primary.thaw().await?;
            }
            Deed::Restart(pause) => {
                servers.primary.shut_down().await?;
                sleep(pause).await;
                servers.primary.start().await?;
            }
            Deed::Failover(pause) | Deed::FailoverFrozen(pause) => {
                let mut old = servers.fail_over(matches!(deed, Deed::FailoverFrozen(_))).await?;
                *self.url.lock().unwrap_or_else(PoisonError::into_inner) = servers.primary.url(NAME).parse()?;
                lead(SocketAddr::from((Ipv4Addr::LOCALHOST, servers.primary.port())));
                history.fault("the standby is the primary", "database");
                sleep(pause).await;
                old.kill().await?;
                servers.follow().await?;
            }
            Deed::NoStandby(pause) => {
                let standby = servers.standby.as_mut().context("there is no standby to go away")?;
                standby.shut_down().await?;
                sleep(pause).await;
                standby.start().await?;
            }
        }
        match servers.standby {
            Some(_) => servers.primary.followed().await,
            None => Ok(()),
        }
    }

    /// Shuts the server down until [`Self::come_up`].
    pub(crate) async fn go_down(&self) -> Result<()> {
        let Some(servers) = &self.servers else { bail!("the database is not this run's own and cannot be shut down") };
        servers.lock().await.primary.shut_down().await
    }

    /// Starts the server again.
    pub(crate) async fn come_up(&self) -> Result<()> {
        let Some(servers) = &self.servers else { return Ok(()) };
        servers.lock().await.primary.start().await
    }

    /// How many tokens were minted and stored, for all keys together.
    pub(crate) async fn generations(&self) -> Result<i64> {
        let mut connection = PgConnection::connect(self.url().as_str()).await?;
        let sum = sqlx::query_scalar("SELECT coalesce(sum(generation), 0)::bigint FROM tokens");
        let sum = sum.fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok(sum)
    }

    /// Every refresh token in the tables that a replica with this configuration can open.
    pub(crate) async fn refresh_tokens(&self, configuration: &Path) -> Result<Vec<Kept>> {
        let mut config = Config::load(configuration, &ProviderRegistry::builtin())?;
        config.store.url = self.url().to_string();
        let Opened { store, .. } = open_store(&config, &StoreRegistry::builtin(), Arc::new(SystemClock)).await?;
        let mut kept = vec![];
        for name in config.credentials.iter().map(|credential| credential.name.clone()) {
            let mut keep = |refresh: Secret, current| {
                kept.push(Kept { credential: name.to_string(), refresh: refresh.expose().clone(), current });
            };
            if let Some(grant) = store.load_grant(name.clone()).await? {
                keep(grant.refresh_token, true);
                grant.previous.into_iter().for_each(|previous| keep(previous, false));
            }
            for late in store.candidates(name.clone()).await? {
                keep(late.refresh_token, false);
            }
        }
        store.close().await;
        self.nothing_is_in_the_clear(&kept).await?;
        Ok(kept)
    }

    /// None of these is in a table as it is.
    async fn nothing_is_in_the_clear(&self, opened: &[Kept]) -> Result<()> {
        let mut connection = PgConnection::connect(self.url().as_str()).await?;
        let rows = sqlx::query(
            "SELECT credential, refresh_token AS token FROM grants \
             UNION ALL SELECT credential, previous FROM grants WHERE previous IS NOT NULL \
             UNION ALL SELECT credential, refresh_token FROM grant_candidates",
        );
        let rows = rows.fetch_all(&mut connection).await?;
        connection.close().await?;
        for row in rows {
            let (credential, stored): (String, Vec<u8>) = (row.try_get("credential")?, row.try_get("token")?);
            let clear = opened.iter().any(|kept| kept.refresh.as_bytes() == stored);
            ensure!(!clear, "a refresh token of {credential} is stored in the clear");
        }
        Ok(())
    }

    fn url(&self) -> Url {
        self.url.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Servers {
    /// Kills or freezes the primary, and has the standby take its place; the old one. Nobody may be led to the new one
    /// before: it waits for no standby of its own.
    async fn fail_over(&mut self, freeze: bool) -> Result<PgNode> {
        let next = self.standby.take().context("there is no standby to fail over to")?;
        if freeze {
            self.primary.freeze().await?;
        } else {
            self.primary.kill().await?;
        }
        next.promote().await?;
        Ok(std::mem::replace(&mut self.primary, next))
    }

    /// Gives the primary a standby that has every commit before it is acknowledged.
    async fn follow(&mut self) -> Result<()> {
        self.standby = Some(PgNode::standby_of(&self.primary).await?);
        self.primary.wait_for_standby(true).await
    }
}
