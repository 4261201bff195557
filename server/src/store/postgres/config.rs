//! The URL of a Postgres store.

use std::time::Duration;

use sqlx::{
    ConnectOptions as _, Connection as _,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use url::Url;

use crate::{
    error::{Error, ErrorKind, Result},
    store::StoreUrl,
    types::Secret,
};

const MAX_CONNECTIONS: u32 = 10;

/// How long a connection may take to be had.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(4);

/// A connection that was idle this long is tried before it is used: a database that was restarted, or a firewall that
/// forgot, leaves dead ones behind.
const IDLE_BEFORE_PING: Duration = Duration::from_secs(2);

const IDLE_TIMEOUT: Duration = Duration::from_secs(5 * 60);
const MAX_LIFETIME: Duration = Duration::from_secs(30 * 60);

/// How to connect.
#[derive(Debug)]
pub(super) struct PgStoreConfig {
    pub(super) connect: PgConnectOptions,
    pub(super) pool: PgPoolOptions,
    /// Whether statements stay prepared on their connection. Off by default, for a pooler between here and the database
    /// hands out another connection with every transaction; on, an operation saves a round trip per statement.
    pub(super) statement_cache: bool,
}

impl PgStoreConfig {
    /// Reads `postgres://user@host[:port]/database` with libpq's parameters (`sslmode`, `sslrootcert`, `host`, …) and
    /// two of our own: `statement_cache=on|off` and `max_connections`.
    pub(super) fn new(url: &StoreUrl, password: Option<&Secret>) -> Result<Self> {
        let mut url: Url =
            url.as_str().parse().map_err(|error| invalid(format!("the store's URL is invalid: {error}")))?;
        let (mut statement_cache, mut max_connections) = (false, MAX_CONNECTIONS);
        let mut kept = vec![];
        for (name, value) in url.query_pairs().into_owned() {
            match (name.as_str(), value.as_str()) {
                ("statement_cache", "on") => statement_cache = true,
                ("statement_cache", "off") => statement_cache = false,
                ("statement_cache", _) => return Err(invalid("statement_cache in the store's URL is `on` or `off`")),
                ("max_connections", number) => {
                    max_connections =
                        number.parse().ok().filter(|number| (1..=1000).contains(number)).ok_or_else(|| {
                            invalid("max_connections in the store's URL is a number between 1 and 1000")
                        })?;
                }
                (name, _) if !is_known(name) => {
                    return Err(invalid(format!("the store's URL has the unknown parameter `{name}`; known: {KNOWN}")));
                }
                _ => kept.push((name, value)),
            }
        }
        url.set_query(None);
        if !kept.is_empty() {
            url.query_pairs_mut().extend_pairs(kept);
        }
        let connect: PgConnectOptions =
            url.as_str().parse().map_err(|_| invalid("a parameter of the store's URL has an invalid value"))?;
        let connect = password.map_or(connect.clone(), |password| connect.password(password.expose()));
        Ok(Self { connect: polite(connect), pool: pool(max_connections), statement_cache })
    }
}

/// pgbouncer refuses `extra_float_digits` at the start of a connection; no column here is a float.
fn polite(options: PgConnectOptions) -> PgConnectOptions {
    options.application_name("tokencached").extra_float_digits(None).disable_statement_logging()
}

fn pool(max_connections: u32) -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .idle_timeout(IDLE_TIMEOUT)
        .max_lifetime(MAX_LIFETIME)
        .test_before_acquire(false)
        .before_acquire(|connection, state| {
            Box::pin(async move {
                if state.idle_for > IDLE_BEFORE_PING {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
}

const KNOWN: &str = "sslmode, sslrootcert, sslcert, sslkey, host, hostaddr, port, dbname, user, application_name, \
    statement_cache, max_connections";

fn is_known(name: &str) -> bool {
    KNOWN.split(", ").any(|known| known == name)
}

fn invalid(text: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Misconfigured, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(url: &str) -> Result<PgStoreConfig> {
        PgStoreConfig::new(&StoreUrl::parse(url)?, Some(&Secret::from("s3cr3t")))
    }

    #[test]
    fn our_own_parameters_are_read_and_not_handed_on() {
        let tuned = config("postgres://u@h:1/d?statement_cache=on&sslmode=require&max_connections=3").expect("valid");
        assert!(tuned.statement_cache);
        assert_eq!(tuned.pool.get_max_connections(), 3);
        assert_eq!((tuned.connect.get_host(), tuned.connect.get_port()), ("h", 1));
        let statements_stay = config("postgres://u@h/d").expect("valid").statement_cache;
        assert!(!statements_stay, "over a pooler they must not");
    }

    #[test]
    fn a_mistake_in_the_url_is_named() {
        for (url, part) in [
            ("postgres://u@h/d?statement_cache=yes", "`on` or `off`"),
            ("postgres://u@h/d?max_connections=0", "between 1 and 1000"),
            ("postgres://u@h/d?sslmod=require", "unknown parameter `sslmod`; known: sslmode,"),
            ("postgres://u@h/d?sslmode=maybe", "invalid value"),
            ("postgres://u@h:port/d", "invalid port number"),
        ] {
            let error = config(url).expect_err(url);
            assert!(error.message().contains(part), "{url}: {error}");
        }
    }
}
