//! What `serve --dev` adds to the broker: demo upstreams, a configuration for them, and a tour.
//!
//! All of it lives in one directory, which `rm -r` resets. The secrets in it derive from one random key, so that a second
//! run finds the upstream of the first: its tokens and its rotated refresh token are still good.

use std::{
    fs, io,
    io::Write as _,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rand::CryptoRng;
use zeroize::Zeroizing;

mod api;
mod oauth2;
mod tokens;
mod tour;
mod upstream;

use tokens::DemoKey;
pub use tour::tour;
pub use upstream::DemoUpstream;

/// The directory of dev mode, below the current one.
pub const DIRECTORY: &str = ".tokencache";

/// Where the demo upstream listens. Not a free port: a credential's tokens belong to its endpoints, and a second run
/// should find those of the first.
const UPSTREAM_PORT: u16 = 50053;

/// Where the demo upstream listens unless told otherwise.
#[must_use]
pub const fn default_upstream() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), UPSTREAM_PORT)
}

const KEY_FILE: &str = "demo-upstream.key";
const CLIENT_SECRET_FILE: &str = "demo.client-secret";
const REFRESH_TOKEN_FILE: &str = "demo.refresh-token";
const PASSWORD_FILE: &str = "demo.password";
const ENCRYPTION_KEY_FILE: &str = "encryption.key";

/// The directory of dev mode and what is in it.
#[derive(Debug)]
pub struct DevHome {
    path: PathBuf,
    key: DemoKey,
}

impl DevHome {
    /// Creates the directory and its files where they are missing: readable by their owner alone.
    ///
    /// # Errors
    ///
    /// If the directory cannot be written, or its key is none.
    pub fn prepare(path: &Path, rng: &mut impl CryptoRng) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
        let key_file = path.join(KEY_FILE);
        let key = match fs::read_to_string(&key_file) {
            Ok(text) => DemoKey::parse(text.trim()).ok_or_else(|| {
                let message = format!("{} is damaged; remove it to begin anew", key_file.display());
                io::Error::new(io::ErrorKind::InvalidData, message)
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key = DemoKey::generate(rng);
                write_private(&key_file, key.to_text().expose())?;
                key
            }
            Err(error) => return Err(error),
        };
        write_private(&path.join(CLIENT_SECRET_FILE), key.client_secret().expose())?;
        write_private(&path.join(REFRESH_TOKEN_FILE), key.first_refresh_token().expose())?;
        write_private(&path.join(PASSWORD_FILE), key.password().expose())?;
        let encryption_key = path.join(ENCRYPTION_KEY_FILE);
        if !encryption_key.exists() {
            let mut bytes = Zeroizing::new([0; 32]);
            rng.fill_bytes(&mut *bytes);
            write_private(&encryption_key, &Zeroizing::new(STANDARD.encode(*bytes)))?;
        }
        Ok(Self { path, key })
    }

    /// The directory, absolute.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The configuration of dev mode as TOML, to be read as if it stood in [`DevHome::path`].
#[must_use]
pub fn config(listen: SocketAddr, metrics: SocketAddr, upstream: SocketAddr) -> String {
    let base = format!("http://{upstream}");
    format!(
        r#"[server]
listen = "{listen}"
metrics_listen = "{metrics}"

[store]
url = "sqlite:tokencache.db"

[audit]
sinks = ["memory"]

[encryption]
active = "dev"
keys = {{ dev = {{ file = "{ENCRYPTION_KEY_FILE}" }} }}

[credentials.demo]
provider = "oauth2"
grant = "client_credentials"
issuer = "{base}"
client_id = "demo"
client_secret = {{ file = "{CLIENT_SECRET_FILE}" }}

[credentials.demo-rotating]
provider = "oauth2"
grant = "refresh_token"
token_url = "{base}/oauth2/token"
revocation_url = "{base}/oauth2/revoke"
client_id = "demo"
client_secret = {{ file = "{CLIENT_SECRET_FILE}" }}
refresh_token = {{ file = "{REFRESH_TOKEN_FILE}" }}
rotation = "strict"

[credentials.demo-session]
provider = "session"
login = {{ method = "POST", url = "{base}/login", json = {{ user = "demo", password = {{ file = "{PASSWORD_FILE}" }} }} }}
token = {{ json_pointer = "/session/id" }}
lifetime = {{ json_pointer = "/ttl_seconds" }}
token_type = "Session"
attributes = {{ instance_url = "/instance_url" }}
logout = {{ method = "POST", url = "{base}/logout" }}
"#
    )
}

/// Writes a file that its owner alone may read, whole or not at all.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let draft = path.with_added_extension("new");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(text.as_bytes())?;
    fs::rename(draft, path)
}

#[cfg(test)]
mod tests;
