//! A throw-away Postgres cluster from the binaries on this machine.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::{fs::chown, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::free_port;

/// Where Debian keeps the binaries of its versions.
const DEBIAN: &str = "/usr/lib/postgresql";

/// Runs the server as its child and ends it when the standard input ends: the writing end is held by the process of the
/// tests, so that even a SIGKILL of that closes it. A directory that is marked to be kept outlives its server.
const WATCHDOG: &str = r#"dir=$1; signal=$2; shift 2
"$@" >"$dir/log" 2>&1 </dev/null &
read -r _
kill -"$signal" $!
wait $!
[ -e "$dir/keep" ] || { cd / && rm -rf "$dir"; }"#;

/// Marks a directory that is to outlive its server.
pub(crate) const KEEP: &str = "keep";

/// Postgres' immediate shutdown.
const IMMEDIATE: &str = "QUIT";

/// How often a port that somebody else took is tried anew.
const ATTEMPTS: u32 = 5;

const POLL: Duration = Duration::from_millis(50);
const START_POLLS: u32 = 600;

/// A cluster that is removed when the process ends.
#[derive(Debug)]
pub(super) struct Cluster {
    _watchdog: Child,
}

/// The account that runs the server, which refuses root.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Account {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Cluster {
    /// Starts one; its URL, too.
    pub(super) async fn start() -> anyhow::Result<(Self, String)> {
        let (binaries, account) = (binaries()?, account()?);
        let directory = directory("postgres", account)?;
        initdb(&binaries, account, directory.path())?;
        for _ in 0..ATTEMPTS {
            let port = free_port()?;
            let mut watchdog = spawn(&binaries, account, directory.path(), port, false)?;
            if answers(&mut watchdog, directory.path(), port).await? {
                // The watchdog removes the directory, after the server has left it.
                let _ = directory.keep();
                return Ok((Self { _watchdog: watchdog }, format!("postgres://postgres@127.0.0.1:{port}/postgres")));
            }
        }
        bail!("the server found no free port in {ATTEMPTS} attempts")
    }
}

/// A directory of the account's own.
pub(crate) fn directory(what: &str, account: Option<Account>) -> anyhow::Result<TempDir> {
    let directory = tempfile::Builder::new().prefix(&format!("tokencache-{what}-")).tempdir()?;
    if let Some(Account { uid, gid }) = account {
        chown(directory.path(), Some(uid), Some(gid))?;
    }
    Ok(directory)
}

/// Makes an empty cluster in `data` of a directory.
pub(super) fn initdb(binaries: &Path, account: Option<Account>, directory: &Path) -> anyhow::Result<()> {
    let initdb = command(&binaries.join("initdb"), account)
        .arg("--pgdata")
        .arg(directory.join("data"))
        .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"])
        .current_dir(directory)
        .output()
        .context("cannot run initdb")?;
    ensure!(initdb.status.success(), "initdb failed: {}", String::from_utf8_lossy(&initdb.stderr).trim());
    Ok(())
}

/// Starts the server of the cluster in `data` of a directory; what is `durable` outlives a crash of the server, not of the
/// machine.
pub(super) fn spawn(
    binaries: &Path,
    account: Option<Account>,
    directory: &Path,
    port: u16,
    durable: bool,
) -> anyhow::Result<Child> {
    let settings = [
        "listen_addresses=127.0.0.1",
        "max_connections=200",
        "fsync=off",
        if durable { "synchronous_commit=on" } else { "synchronous_commit=off" },
        "full_page_writes=off",
    ];
    let mut server = vec![binaries.join("postgres").into_os_string(), "-D".into(), directory.join("data").into()];
    server.extend(["-k".into(), directory.into(), "-p".into(), port.to_string().into()]);
    server.extend(settings.iter().flat_map(|setting| ["-c".into(), (*setting).into()]));
    watched(account, directory, IMMEDIATE, &server)
}

/// Starts a program that ends, by a signal, when the watchdog's standard input does. It logs into its directory.
pub(crate) fn watched(
    account: Option<Account>,
    directory: &Path,
    signal: &str,
    program: &[OsString],
) -> anyhow::Result<Child> {
    // Until the new one begins to log, the words of the one before it would be taken for its own.
    match fs::remove_file(directory.join("log")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).context("cannot begin a new log"),
        _ => {}
    }
    let mut watchdog = command(Path::new("sh"), account);
    watchdog.args(["-c", WATCHDOG, "sh"]).arg(directory).arg(signal).args(program);
    watchdog.current_dir(directory).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    // A group of its own: Ctrl-C ends the tests, and their end is what it waits for.
    watchdog.process_group(0).spawn().context("cannot run sh")
}

/// Waits until the server accepts connections. False: its port is taken.
pub(super) async fn answers(watchdog: &mut Child, directory: &Path, port: u16) -> anyhow::Result<bool> {
    let log = directory.join("log");
    for _ in 0..START_POLLS {
        let text = fs::read_to_string(&log).unwrap_or_default();
        // A standby: "ready to accept read-only connections".
        if text.contains("system is ready to accept") && TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            return Ok(true);
        }
        let taken = text.contains("could not create any TCP/IP sockets");
        if taken || text.contains("FATAL") {
            // End it by hand: dropping its input would have the watchdog remove the directory.
            watchdog.kill()?;
            watchdog.wait()?;
            ensure!(taken, "the server does not start: {}", text.trim());
            return left(directory).await.map(|()| false);
        }
        tokio::time::sleep(POLL).await;
    }
    bail!("the server is not ready after {:?}", POLL * START_POLLS)
}

/// Waits until a server that found its port taken has left its directory: it takes its lock file away last, and until then
/// the next one does not start there.
async fn left(directory: &Path) -> anyhow::Result<()> {
    let lock = directory.join("data/postmaster.pid");
    for _ in 0..START_POLLS {
        if !lock.exists() {
            return Ok(());
        }
        tokio::time::sleep(POLL).await;
    }
    bail!("the server does not leave {}", lock.display())
}

/// The directory of `postgres` and `initdb`.
pub(super) fn binaries() -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // On the PATH there may be links, whose targets lie together.
    let linked = std::env::split_paths(&path).filter_map(|d| d.join("postgres").canonicalize().ok());
    let on_path = linked.filter_map(|binary| binary.parent().map(Path::to_owned));
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir(DEBIAN)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            Some((path.file_name()?.to_str()?.parse().ok()?, path.join("bin")))
        })
        .collect();
    versions.sort_unstable_by_key(|(version, _)| std::cmp::Reverse(*version));
    on_path
        .chain(versions.into_iter().map(|(_, directory)| directory))
        .find(|directory| directory.join("postgres").is_file() && directory.join("initdb").is_file())
        .with_context(|| format!("neither on the PATH nor under {DEBIAN} are there `postgres` and `initdb`"))
}

/// The account to change to: `postgres`, else `nobody`, if this process is root's.
pub(crate) fn account() -> anyhow::Result<Option<Account>> {
    use std::os::unix::fs::MetadataExt as _;
    // Of this process: its directory in /proc is its user's.
    if fs::metadata("/proc/self")?.uid() != 0 {
        return Ok(None);
    }
    let accounts = fs::read_to_string("/etc/passwd")?;
    let find = |name: &str| {
        let line = accounts.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some(Account { uid: fields.next()?.parse().ok()?, gid: fields.next()?.parse().ok()? })
    };
    let found = find("postgres").or_else(|| find("nobody"));
    found.map(Some).context("Postgres refuses to run as root, and there is no account `postgres`")
}

pub(super) fn command(program: &Path, account: Option<Account>) -> Command {
    let mut command = Command::new(program);
    if let Some(Account { uid, gid }) = account {
        // As root this drops the supplementary groups, too.
        command.uid(uid).gid(gid);
    }
    command.env("LC_ALL", "C");
    command
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_port_that_is_taken_costs_one_attempt() {
        let (binaries, account) = (binaries().expect("a Postgres"), account().expect("an account"));
        let directory = directory("taken", account).expect("a directory");
        initdb(&binaries, account, directory.path()).expect("a cluster");
        let taken = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        for _ in 0..5 {
            let port = taken.local_addr().expect("bound").port();
            let mut watchdog = spawn(&binaries, account, directory.path(), port, false).expect("started");
            assert!(!answers(&mut watchdog, directory.path(), port).await.expect("no other reason"));
        }
        let port = free_port().expect("a free port");
        let mut watchdog = spawn(&binaries, account, directory.path(), port, false).expect("started");
        assert!(answers(&mut watchdog, directory.path(), port).await.expect("it starts"));
        // Its end removes the directory.
        let _ = directory.keep();
    }
}
