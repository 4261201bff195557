//! A Postgres to test with, wherever one can be had: named by the environment, in a container, or thrown away after use.

use std::{
    process::id,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context as _, bail};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, postgres::PgConnectOptions};
use tokio::sync::OnceCell;
use url::Url;

use self::{cluster::Cluster, container::Container};

pub(crate) mod cluster;
mod container;
mod node;
mod own;

pub use self::{node::PgNode, own::OwnPostgres};

/// Names the server to test with: a URL of a role that may create databases.
const VARIABLE: &str = "TOKENCACHE_TEST_POSTGRES";

/// All databases that are made here begin with this.
const PREFIX: &str = "tokencache_test_";

/// Databases that an earlier run left behind on a server that lives on are dropped at this age.
const STALE: Duration = Duration::from_secs(60 * 60);

static SHARED: OnceCell<Postgres> = OnceCell::const_new();
static NEXT_DATABASE: AtomicU32 = AtomicU32::new(0);

/// A Postgres server that lasts as long as the process, however that ends. All who start one in a process share it.
#[derive(Debug)]
pub struct Postgres {
    /// Of the database that is there from the beginning; without a password.
    url: Url,
    password: Option<String>,
    _server: Server,
}

/// What ends the server when the process ends.
#[derive(Debug)]
enum Server {
    Named,
    InContainer { _container: Box<Container> },
    ThrownAway { _cluster: Cluster },
}

impl Postgres {
    /// The server of this process, started by the first caller. It is, in this order:
    /// - the one that `TOKENCACHE_TEST_POSTGRES` names;
    /// - a container, where a Docker engine answers and has or gets the image;
    /// - a throw-away cluster from the binaries on this machine: `postgres` on the PATH, or the newest under
    ///   `/usr/lib/postgresql`.
    ///
    /// # Errors
    ///
    /// If there is none of them; the text says what to install.
    pub async fn start() -> anyhow::Result<&'static Self> {
        SHARED.get_or_try_init(Self::find).await
    }

    /// A new, empty database: its URL, without the password.
    ///
    /// # Errors
    ///
    /// If the server refuses.
    pub async fn new_database(&self) -> anyhow::Result<String> {
        let mut admin = self.connect().await?;
        let now: i64 = sqlx::query_scalar("SELECT extract(epoch FROM now())::bigint").fetch_one(&mut admin).await?;
        let name = format!("{PREFIX}{now}_{}_{}", id(), NEXT_DATABASE.fetch_add(1, Ordering::Relaxed));
        // template0 takes no connections, so that copies of it can be made at the same time.
        let create = format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'");
        sqlx::raw_sql(AssertSqlSafe(create)).execute(&mut admin).await.context("cannot create a database")?;
        admin.close().await?;
        let mut url = self.url.clone();
        url.set_path(&name);
        Ok(url.into())
    }

    /// The password of the role in the URLs, if it needs one.
    #[must_use]
    pub fn password(&self) -> Option<&str> {
        self.password.as_deref()
    }

    async fn find() -> anyhow::Result<Self> {
        if let Ok(url) = std::env::var(VARIABLE) {
            return Self::named(&url).await.with_context(|| format!("cannot use the server of {VARIABLE}"));
        }
        let no_container = match Container::start().await {
            Ok((container, url)) => return Self::local(&url, Server::InContainer { _container: Box::new(container) }),
            Err(error) => error,
        };
        match Cluster::start().await {
            Ok((cluster, url)) => Self::local(&url, Server::ThrownAway { _cluster: cluster }),
            Err(no_cluster) => bail!(
                "there is no Postgres to test with: install it (on Debian and Ubuntu: apt-get install postgresql), start \
                 a Docker engine, or set {VARIABLE} to postgres://user:password@host/database of a role that may create \
                 databases\n  container: {no_container:#}\n  local binaries: {no_cluster:#}"
            ),
        }
    }

    async fn named(url: &str) -> anyhow::Result<Self> {
        let mut url: Url = url.parse()?;
        let password = url.password().map(percent_decoded).transpose()?;
        url.set_password(None).ok().context("the URL has no host")?;
        let server = Self { url, password, _server: Server::Named };
        server.drop_stale_databases().await?;
        Ok(server)
    }

    fn local(url: &str, server: Server) -> anyhow::Result<Self> {
        Ok(Self { url: url.parse()?, password: None, _server: server })
    }

    async fn connect(&self) -> anyhow::Result<PgConnection> {
        let mut options: PgConnectOptions = self.url.as_str().parse()?;
        if let Some(password) = &self.password {
            options = options.password(password);
        }
        PgConnection::connect_with(&options).await.context("cannot connect to the Postgres of the tests")
    }

    async fn drop_stale_databases(&self) -> anyhow::Result<()> {
        let mut admin = self.connect().await?;
        let stale: Vec<String> = sqlx::query_scalar(
            "SELECT datname FROM pg_database WHERE datname ~ ('^' || $1 || '[0-9]+_[0-9]+_[0-9]+$') \
             AND split_part(datname, '_', 3)::bigint < extract(epoch FROM now()) - $2",
        )
        .bind(PREFIX)
        .bind(i64::try_from(STALE.as_secs())?)
        .fetch_all(&mut admin)
        .await?;
        for name in stale {
            // Another run may be dropping it, too, or may be using it still.
            let _ = sqlx::raw_sql(AssertSqlSafe(format!("DROP DATABASE IF EXISTS {name}"))).execute(&mut admin).await;
        }
        Ok(admin.close().await?)
    }
}

fn percent_decoded(text: &str) -> anyhow::Result<String> {
    // Percent-decoding is what form-decoding does, apart from the plus sign.
    let form = format!("x={}", text.replace('+', "%2B"));
    let decoded = url::form_urlencoded::parse(form.as_bytes()).next().context("an empty password")?;
    Ok(decoded.1.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_decoded() {
        assert_eq!(percent_decoded("a+b%20%C3%A9%25%26=").ok().as_deref(), Some("a+b é%&="));
    }

    #[tokio::test]
    async fn each_database_is_another_one() {
        let server = Postgres::start().await.expect("a server");
        let (one, other) =
            (server.new_database().await.expect("a database"), server.new_database().await.expect("one"));
        assert_ne!(one, other);
        let mut options: PgConnectOptions = one.parse().expect("a URL");
        if let Some(password) = server.password() {
            options = options.password(password);
        }
        let mut connection = PgConnection::connect_with(&options).await.expect("it can be used");
        let name: String =
            sqlx::query_scalar("SELECT current_database()::text").fetch_one(&mut connection).await.expect("an answer");
        assert!(one.ends_with(&name), "{one} {name}");
    }
}
