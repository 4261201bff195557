//! Where the broker is, and who calls it: flags come before the environment, the environment before the file.

use std::{
    env,
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use tokencache_client::{Builder, DEFAULT_DEADLINE, DEFAULT_ENDPOINT};

use crate::{args::Connection, failure::Failure};

/// Where the admin API is unless told otherwise.
const DEFAULT_ADMIN_ENDPOINT: &str = "http://127.0.0.1:50052";

/// What holds for this run.
#[derive(Debug, Default)]
pub(crate) struct Settings(Connection);

/// The configuration file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    addr: Option<String>,
    admin_addr: Option<String>,
    timeout: Option<String>,
    ca_file: Option<PathBuf>,
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    server_name: Option<String>,
    token_file: Option<PathBuf>,
}

impl Settings {
    /// Completes what the arguments and the environment say with the file and the defaults.
    pub(crate) fn load(said: &Connection) -> Result<Self, Failure> {
        let said = without_empty(said.clone());
        let file = match &said.config {
            Some(path) => File::read(path)?.ok_or_else(|| wrong(path, "there is no such file; see --config"))?,
            None => match default_file(|name| env::var_os(name)) {
                Some(path) => File::read(&path)?.unwrap_or_default(),
                None => Connection::default(),
            },
        };
        let settings = Self(merge(said, file));
        if settings.0.cert_file.is_some() != settings.0.key_file.is_some() {
            return Err(Failure::Usage(
                "a certificate needs its key and a key its certificate; say both --cert-file and --key-file".into(),
            ));
        }
        Ok(settings)
    }

    /// Where the client API is.
    pub(crate) fn endpoints(&self) -> Vec<&str> {
        self.0.addr.as_deref().map_or_else(|| vec![DEFAULT_ENDPOINT], replicas)
    }

    /// Where the admin API may be, to be tried in this order; each with its replicas.
    pub(crate) fn admin_endpoints(&self) -> Vec<Vec<&str>> {
        match self.0.admin_addr.as_deref().or(self.0.addr.as_deref()) {
            Some(addr) => vec![replicas(addr)],
            None => vec![vec![DEFAULT_ADMIN_ENDPOINT], vec![DEFAULT_ENDPOINT]],
        }
    }

    /// Adds to a builder all but where the broker is.
    pub(crate) fn build(&self, mut builder: Builder) -> Builder {
        let Connection { timeout, ca_file, cert_file, key_file, server_name, token_file, .. } = &self.0;
        builder = builder.deadline(timeout.unwrap_or(DEFAULT_DEADLINE));
        if let Some(file) = ca_file {
            builder = builder.ca_file(file);
        }
        if let (Some(chain), Some(key)) = (cert_file, key_file) {
            builder = builder.client_certificate(chain, key);
        }
        if let Some(name) = server_name {
            builder = builder.server_name(name);
        }
        if let Some(file) = token_file {
            builder = builder.bearer_token_file(file);
        }
        builder
    }
}

impl File {
    /// `None`: there is no file.
    fn read(path: &Path) -> Result<Option<Connection>, Failure> {
        match fs::read_to_string(path) {
            Ok(text) => Self::parse(&text, path).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(wrong(path, error)),
        }
    }

    fn parse(text: &str, path: &Path) -> Result<Connection, Failure> {
        // The text itself is not shown: somebody may have put a secret into it.
        let file: Self = toml::from_str(text).map_err(|error| match error.span() {
            Some(span) => {
                let line = text[..span.start.min(text.len())].matches('\n').count() + 1;
                wrong(path, format!("line {line}: {}", error.message().replace('\n', " ")))
            }
            None => wrong(path, error.message()),
        })?;
        let timeout = file.timeout.as_deref().map(|text| {
            humantime::parse_duration(text)
                .map_err(|error| wrong(path, format!("timeout: {error}; write e.g. \"15s\"")))
        });
        // Paths are seen from the file.
        let beside =
            |file: Option<PathBuf>| file.map(|file| path.parent().map_or_else(|| file.clone(), |at| at.join(&file)));
        Ok(Connection {
            addr: file.addr,
            admin_addr: file.admin_addr,
            timeout: timeout.transpose()?,
            ca_file: beside(file.ca_file),
            cert_file: beside(file.cert_file),
            key_file: beside(file.key_file),
            server_name: file.server_name,
            token_file: beside(file.token_file),
            config: None,
        })
    }
}

fn wrong(path: &Path, what: impl std::fmt::Display) -> Failure {
    Failure::Usage(format!("the configuration file {}: {what}", path.display()))
}

/// Where the file is unless it was said.
fn default_file(env: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let directory = |name| env(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = directory("XDG_CONFIG_HOME").or_else(|| directory("HOME").map(|home| home.join(".config")))?;
    Some(base.join("tokencache/config.toml"))
}

/// Replicas with commas between.
fn replicas(addr: &str) -> Vec<&str> {
    addr.split(',').map(str::trim).filter(|replica| !replica.is_empty()).collect()
}

/// An empty variable says nothing.
fn without_empty(said: Connection) -> Connection {
    let text = |text: Option<String>| text.filter(|text| !replicas(text).is_empty());
    let path = |path: Option<PathBuf>| path.filter(|path| !path.as_os_str().is_empty());
    Connection {
        addr: text(said.addr),
        admin_addr: text(said.admin_addr),
        timeout: said.timeout,
        ca_file: path(said.ca_file),
        cert_file: path(said.cert_file),
        key_file: path(said.key_file),
        server_name: text(said.server_name),
        token_file: path(said.token_file),
        config: path(said.config),
    }
}

fn merge(said: Connection, file: Connection) -> Connection {
    let file = without_empty(file);
    // The file's admin API belongs to the file's broker, and a key to its certificate.
    let admin_addr = said.admin_addr.or(if said.addr.is_none() { file.admin_addr } else { None });
    let (cert_file, key_file) = match (said.cert_file, said.key_file) {
        (None, None) => (file.cert_file, file.key_file),
        said => said,
    };
    Connection {
        addr: said.addr.or(file.addr),
        admin_addr,
        timeout: said.timeout.or(file.timeout),
        ca_file: said.ca_file.or(file.ca_file),
        cert_file,
        key_file,
        server_name: said.server_name.or(file.server_name),
        token_file: said.token_file.or(file.token_file),
        config: said.config,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn parse(text: &str) -> Result<Connection, String> {
        File::parse(text, Path::new("/etc/t.toml")).map_err(|failure| failure.to_string())
    }

    #[test]
    fn the_admin_api_is_where_it_was_said_to_be_or_else_with_the_client_api() {
        let endpoints = |addr: Option<&str>, admin_addr: Option<&str>| {
            let said = Connection {
                addr: addr.map(Into::into),
                admin_addr: admin_addr.map(Into::into),
                ..Connection::default()
            };
            let settings = Settings(said);
            settings.admin_endpoints().concat().join(" ")
        };
        assert_eq!(endpoints(None, None), "http://127.0.0.1:50052 http://127.0.0.1:50051");
        assert_eq!(endpoints(Some("unix:a"), None), "unix:a");
        assert_eq!(endpoints(Some("unix:a, unix:c"), Some("unix:b")), "unix:b");
        assert_eq!(endpoints(Some("unix:a, unix:c"), None), "unix:a unix:c");
    }

    #[test]
    fn what_was_said_comes_before_the_file() {
        let file = parse("addr = 'unix:file'\nadmin_addr = 'unix:admin'\ntimeout = '3s'\nca_file = 'ca.pem'").unwrap();
        assert_eq!(file.ca_file.as_deref(), Some(Path::new("/etc/ca.pem")));
        let all = merge(Connection::default(), file.clone());
        assert_eq!((all.admin_addr.as_deref(), all.timeout), (Some("unix:admin"), Some(Duration::from_secs(3))));
        let said = Connection { addr: Some("unix:said".into()), ..Connection::default() };
        let some = merge(said, file);
        assert_eq!((some.addr.as_deref(), some.admin_addr), (Some("unix:said"), None));
    }

    #[test]
    fn a_mistake_in_the_file_is_told_with_its_place_and_without_its_text() {
        let message = parse("\naddress = 's3cr3t'").unwrap_err();
        assert!(
            message.starts_with("the configuration file /etc/t.toml: line 2: unknown field `address`"),
            "{message}"
        );
        assert!(!message.contains("s3cr3t"), "{message}");
        let message = parse("timeout = '3'").unwrap_err();
        assert!(message.contains("/etc/t.toml: timeout: ") && message.contains("15s"), "{message}");
    }

    #[test]
    fn the_file_is_where_xdg_says() {
        let find = |xdg: &str, home: &str| default_file(|name| Some(if name == "HOME" { home } else { xdg }.into()));
        assert_eq!(find("/x", "/h"), Some("/x/tokencache/config.toml".into()));
        assert_eq!(find("", "/h"), Some("/h/.config/tokencache/config.toml".into()));
        assert_eq!(find("relative", ""), None);
    }
}
