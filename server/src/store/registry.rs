//! The kinds of store, chosen by the scheme of a URL.

use std::{fmt, path::Path, sync::Arc};

use super::{DetachedTokenStore, MemoryTokenStore, PgTokenStore, SharedPassword, SharedStore, SqliteTokenStore};
use crate::{
    error::{Error, ErrorKind, Result},
    time::SharedClock,
};

/// Where the store is. It holds no password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreUrl {
    text: String,
    colon: usize,
}

impl StoreUrl {
    /// Reads `memory:`, `sqlite:PATH`, `postgres://user@host[:port]/database?…`, or what a plug-in's scheme demands.
    ///
    /// # Errors
    ///
    /// If there is no scheme, or a password: that is a secret, and secrets do not stand in a URL, which is logged.
    pub fn parse(text: &str) -> Result<Self> {
        let invalid = |what| Error::new(ErrorKind::Misconfigured, what);
        let colon = text.find(':').filter(|&colon| colon > 0).ok_or_else(|| {
            invalid("the store's URL has no scheme: it is like sqlite:PATH or postgres://user@host/database")
        })?;
        if has_password(text) {
            return Err(invalid(
                "the store's URL holds a password: give it as `password = { env = \"…\" }`, `{ file = \"…\" }` or \
                 `{ command = […] }` beside the URL",
            ));
        }
        Ok(Self { text: text.to_owned(), colon })
    }

    /// The part before the first colon.
    #[must_use]
    pub fn scheme(&self) -> &str {
        &self.text[..self.colon]
    }

    /// The part after the first colon.
    #[must_use]
    pub fn rest(&self) -> &str {
        &self.text[self.colon + 1..]
    }

    /// The whole.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Whether there is a password in the authority or among the parameters.
fn has_password(text: &str) -> bool {
    let (address, parameters) = text.split_once('?').unwrap_or((text, ""));
    let authority = address.split_once("://").map_or("", |(_, rest)| rest.split('/').next().unwrap_or(""));
    let in_authority = authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'));
    in_authority || url::form_urlencoded::parse(parameters.as_bytes()).any(|(name, _)| name == "password")
}

/// One kind of store: a row of the registry.
#[derive(Clone, Copy, Debug)]
pub struct StoreBackend {
    /// The schemes of its URLs.
    pub schemes: &'static [&'static str],
    /// Opens it without waiting for anything: a database that is down is no error yet.
    pub open: fn(&StoreUrl, Option<&SharedPassword>, SharedClock) -> Result<SharedStore>,
}

/// The kinds of store that a process knows.
#[derive(Clone, Debug)]
pub struct StoreRegistry(Vec<StoreBackend>);

impl StoreRegistry {
    /// `memory:`, `sqlite:` and `postgres:`.
    #[must_use]
    pub fn builtin() -> Self {
        Self(vec![
            StoreBackend { schemes: &["memory"], open: open_memory },
            StoreBackend { schemes: &["sqlite"], open: open_sqlite },
            StoreBackend { schemes: &["postgres", "postgresql"], open: open_postgres },
        ])
    }

    /// The same with one more.
    #[must_use]
    pub fn with(mut self, backend: StoreBackend) -> Self {
        self.0.push(backend);
        self
    }

    /// Opens the store at `url`, made safe against callers that go away. It connects when it is first used. It takes a
    /// Tokio runtime, in which sqlx looks after idle connections.
    ///
    /// # Errors
    ///
    /// If the scheme is unknown, or the URL is not valid for its kind of store. A database that is down is no error.
    pub fn open(&self, url: &StoreUrl, password: Option<&SharedPassword>, clock: SharedClock) -> Result<SharedStore> {
        let scheme = url.scheme();
        let backend = self.0.iter().find(|backend| backend.schemes.contains(&scheme)).ok_or_else(|| {
            let known: Vec<_> = self.0.iter().flat_map(|backend| backend.schemes).copied().collect();
            let text = format!("unknown kind of store `{scheme}`; known: {}", known.join(", "));
            Error::new(ErrorKind::Misconfigured, text)
        })?;
        let store = (backend.open)(url, password, clock)?;
        Ok(Arc::new(DetachedTokenStore::new(store)))
    }
}

fn open_memory(url: &StoreUrl, password: Option<&SharedPassword>, clock: SharedClock) -> Result<SharedStore> {
    refuse_password("memory", password)?;
    if !url.rest().is_empty() {
        return Err(Error::new(ErrorKind::Misconfigured, "the URL of the memory store is `memory:`"));
    }
    Ok(Arc::new(MemoryTokenStore::new(clock)))
}

fn open_sqlite(url: &StoreUrl, password: Option<&SharedPassword>, _: SharedClock) -> Result<SharedStore> {
    refuse_password("sqlite", password)?;
    let path = url.rest();
    let path = path.strip_prefix("//").unwrap_or(path);
    if path.is_empty() || path == ":memory:" || path.contains('?') {
        let text = "the URL of the sqlite store is `sqlite:PATH`, without parameters; without a file it is `memory:`";
        return Err(Error::new(ErrorKind::Misconfigured, text));
    }
    Ok(Arc::new(SqliteTokenStore::open(Path::new(path))))
}

fn open_postgres(url: &StoreUrl, password: Option<&SharedPassword>, _: SharedClock) -> Result<SharedStore> {
    Ok(Arc::new(PgTokenStore::open(url, password.cloned())?))
}

fn refuse_password(scheme: &str, password: Option<&SharedPassword>) -> Result<()> {
    match password {
        None => Ok(()),
        Some(_) => Err(Error::new(ErrorKind::Misconfigured, format!("a {scheme} store takes no password"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::SystemClock;

    fn open(url: &str) -> Result<SharedStore> {
        StoreRegistry::builtin().open(&StoreUrl::parse(url)?, None, Arc::new(SystemClock))
    }

    #[tokio::test]
    async fn the_scheme_chooses_the_store() {
        let urls = [
            ("memory:", "memory"),
            ("sqlite:tokencache.db", "sqlite"),
            ("sqlite:///var/lib/tokencache.db", "sqlite"),
            ("postgres://u@localhost/d", "postgres"),
            ("postgresql://u@localhost/d", "postgres"),
        ];
        for (url, kind) in urls {
            assert_eq!(open(url).map(|store| store.kind()), Ok(kind), "{url}");
        }
    }

    #[test]
    fn an_unknown_scheme_is_answered_with_the_known_ones() {
        let error = open("mysql://u@h/d").expect_err("unknown");
        assert_eq!(error.message(), "unknown kind of store `mysql`; known: memory, sqlite, postgres, postgresql");
        assert_eq!(error.kind(), ErrorKind::Misconfigured);
    }

    #[test]
    fn a_password_in_the_url_is_refused_and_not_repeated() {
        for url in
            ["postgres://u:s3cr3t@h/d", "postgres://u@h/d?password=s3cr3t", "postgres://h/d?a=b&pass%77ord=s3cr3t"]
        {
            let error = open(url).expect_err(url);
            assert!(error.message().contains("password = {") && !error.message().contains("s3cr3t"), "{error}");
        }
        assert_eq!(StoreUrl::parse("sqlite:/a:b@c/d").map(|url| url.rest().to_owned()), Ok("/a:b@c/d".to_owned()));
    }

    #[test]
    fn what_is_no_url_of_its_kind_is_refused() {
        for url in ["", "tokencache.db", ":x", "memory:x", "sqlite:", "sqlite::memory:", "sqlite:a.db?mode=ro"] {
            assert_eq!(open(url).map_err(|error| error.kind()).err(), Some(ErrorKind::Misconfigured), "{url}");
        }
    }

    #[test]
    fn a_plug_in_adds_its_scheme() {
        let backend = StoreBackend { schemes: &["mine"], open: open_memory };
        let registry = StoreRegistry::builtin().with(backend);
        let url = StoreUrl::parse("mine:").expect("a URL");
        assert!(registry.open(&url, None, Arc::new(SystemClock)).is_ok());
    }
}
