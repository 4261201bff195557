//! `http = { … }` of a credential.

use std::{path::PathBuf, time::Duration};

use thiserror::Error;
use url::{Host, Url};

use super::{AddressClass, egress::Egress};
use crate::config::reader::Section;

/// The HTTP settings of a credential.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpSettings {
    /// The proxy; without it there is none, whatever the environment says.
    pub proxy: Option<Url>,
    /// Certificate authorities to trust besides the system's, PEM.
    pub ca_file: Option<PathBuf>,
    /// The client's certificate chain and its key, PEM.
    pub client_cert: Option<(PathBuf, PathBuf)>,
    /// How long a connection, TLS included, may take.
    pub connect_timeout: Duration,
    /// How long the whole exchange may take.
    pub timeout: Duration,
    /// Whether plain http is allowed to hosts other than loopback.
    pub allow_http: bool,
    /// Whether the server's certificate is verified.
    pub verify: bool,
    /// Where requests may go.
    pub egress: Egress,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            proxy: None,
            ca_file: None,
            client_cert: None,
            connect_timeout: Duration::from_secs(3),
            timeout: Duration::from_secs(10),
            allow_http: false,
            verify: true,
            egress: Egress::default(),
        }
    }
}

/// Why a URL may not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum InsecureUrl {
    /// It is plain http to somewhere else than this machine.
    #[error("plain http is allowed to loopback hosts only, unless `http = {{ allow_http = true }}` is set")]
    PlainHttp,
    /// It is neither http nor https.
    #[error("a URL here begins with https://")]
    Scheme,
    /// It has a user or a password.
    #[error("a URL must not carry a user or a password")]
    UserInfo,
    /// Its host ends with a dot, and would be another one to the lists and certificates that name it without.
    #[error("the host of a URL has no dot at its end")]
    TrailingDot,
    /// `allow_hosts` is set and does not have its host.
    #[error("`http.allow_hosts` does not have this host")]
    OtherHost,
    /// It leads to an address that has to be allowed.
    #[error("this is a {0} address, which only `http = {{ allow_addresses = [...] }}` of the credential can allow")]
    Address(AddressClass),
}

impl HttpSettings {
    /// Reads the key `http` of a credential, which may be absent.
    #[must_use]
    pub fn read(section: &Section<'_>) -> Self {
        let default = Self::default();
        let Some(http) = section.section("http") else { return default };
        let read = Self {
            proxy: http.url("proxy"),
            ca_file: http.path_of("ca_file"),
            client_cert: client_cert(&http),
            connect_timeout: duration(&http, "connect_timeout", default.connect_timeout),
            timeout: duration(&http, "timeout", default.timeout),
            allow_http: http.bool("allow_http").unwrap_or(default.allow_http),
            verify: http.bool("verify").unwrap_or(default.verify),
            egress: Egress::read(&http),
        };
        if read.proxy.as_ref().is_some_and(|proxy| !matches!(proxy.scheme(), "http" | "https") || has_user(proxy)) {
            http.problem_at("proxy", "a proxy is http:// or https://, without a user or a password");
        }
        if read.proxy.as_ref().is_some_and(has_trailing_dot) {
            http.problem_at("proxy", InsecureUrl::TrailingDot.to_string());
        }
        http.finish();
        // A connection that is not there in time proves that nothing was sent; the total must leave room to learn it.
        Self { connect_timeout: read.connect_timeout.min(read.timeout / 2), ..read }
    }

    /// The same settings for a credential whose configuration has these URLs. A special host in one of them (a literal
    /// address, `localhost`) is the operator's own word and allowed, exactly as it is written; other hosts, and what any
    /// name resolves to, are not touched.
    #[must_use]
    pub fn naming<'a>(mut self, urls: impl IntoIterator<Item = &'a Url>) -> Self {
        self.egress.name(urls);
        self
    }

    /// Whether a request may go there, wherever the URL came from. What its name resolves to is judged when it is.
    ///
    /// # Errors
    ///
    /// If it may not.
    pub fn check_target(&self, url: &Url) -> Result<(), InsecureUrl> {
        self.check_url(url)?;
        url.host().map_or(Ok(()), |host| self.egress.check_host(&host)).map_err(InsecureUrl::Address)
    }

    /// Whether a secret may be sent to a URL that the operator wrote.
    ///
    /// # Errors
    ///
    /// If it may not.
    pub fn check_url(&self, url: &Url) -> Result<(), InsecureUrl> {
        if has_user(url) {
            return Err(InsecureUrl::UserInfo);
        }
        if has_trailing_dot(url) {
            return Err(InsecureUrl::TrailingDot);
        }
        if !url.host().is_some_and(|host| self.egress.has_host(&host)) {
            return Err(InsecureUrl::OtherHost);
        }
        match url.scheme() {
            "https" => Ok(()),
            "http" if self.allow_http || is_loopback(url) => Ok(()),
            "http" => Err(InsecureUrl::PlainHttp),
            _ => Err(InsecureUrl::Scheme),
        }
    }

    /// Reads a URL to which a secret is sent.
    #[must_use]
    pub fn read_url(&self, section: &Section<'_>, key: &'static str) -> Option<Url> {
        let url = section.url(key)?;
        match self.check_url(&url) {
            Ok(()) => Some(url),
            Err(error) => {
                section.problem_at(key, error.to_string());
                None
            }
        }
    }

    /// What a person should hear about these settings, though they are followed.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let unverified = "http.verify = false: certificates are not verified, anybody on the way can read the secrets";
        let unverified = (!self.verify).then(|| unverified.into());
        unverified.into_iter().chain(self.egress.warnings()).collect()
    }
}

fn client_cert(http: &Section<'_>) -> Option<(PathBuf, PathBuf)> {
    match (http.path_of("client_cert_file"), http.path_of("client_key_file")) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        _ => {
            http.problem("`client_cert_file` and `client_key_file` go together");
            None
        }
    }
}

fn duration(section: &Section<'_>, key: &'static str, default: Duration) -> Duration {
    let duration = section.duration(key).unwrap_or(default);
    if duration.is_zero() {
        section.problem_at(key, "expected more than zero");
    }
    duration
}

fn has_user(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

fn has_trailing_dot(url: &Url) -> bool {
    url.host_str().is_some_and(|host| host.ends_with('.'))
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_loopback_or_by_explicit_permission() {
        let strict = HttpSettings::default();
        let lax = HttpSettings { allow_http: true, ..HttpSettings::default() };
        for url in [
            "http://127.0.0.1:1/",
            "http://127.9.9.9/",
            "http://[::1]/",
            "http://localhost:8080/x",
            "https://a.example/",
        ] {
            assert_eq!(strict.check_url(&Url::parse(url).unwrap()), Ok(()), "{url}");
        }
        for url in [
            "http://a.example/",
            "http://127.0.0.1.example/",
            "http://localhost.example/",
            "http://10.0.0.1/",
            "http://0.0.0.0/",
        ] {
            let url = Url::parse(url).unwrap();
            assert_eq!(strict.check_url(&url), Err(InsecureUrl::PlainHttp), "{url}");
            assert_eq!(lax.check_url(&url), Ok(()), "{url}");
        }
        assert_eq!(lax.check_url(&Url::parse("ftp://localhost/").unwrap()), Err(InsecureUrl::Scheme));
        assert_eq!(lax.check_url(&Url::parse("https://u:p@a.example/").unwrap()), Err(InsecureUrl::UserInfo));
    }
}
