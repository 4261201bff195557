//! Postgres, a throw-away cluster, with the keys in a table.

use std::process::id;

use anyhow::{Context as _, Result, ensure};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokencache_testkit::OwnPostgres;

use super::{Contender, Host, Language, Name};
use crate::{process::Family, upstream::TOKEN};

/// What is prepared.
pub(super) const SELECT: &str = "SELECT token FROM tokens WHERE key = $1";

pub(super) fn start(host: &Host) -> Result<Contender> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let server = host.on_server_core(|| runtime.block_on(OwnPostgres::start()))?;
    let address = ([127, 0, 0, 1], server.port()).into();
    let family = Family::below(id(), "postgres").context("there is no process of Postgres")?;
    runtime.block_on(fill(&server.url("postgres"), host.keys))?;
    let language = Language::Postgres { user: "postgres".into(), database: "postgres".into() };
    Ok(Contender { name: Name::Postgres, address, tls: None, language, family, _guard: Box::new(server) })
}

async fn fill(url: &str, keys: u32) -> Result<()> {
    let mut connection = PgConnection::connect(url).await?;
    let digits = "lpad(n::text, 8, '0')";
    let fill = format!(
        "CREATE TABLE tokens (key text PRIMARY KEY, token text NOT NULL);
         INSERT INTO tokens SELECT {digits}, rpad({digits}, {TOKEN}, '.') FROM generate_series(0, {keys} - 1) n;
         VACUUM ANALYZE tokens"
    );
    for statement in fill.split(';') {
        sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&mut connection).await?;
    }
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM tokens").fetch_one(&mut connection).await?;
    ensure!(count == i64::from(keys), "the table has {count} rows");
    Ok(connection.close().await?)
}
