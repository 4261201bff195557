//! Where the proxy listens: on loopback or on a Unix socket, for whoever reaches it acts with the token.

use std::{
    fs, io,
    net::{IpAddr, SocketAddr},
    os::unix::{fs::FileTypeExt as _, net::UnixStream as StdUnixStream},
    path::{Path, PathBuf},
};

use rustix::{fs::Mode, process::umask};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket, UnixListener},
};

use crate::failure::Failure;

/// More than one burst of programs brings.
const BACKLOG: u32 = 1024;

/// The open door.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener, SocketAddr),
    Unix(UnixListener, PathBuf),
}

/// Bytes in both directions.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// By which names requests may call the proxy. A page in a browser can make its own name lead to loopback (DNS rebinding),
/// but the browser then says that name.
#[derive(Clone, Debug)]
pub(super) enum HostRule {
    /// There is no name, or there are names that we do not know.
    Any,
    /// This address, and `localhost`.
    Only(SocketAddr),
}

impl Listener {
    pub(super) fn bind(place: &str, allow_remote: bool) -> Result<Self, Failure> {
        let cannot = |error: io::Error| Failure::Other(format!("cannot listen on {place}: {error}; see --listen"), 1);
        if let Some(path) = place.strip_prefix("unix:") {
            return bind_unix(Path::new(path)).map_err(cannot);
        }
        let wrong = || Failure::Usage(format!("{place:?} is no place to listen; write ADDRESS:PORT or unix:PATH"));
        let address: SocketAddr = place.replacen("localhost:", "127.0.0.1:", 1).parse().map_err(|_| wrong())?;
        if !address.ip().is_loopback() && !allow_remote {
            let text = format!(
                "{place} can be reached from other machines, which would act with the token; if that is meant, say --allow-remote"
            );
            return Err(Failure::Usage(text));
        }
        bind_tcp(address).map_err(cannot)
    }

    /// For people and programs: what to connect to.
    pub(super) fn address(&self) -> String {
        match self {
            Self::Tcp(_, address) => format!("http://{address}"),
            Self::Unix(_, path) => format!("unix:{}", path.display()),
        }
    }

    pub(super) fn host_rule(&self) -> HostRule {
        match self {
            Self::Tcp(_, address) if address.ip().is_loopback() => HostRule::Only(*address),
            _ => HostRule::Any,
        }
    }

    pub(super) async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        match self {
            Self::Tcp(listener, _) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
            Self::Unix(listener, _) => Ok(Box::new(listener.accept().await?.0)),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix(_, path) = self {
            // If it is gone already, all is well.
            let _ = fs::remove_file(path);
        }
    }
}

impl HostRule {
    /// Whether a request for this host may go on.
    pub(super) fn allows(&self, host: Option<&str>) -> bool {
        let Self::Only(address) = self else { return true };
        let Some(host) = host else { return false };
        let names = [address.ip().to_string(), format!("[{}]", address.ip()), "localhost".into()];
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => (name, port.parse().ok()),
            _ => (host, Some(80)),
        };
        let is_bare = matches!(address.ip(), IpAddr::V6(_)) && !name.starts_with('[') && name != "localhost";
        port == Some(address.port()) && !is_bare && names.iter().any(|known| known.eq_ignore_ascii_case(name))
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<Listener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let listener = socket.listen(BACKLOG)?;
    let address = listener.local_addr()?;
    Ok(Listener::Tcp(listener, address))
}

fn bind_unix(path: &Path) -> io::Result<Listener> {
    // One that a killed process left behind answers nobody.
    let is_socket = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    if is_socket && StdUnixStream::connect(path).is_err() {
        fs::remove_file(path)?;
    }
    // From the first moment on it is its owner's alone.
    let before = umask(Mode::from_raw_mode(0o177));
    let bound = UnixListener::bind(path);
    umask(before);
    Ok(Listener::Unix(bound?, path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_must_name_the_address_that_is_listened_on() {
        let rule = HostRule::Only("127.0.0.1:8080".parse().unwrap());
        assert!(rule.allows(Some("127.0.0.1:8080")) && rule.allows(Some("LOCALHOST:8080")));
        for host in
            [None, Some("evil.example:8080"), Some("127.0.0.1"), Some("127.0.0.1:81"), Some("evil.example"), Some("")]
        {
            assert!(!rule.allows(host), "{host:?}");
        }
        let rule = HostRule::Only("[::1]:80".parse().unwrap());
        assert!(rule.allows(Some("[::1]")) && rule.allows(Some("[::1]:80")) && rule.allows(Some("localhost")));
        assert!(!rule.allows(Some("::1:80")) && !rule.allows(Some("[::2]:80")));
    }

    #[test]
    fn other_machines_are_let_in_only_when_told_to() {
        let failure = Listener::bind("0.0.0.0:0", false).unwrap_err().to_string();
        assert!(failure.contains("--allow-remote"), "{failure}");
        assert!(Listener::bind("nonsense", true).unwrap_err().to_string().contains("ADDRESS:PORT"));
    }
}
