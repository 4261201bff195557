//! What Postgres and sqlx report, as the kinds of the service: the one place that knows SQLSTATEs.

use sqlx::{error::DatabaseError, migrate::MigrateError};
use thiserror::Error;

use crate::{
    error::{Error, ErrorKind},
    store::sql::rows::BadRow,
};

/// What goes wrong in this store.
#[derive(Debug, Error)]
pub(super) enum PgStoreError {
    /// The database or the way to it.
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    /// What is in the database.
    #[error(transparent)]
    Row(#[from] BadRow),
    /// The schema.
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    /// A connection that broke while nobody used it: the transaction never began.
    #[error("a connection was broken: {0}")]
    Stale(sqlx::Error),
    /// A row that another transaction took away between two statements.
    #[error("a row vanished")]
    Vanished,
}

impl PgStoreError {
    /// Whether nothing was done, and that by no fault of the transaction: it may be tried again at once.
    pub(super) fn is_conflict(&self) -> bool {
        match self {
            Self::Vanished | Self::Stale(_) => true,
            // serialization_failure, deadlock_detected
            Self::Sql(error) => matches!(sqlstate(error).as_deref(), Some("40001" | "40P01")),
            Self::Row(_) | Self::Migrate(_) => false,
        }
    }

    /// As found while the schema is prepared, where an operator is looking: what only a person can mend is said so.
    pub(super) fn while_preparing(self) -> Error {
        let misconfigured = |text: String| Error::new(ErrorKind::Misconfigured, text);
        match &self {
            Self::Migrate(MigrateError::VersionMissing(version)) => misconfigured(format!(
                "the database has the schema version {version}, which is newer than this program knows: upgrade tokencached"
            )),
            Self::Migrate(MigrateError::VersionMismatch(version) | MigrateError::Dirty(version)) => {
                misconfigured(format!("the schema version {version} of the database was not made by this program"))
            }
            Self::Sql(sqlx::Error::Tls(_)) => misconfigured("cannot speak TLS with the database".to_owned()),
            Self::Sql(error)
            | Self::Migrate(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) => {
                match sqlstate(error).as_deref().and_then(refusal) {
                    Some(refusal) => misconfigured(format!("the database refuses: {refusal}")),
                    None => self.into(),
                }
            }
            _ => self.into(),
        }
    }
}

impl From<PgStoreError> for Error {
    fn from(error: PgStoreError) -> Self {
        match error {
            PgStoreError::Sql(error)
            | PgStoreError::Stale(error)
            | PgStoreError::Migrate(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) => {
                of_sqlx(&error)
            }
            PgStoreError::Migrate(error) => Self::bug(format!("cannot prepare the database: {error}")),
            PgStoreError::Row(error) => Self::bug(error.to_string()),
            PgStoreError::Vanished => Self::new(ErrorKind::StoreDown, "the database is too busy"),
        }
    }
}

fn of_sqlx(error: &sqlx::Error) -> Error {
    let down = |text: String| Error::new(ErrorKind::StoreDown, text);
    match error {
        sqlx::Error::Database(error) => of_database(&**error),
        sqlx::Error::Io(error) => down(format!("cannot reach the database: {}", error.kind())),
        sqlx::Error::Tls(_) => down("cannot speak TLS with the database".to_owned()),
        // What arrives out of order after a fail-over or from a proxy is no defect of this program.
        sqlx::Error::Protocol(_) | sqlx::Error::BeginFailed => down("the database answers out of order".to_owned()),
        sqlx::Error::PoolTimedOut => down("no connection to the database in time".to_owned()),
        sqlx::Error::PoolClosed => down("the store is closed".to_owned()),
        sqlx::Error::Configuration(_) => Error::new(ErrorKind::Misconfigured, "the store's URL is invalid"),
        // Their texts may hold values.
        _ => Error::bug("a statement and the schema of the database do not fit"),
    }
}

/// The text of a database error may hold values, its code and constraint never do.
fn of_database(error: &dyn DatabaseError) -> Error {
    let code = error.code().unwrap_or_default();
    let class = code.get(..2).unwrap_or_default();
    // 08 connection, 25 wrong state (a standby is read-only), 40 rolled back, 53 resources, 55 lock timeout,
    // 57 operator or timeout, 58 system: they pass. 28 and the other refusals may, once somebody mends them.
    if matches!(class, "08" | "25" | "40" | "53" | "55" | "57" | "58") {
        return Error::new(ErrorKind::StoreDown, format!("the database is not able to answer (SQLSTATE {code})"));
    }
    if let Some(refusal) = refusal(&code) {
        return Error::new(ErrorKind::StoreDown, format!("the database refuses: {refusal}"));
    }
    let constraint = error.constraint().map(|name| format!(", constraint {name}")).unwrap_or_default();
    Error::bug(format!("the database fails (SQLSTATE {code}{constraint})"))
}

/// What an operator got wrong.
fn refusal(code: &str) -> Option<&'static str> {
    match code {
        "28000" | "28P01" => Some("wrong user or password"),
        "3D000" => Some("there is no such database"),
        "42501" => Some("the user lacks a privilege"),
        "42P05" | "26000" => {
            Some("a pooler mixes up prepared statements: drop statement_cache=on from the store's URL")
        }
        _ => None,
    }
}

fn sqlstate(error: &sqlx::Error) -> Option<String> {
    Some(error.as_database_error()?.code()?.into_owned())
}
