//! Postgres in a container, where a Docker engine answers.

use std::{
    io::{Read, Write},
    net::{TcpStream, ToSocketAddrs as _},
    os::unix::{net::UnixStream, process::CommandExt as _},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::Context as _;
use testcontainers_modules::{
    postgres::Postgres as Image,
    testcontainers::{ContainerAsync, ImageExt as _, runners::AsyncRunner as _},
};

/// The version that Debian 12 has, which the throw-away cluster most often is.
const TAG: &str = "15";

/// How long an engine may take to say that it is there.
const PING_LIMIT: Duration = Duration::from_secs(2);

/// How long the image may take to arrive and the server to start.
const START_LIMIT: Duration = Duration::from_secs(180);

/// Removes a container when its standard input ends, that is when the process of the tests does.
const WATCHDOG: &str = "read -r _; docker rm --force --volumes \"$1\" || \
    curl --silent --request DELETE --unix-socket /var/run/docker.sock \"http://docker/containers/$1?force=1&v=1\"";

/// A container that is removed when the process ends.
#[derive(Debug)]
pub(super) struct Container {
    _container: ContainerAsync<Image>,
    _watchdog: Child,
}

impl Container {
    /// Starts one; its URL, too.
    pub(super) async fn start() -> anyhow::Result<(Self, String)> {
        tokio::task::spawn_blocking(ping).await??;
        let image = Image::default().with_host_auth().with_tag(TAG);
        let container = tokio::time::timeout(START_LIMIT, image.start()).await.context("the container is slow")??;
        let watchdog = Command::new("sh")
            .args(["-c", WATCHDOG, "sh", container.id()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("cannot run sh")?;
        let (host, port) = (container.get_host().await?, container.get_host_port_ipv4(5432).await?);
        let url = format!("postgres://postgres@{host}:{port}/postgres");
        Ok((Self { _container: container, _watchdog: watchdog }, url))
    }
}

/// Asks the engine whether it is there, so that no time is lost where none is.
fn ping() -> anyhow::Result<()> {
    let host = std::env::var("DOCKER_HOST").unwrap_or_default();
    if let Some(address) = host.strip_prefix("tcp://") {
        let address = address.to_socket_addrs()?.next().context("DOCKER_HOST names no address")?;
        let stream = TcpStream::connect_timeout(&address, PING_LIMIT)?;
        stream.set_read_timeout(Some(PING_LIMIT))?;
        return ping_over(stream);
    }
    let rootless = std::env::var_os("XDG_RUNTIME_DIR").map(|directory| PathBuf::from(directory).join("docker.sock"));
    let named = host.strip_prefix("unix://").map(PathBuf::from);
    let paths = named.map_or_else(
        || [Some("/var/run/docker.sock".into()), rootless].into_iter().flatten().collect(),
        |path| vec![path],
    );
    let path = paths.iter().find(|path| path.exists()).context("there is no socket of a Docker engine")?;
    let stream = UnixStream::connect(path).context("no Docker engine answers")?;
    stream.set_read_timeout(Some(PING_LIMIT))?;
    ping_over(stream)
}

fn ping_over(mut stream: impl Read + Write) -> anyhow::Result<()> {
    stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n")?;
    let mut status = [0; 12];
    stream.read_exact(&mut status).context("no Docker engine answers")?;
    anyhow::ensure!(status.ends_with(b" 200"), "the Docker engine is not well");
    Ok(())
}
