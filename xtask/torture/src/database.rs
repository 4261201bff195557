//! The database of the run: what is in its tables, and how it crashes and stalls.
//!
//! One cluster for now. A standby and the failover to it belong here, beside [`Database::crash`].

use std::{fs, process, time::Duration};

use anyhow::{Context as _, Result};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};
use tokencache_testkit::Postgres;
use tokio::time::sleep;
use url::Url;

use crate::replica::signal;

/// A refresh token in the tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) credential: String,
    pub(crate) refresh: String,
    /// It is the one that would be used next.
    pub(crate) current: bool,
}

/// The database.
#[derive(Debug)]
pub(crate) struct Database {
    url: Url,
    /// The server's first process, if this run started it and may hurt it.
    postmaster: Option<u32>,
}

impl Database {
    /// An empty one, whose commits outlive a crash of the server.
    pub(crate) async fn create() -> Result<Self> {
        let server = Postgres::start().await?;
        anyhow::ensure!(server.password().is_none(), "the torture run needs a Postgres without a password");
        let url: Url = server.new_database().await?.parse()?;
        let mut connection = PgConnection::connect(url.as_str()).await?;
        // The cluster of the tests acknowledges commits before they are written: a crash would lose some of them.
        let name = url.path().trim_start_matches('/');
        let durable = format!("ALTER DATABASE {name} SET synchronous_commit = on");
        sqlx::raw_sql(AssertSqlSafe(durable)).execute(&mut connection).await?;
        let backend: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut connection).await?;
        connection.close().await?;
        let postmaster = u32::try_from(backend).ok().and_then(parent);
        Ok(Self { url, postmaster: postmaster.filter(|id| is_ours(*id)) })
    }

    /// Its host and port.
    pub(crate) fn address(&self) -> Result<(String, u16)> {
        let host = self.url.host_str().context("the database's URL has no host")?;
        Ok((host.to_owned(), self.url.port().unwrap_or(5432)))
    }

    /// Its URL by way of a port of loopback.
    pub(crate) fn through(&self, port: u16) -> Result<String> {
        let mut url = self.url.clone();
        url.set_host(Some("127.0.0.1"))?;
        url.set_port(Some(port)).ok().context("the database's URL takes no port")?;
        Ok(url.into())
    }

    /// Whether its processes are this run's own.
    pub(crate) fn can_be_hurt(&self) -> bool {
        self.postmaster.is_some()
    }

    /// Kills a backend: the server then ends all others and recovers from its log, as after a crash of its own.
    pub(crate) async fn crash(&self) -> Result<()> {
        let Some(postmaster) = self.postmaster else { return Ok(()) };
        let mut connection = PgConnection::connect(self.url.as_str()).await?;
        let backend: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut connection).await?;
        let backend = u32::try_from(backend)?;
        // Its own connection's: that process is there for certain.
        anyhow::ensure!(parent(backend) == Some(postmaster), "process {backend} is no backend of the run's server");
        signal("KILL", &[backend]).await?;
        drop(connection);
        Ok(())
    }

    /// Stops all processes of the server for a while.
    pub(crate) async fn pause(&self, pause: Duration) -> Result<()> {
        let Some(postmaster) = self.postmaster else { return Ok(()) };
        // The first one first: it starts no others then.
        signal("STOP", &[postmaster]).await?;
        let stopped: Vec<u32> = children(postmaster);
        signal("STOP", &stopped).await?;
        sleep(pause).await;
        signal("CONT", &stopped).await?;
        signal("CONT", &[postmaster]).await
    }

    /// How many tokens were minted and stored, for all keys together.
    pub(crate) async fn generations(&self) -> Result<i64> {
        let mut connection = PgConnection::connect(self.url.as_str()).await?;
        let sum = sqlx::query_scalar("SELECT coalesce(sum(generation), 0)::bigint FROM tokens");
        let sum = sum.fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok(sum)
    }

    /// Every refresh token in the tables.
    pub(crate) async fn refresh_tokens(&self) -> Result<Vec<Kept>> {
        let mut connection = PgConnection::connect(self.url.as_str()).await?;
        let rows = sqlx::query(
            "SELECT credential, refresh_token AS token, true AS current FROM grants \
             UNION ALL SELECT credential, previous, false FROM grants WHERE previous IS NOT NULL \
             UNION ALL SELECT credential, refresh_token, false FROM grant_candidates",
        );
        let rows = rows.fetch_all(&mut connection).await?;
        connection.close().await?;
        let kept = rows.into_iter().map(|row| {
            let refresh: Vec<u8> = row.try_get("token")?;
            let refresh = String::from_utf8_lossy(&refresh).into_owned();
            Ok(Kept { credential: row.try_get("credential")?, refresh, current: row.try_get("current")? })
        });
        kept.collect()
    }
}

/// The parent of a process on this machine.
fn parent(process: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

/// Whether a process descends from this one.
fn is_ours(process: u32) -> bool {
    let own = process::id();
    let ancestors = std::iter::successors(Some(process), |id| parent(*id).filter(|id| *id > 1));
    ancestors.skip(1).take(8).any(|id| id == own)
}

fn children(of: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter(|id| parent(*id) == Some(of)).collect()
}
