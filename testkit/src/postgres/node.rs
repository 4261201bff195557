//! A Postgres server that can be hurt: one data directory at one port, whose process stops, crashes, is promoted and
//! starts again.

use std::{os::unix::fs::chown, path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context as _, bail, ensure};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::{sleep, timeout},
};

use super::cluster::{Account, account, binaries, command};
use crate::steady_ports;

/// Starts the server when it reads `start`, and says its id; waits for its end when it reads `reap`. When its input ends,
/// which even a SIGKILL of this process brings about, it ends the server at once and removes everything.
const KEEPER: &str = r#"dir=$1; shift
while read -r word; do
    case $word in
        start) "$@" >>"$dir/log" 2>&1 </dev/null & server=$!; echo "$server" ;;
        reap) wait "$server"; server=; echo ended ;;
    esac
done
if [ -n "$server" ]; then kill -CONT "$server"; kill -QUIT "$server"; wait "$server"; fi
cd / && rm -rf "$dir""#;

/// Commits are written before they are acknowledged, so that they outlive a crash of the server; of the machine they do
/// not. A standby that was away finds what it missed.
const SETTINGS: [&str; 8] = [
    "listen_addresses=127.0.0.1",
    "max_connections=200",
    "fsync=off",
    "synchronous_commit=on",
    "wal_keep_size=1GB",
    "wal_retrieve_retry_interval=300ms",
    "shared_buffers=32MB",
    "log_min_messages=warning",
];

/// How long a server may take to start, a standby to follow, a promotion to take effect.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long an orderly shutdown may take before the server is killed.
const SHUTDOWN: Duration = Duration::from_secs(15);

const POLL: Duration = Duration::from_millis(50);

/// A server of the binaries on this machine. Dropped, it ends, and its data are removed.
#[derive(Debug)]
pub struct PgNode {
    binaries: PathBuf,
    directory: PathBuf,
    account: Option<Account>,
    port: u16,
    server: Option<u32>,
    orders: Option<ChildStdin>,
    answers: Option<Lines<BufReader<ChildStdout>>>,
    _keeper: Child,
}

impl PgNode {
    /// Whether the binaries are on this machine, with an account that may run them.
    ///
    /// # Errors
    ///
    /// What is missing.
    pub fn available() -> anyhow::Result<()> {
        binaries()?;
        account()?;
        Ok(())
    }

    /// A new, empty server that takes writes, running. Commits do not wait for a standby.
    ///
    /// # Errors
    ///
    /// If there are no binaries, or they refuse.
    pub async fn primary() -> anyhow::Result<Self> {
        let mut node = Self::prepare()?;
        let mut initdb = node.command("initdb");
        initdb.arg("--pgdata").arg(node.directory.join("data"));
        initdb.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]);
        succeed("initdb", &mut initdb).await?;
        node.start().await?;
        Ok(node)
    }

    /// A copy of another server that follows it as a hot standby, running.
    ///
    /// # Errors
    ///
    /// If the other one gives no copy, or this one does not follow it.
    pub async fn standby_of(primary: &Self) -> anyhow::Result<Self> {
        let mut node = Self::prepare()?;
        let mut copy = node.command("pg_basebackup");
        copy.args(["--host=127.0.0.1", "--username=postgres", "--write-recovery-conf", "--checkpoint=fast"]);
        copy.args(["--no-sync", "--no-manifest", "--port", &primary.port.to_string()]);
        copy.arg("--pgdata").arg(node.directory.join("data"));
        succeed("pg_basebackup", &mut copy).await?;
        node.start().await?;
        primary.followed().await?;
        Ok(node)
    }

    /// Its port of loopback, which stays the same.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL of one of its databases.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// The process of the server, which is the parent of all its others; `None` while it is down.
    #[must_use]
    pub fn server(&self) -> Option<u32> {
        self.server
    }

    /// Starts the server, and waits until it answers.
    ///
    /// # Errors
    ///
    /// If it runs already, or does not start.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        ensure!(self.server.is_none(), "the server at {} runs already", self.port);
        self.order("start").await?;
        self.server = Some(self.answer().await?.parse().context("the keeper told no process")?);
        let answering = async {
            while self.connect().await.is_err() {
                sleep(POLL).await;
            }
        };
        if timeout(PATIENCE, answering).await.is_err() {
            let log = tokio::fs::read_to_string(self.directory.join("log")).await.unwrap_or_default();
            let end: Vec<&str> = log.lines().rev().take(5).collect();
            bail!("the server at {} does not answer; its last words, latest first: {end:?}", self.port);
        }
        Ok(())
    }

    /// Ends the server in order: connections are closed, nothing is lost.
    ///
    /// # Errors
    ///
    /// If it cannot be signalled.
    pub async fn shut_down(&mut self) -> anyhow::Result<()> {
        let Some(server) = self.server else { return Ok(()) };
        signal("INT", &[server]).await?;
        self.order("reap").await?;
        if timeout(SHUTDOWN, self.answer()).await.is_err() {
            // It may be waiting for a standby that does not listen.
            signal("KILL", &self.processes()).await?;
            self.answer().await?;
        }
        self.server = None;
        Ok(())
    }

    /// Ends all processes of the server with SIGKILL.
    ///
    /// # Errors
    ///
    /// If they cannot be signalled.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        let Some(server) = self.server else { return Ok(()) };
        // The first one first: it starts no others then.
        signal("STOP", &[server]).await?;
        let processes = self.processes();
        signal("KILL", &processes).await?;
        self.order("reap").await?;
        self.answer().await?;
        // The others hold the memory that the next start wants to have for itself.
        while processes.iter().skip(1).any(|id| parent(*id).is_some()) {
            sleep(POLL).await;
        }
        self.server = None;
        Ok(())
    }

    /// Stops all processes of the server where they stand.
    ///
    /// # Errors
    ///
    /// If they cannot be signalled.
    pub async fn freeze(&self) -> anyhow::Result<()> {
        let Some(server) = self.server else { return Ok(()) };
        signal("STOP", &[server]).await?;
        signal("STOP", &self.processes()).await
    }

    /// Lets all processes of the server go on.
    ///
    /// # Errors
    ///
    /// If they cannot be signalled.
    pub async fn thaw(&self) -> anyhow::Result<()> {
        let mut processes = self.processes();
        processes.reverse();
        signal("CONT", &processes).await
    }

    /// Kills one of the server's backends: the server ends all others and recovers from its log, as after a crash.
    ///
    /// # Errors
    ///
    /// If it has no connection to give, or is no longer this one's.
    pub async fn crash(&self) -> anyhow::Result<()> {
        let mut connection = self.connect().await?;
        let backend: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut connection).await?;
        let backend = u32::try_from(backend)?;
        // Its own connection's: that process is there for certain.
        ensure!(parent(backend) == self.server, "process {backend} is no backend of the server at {}", self.port);
        signal("KILL", &[backend]).await
    }

    /// Makes a standby take writes. Its commits do not wait for a standby of its own.
    ///
    /// # Errors
    ///
    /// If it is none, or does not become a primary in time.
    pub async fn promote(&self) -> anyhow::Result<()> {
        let mut connection = self.connect().await?;
        let promoted: bool = sqlx::query_scalar("SELECT pg_promote(true, 60)").fetch_one(&mut connection).await?;
        ensure!(promoted, "the standby at {} was not promoted", self.port);
        connection.close().await?;
        self.wait_for_standby(false).await
    }

    /// Whether commits are acknowledged only when the standby has them, too. Without a standby they hang then.
    ///
    /// # Errors
    ///
    /// If the server refuses.
    pub async fn wait_for_standby(&self, wait: bool) -> anyhow::Result<()> {
        let mut connection = self.connect().await?;
        let names = if wait { "*" } else { "" };
        let set = format!("ALTER SYSTEM SET synchronous_standby_names = '{names}'");
        sqlx::raw_sql(AssertSqlSafe(set)).execute(&mut connection).await?;
        sqlx::raw_sql("SELECT pg_reload_conf()").execute(&mut connection).await?;
        let took = async {
            loop {
                let now: String =
                    sqlx::query_scalar("SHOW synchronous_standby_names").fetch_one(&mut connection).await?;
                if now == names {
                    return anyhow::Ok(());
                }
                sleep(POLL).await;
            }
        };
        timeout(PATIENCE, took).await.context("the server does not take its setting")?
    }

    /// Waits until a standby has all that this server has.
    ///
    /// # Errors
    ///
    /// If none does in time.
    pub async fn followed(&self) -> anyhow::Result<()> {
        const CAUGHT_UP: &str = "SELECT count(*) FROM pg_stat_replication \
             WHERE state = 'streaming' AND flush_lsn >= pg_current_wal_flush_lsn()";
        let following = async {
            loop {
                if let Ok(mut connection) = self.connect().await {
                    let standbys: i64 = sqlx::query_scalar(CAUGHT_UP).fetch_one(&mut connection).await.unwrap_or(0);
                    if standbys > 0 {
                        return;
                    }
                }
                sleep(POLL).await;
            }
        };
        timeout(PATIENCE, following).await.with_context(|| format!("no standby follows the server at {}", self.port))
    }

    fn prepare() -> anyhow::Result<Self> {
        let (binaries, port) = (binaries()?, steady_ports(1)?[0]);
        let directory = tempfile::Builder::new().prefix("tokencache-postgres-").tempdir()?;
        let account = account()?;
        if let Some(Account { uid, gid }) = account {
            chown(directory.path(), Some(uid), Some(gid))?;
        }
        let mut keeper: Command = command("sh".as_ref(), account).into();
        keeper.args(["-c", KEEPER, "sh"]).arg(directory.path()).arg(binaries.join("postgres"));
        keeper.arg("-D").arg(directory.path().join("data")).arg("-k").arg(directory.path());
        keeper.args(["-p", &port.to_string()]).args(SETTINGS.iter().flat_map(|setting| ["-c", setting]));
        keeper.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        // A group of its own: Ctrl-C ends the run, and its end is what the keeper waits for.
        let mut keeper = keeper.current_dir(directory.path()).process_group(0).spawn().context("cannot run sh")?;
        let (orders, answers) = (keeper.stdin.take(), keeper.stdout.take());
        let answers = answers.map(|answers| BufReader::new(answers).lines());
        // The keeper removes the directory, after the server has left it.
        let directory = directory.keep();
        Ok(Self { binaries, directory, account, port, server: None, orders, answers, _keeper: keeper })
    }

    fn command(&self, name: &str) -> Command {
        let mut command: Command = command(&self.binaries.join(name), self.account).into();
        command.current_dir(&self.directory).stdin(Stdio::null());
        command
    }

    async fn connect(&self) -> anyhow::Result<PgConnection> {
        Ok(timeout(Duration::from_secs(5), PgConnection::connect(&self.url("postgres"))).await??)
    }

    async fn order(&mut self, word: &str) -> anyhow::Result<()> {
        let orders = self.orders.as_mut().context("the keeper has no input")?;
        orders.write_all(format!("{word}\n").as_bytes()).await.context("the keeper has ended")
    }

    async fn answer(&mut self) -> anyhow::Result<String> {
        let answers = self.answers.as_mut().context("the keeper has no output")?;
        answers.next_line().await?.context("the keeper has ended")
    }

    /// All processes of the server, the first one first.
    fn processes(&self) -> Vec<u32> {
        let Some(server) = self.server else { return vec![] };
        let ids = std::fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
        let ids = ids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        [server].into_iter().chain(ids.filter(|id| parent(*id) == Some(server))).collect()
    }
}

/// The parent of a process on this machine.
fn parent(process: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

/// Sends a signal to processes that this one started; those that are gone are no error.
async fn signal(name: &str, ids: &[u32]) -> anyhow::Result<()> {
    if ids.is_empty() {
        return Ok(());
    }
    let mut kill = Command::new("kill");
    kill.arg(format!("-{name}")).args(ids.iter().map(u32::to_string)).stderr(Stdio::null());
    kill.status().await.context("cannot run kill")?;
    Ok(())
}

async fn succeed(name: &str, command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().await.with_context(|| format!("cannot run {name}"))?;
    ensure!(output.status.success(), "{name} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn run(node: &PgNode, statement: &'static str) -> anyhow::Result<()> {
        let mut connection = node.connect().await?;
        sqlx::raw_sql(statement).execute(&mut connection).await?;
        Ok(())
    }

    async fn rows(node: &PgNode) -> i64 {
        let mut connection = node.connect().await.expect("it answers");
        sqlx::query_scalar("SELECT count(*) FROM kept").fetch_one(&mut connection).await.expect("a table")
    }

    #[tokio::test]
    #[ignore = "needs the binaries of Postgres: `cargo xtask test` runs it where they are"]
    async fn what_was_acknowledged_outlives_a_failover_and_the_old_primary_can_be_replaced() {
        let mut old = PgNode::primary().await.expect("a primary");
        let standby = PgNode::standby_of(&old).await.expect("a standby");
        old.wait_for_standby(true).await.expect("synchronous");
        run(&old, "CREATE TABLE kept (id int); INSERT INTO kept VALUES (1)").await.expect("acknowledged");
        assert!(run(&standby, "INSERT INTO kept VALUES (2)").await.is_err(), "a standby takes no writes");

        old.kill().await.expect("it is killed");
        assert!(old.connect().await.is_err());
        standby.promote().await.expect("promoted");
        assert_eq!(rows(&standby).await, 1);
        run(&standby, "INSERT INTO kept VALUES (2)").await.expect("it takes writes, and waits for nobody");

        let next = PgNode::standby_of(&standby).await.expect("the next standby");
        assert_eq!(rows(&next).await, 2);
    }

    #[tokio::test]
    #[ignore = "needs the binaries of Postgres: `cargo xtask test` runs it where they are"]
    async fn a_commit_waits_for_the_standby_and_a_server_starts_again_where_it_was() {
        let mut primary = PgNode::primary().await.expect("a primary");
        let mut standby = PgNode::standby_of(&primary).await.expect("a standby");
        primary.wait_for_standby(true).await.expect("synchronous");
        run(&primary, "CREATE TABLE kept (id int)").await.expect("acknowledged");
        standby.shut_down().await.expect("it ends");
        let hangs = timeout(Duration::from_millis(300), run(&primary, "INSERT INTO kept VALUES (1)")).await;
        assert!(hangs.is_err(), "nobody else has it yet");
        standby.start().await.expect("it starts");
        primary.followed().await.expect("it follows");
        run(&primary, "INSERT INTO kept VALUES (2)").await.expect("acknowledged");

        let port = primary.port();
        primary.shut_down().await.expect("it ends");
        primary.start().await.expect("it starts");
        assert_eq!((primary.port(), rows(&primary).await), (port, 2));
        primary.crash().await.expect("it crashes");
        primary.followed().await.expect("it recovers by itself");
    }
}
