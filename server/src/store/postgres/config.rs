//! The URL of a Postgres store.

use sqlx::{ConnectOptions as _, postgres::PgConnectOptions};
use url::Url;

use crate::{
    error::{Error, ErrorKind, Result},
    store::StoreUrl,
};

/// How many connections there are, if the URL does not say.
const MAX_CONNECTIONS: u32 = 10;

/// One for refreshes, one for bulk reads and operators.
const LEAST_CONNECTIONS: u32 = 2;

/// Of so many connections one is for bulk reads and operators, but never more than the second.
const ADMIN_SHARE: u32 = 5;
const ADMIN_MOST: u32 = 8;

/// How to connect.
#[derive(Debug)]
pub(super) struct PgStoreConfig {
    pub(super) connect: PgConnectOptions,
    /// How many connections refreshes, acknowledgements and the fleet may have.
    pub(super) refresh: u32,
    /// How many bulk reads, operators and tidying may have.
    pub(super) admin: u32,
    /// Whether statements stay prepared on their connection. Off by default, for a pooler between here and the database
    /// hands out another connection with every transaction; on, an operation saves a round trip per statement.
    pub(super) statement_cache: bool,
}

impl PgStoreConfig {
    /// Reads `postgres://user@host[:port]/database` with libpq's parameters (`sslmode`, `sslrootcert`, `host`, …) and
    /// two of our own: `statement_cache=on|off` and `max_connections`, for refreshes and for operators together. Beside them
    /// there is one connection that listens, and one for the time of a migration.
    pub(super) fn new(url: &StoreUrl) -> Result<Self> {
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
                    let valid = number.parse().ok().filter(|number| (LEAST_CONNECTIONS..=1000).contains(number));
                    max_connections = valid.ok_or_else(|| {
                        invalid(
                            "max_connections in the store's URL is a number between 2 and 1000: refreshes and operators \
                             need a connection each",
                        )
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
        let admin = (max_connections / ADMIN_SHARE).clamp(1, ADMIN_MOST);
        Ok(Self { connect: polite(connect), refresh: max_connections - admin, admin, statement_cache })
    }
}

/// pgbouncer refuses `extra_float_digits` at the start of a connection; no column here is a float.
fn polite(options: PgConnectOptions) -> PgConnectOptions {
    options.application_name("tokencached").extra_float_digits(None).disable_statement_logging()
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
        PgStoreConfig::new(&StoreUrl::parse(url)?)
    }

    #[test]
    fn our_own_parameters_are_read_and_not_handed_on() {
        let tuned = config("postgres://u@h:1/d?statement_cache=on&sslmode=require&max_connections=3").expect("valid");
        assert!(tuned.statement_cache);
        assert_eq!((tuned.refresh, tuned.admin), (2, 1));
        assert_eq!((tuned.connect.get_host(), tuned.connect.get_port()), ("h", 1));
        let statements_stay = config("postgres://u@h/d").expect("valid").statement_cache;
        assert!(!statements_stay, "over a pooler they must not");
    }

    #[test]
    fn the_connections_are_shared_out_to_the_last() {
        for (total, refresh, admin) in [(2, 1, 1), (9, 8, 1), (10, 8, 2), (40, 32, 8), (1000, 992, 8)] {
            let config = config(&format!("postgres://u@h/d?max_connections={total}")).expect("valid");
            assert_eq!((config.refresh, config.admin), (refresh, admin), "{total}");
        }
        let config = config("postgres://u@h/d").expect("valid");
        assert_eq!((config.refresh, config.admin), (8, 2));
    }

    #[test]
    fn a_mistake_in_the_url_is_named() {
        for (url, part) in [
            ("postgres://u@h/d?statement_cache=yes", "`on` or `off`"),
            ("postgres://u@h/d?max_connections=0", "between 2 and 1000"),
            ("postgres://u@h/d?max_connections=1", "refreshes and operators need a connection each"),
            ("postgres://u@h/d?max_connections=1001", "between 2 and 1000"),
            ("postgres://u@h/d?sslmod=require", "unknown parameter `sslmod`; known: sslmode,"),
            ("postgres://u@h/d?sslmode=maybe", "invalid value"),
            ("postgres://u@h:port/d", "invalid port number"),
        ] {
            let error = config(url).expect_err(url);
            assert!(error.message().contains(part), "{url}: {error}");
        }
    }
}
