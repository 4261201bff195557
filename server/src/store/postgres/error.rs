//! What Postgres and sqlx report, as the kinds of the service: the one place that knows SQLSTATEs.

use std::io;

use sqlx::{error::DatabaseError, migrate::MigrateError};
use thiserror::Error;

use crate::{
    error::{Error, ErrorKind},
    store::sql::{rows::BadRow, schema::Misfit},
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
    /// A migration.
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    /// The schema is not one for this program.
    #[error(transparent)]
    Schema(#[from] Misfit),
    /// Replicas that a migration would cut off.
    #[error(
        "this migration ends the use of the database by replicas that know versions up to {known}, and {replicas} still \
         run: upgrade or stop them first, or migrate with --force"
    )]
    OlderReplicas {
        /// Their names.
        replicas: String,
        /// The newest version that all of them know.
        known: i64,
    },
    /// No connection was free in time.
    #[error("all connections to the database are in use")]
    Busy,
    /// No connection is given out any more.
    #[error("the store is closed")]
    Closed,
    /// A connection cannot be made.
    #[error("cannot connect: {0}")]
    Connect(sqlx::Error),
    /// The password cannot be read.
    #[error("the password of the store: {0}")]
    Password(Error),
    /// A connection leads nowhere any more: the transaction never began.
    #[error("a connection is silent")]
    Silent,
    /// The server takes no writes: the transaction never began.
    #[error("the database is read-only: a standby, or a server that was fenced off")]
    ReadOnly,
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
            Self::Vanished | Self::Stale(_) | Self::Silent => true,
            // serialization_failure, deadlock_detected
            Self::Sql(error) => matches!(sqlstate(error).as_deref(), Some("40001" | "40P01")),
            _ => false,
        }
    }

    /// Whether a new connection may lead to a server that can.
    pub(super) fn is_elsewhere(&self) -> bool {
        matches!(self, Self::ReadOnly)
    }

    /// Whether to connect may succeed in a moment: the database is starting, or others are about to leave.
    pub(super) fn may_pass_soon(&self) -> bool {
        match self {
            Self::Connect(sqlx::Error::Io(error)) => error.kind() == io::ErrorKind::ConnectionRefused,
            // too_many_connections, cannot_connect_now
            Self::Connect(error) => matches!(sqlstate(error).as_deref(), Some("53300" | "57P03")),
            _ => false,
        }
    }

    /// As found while the schema is prepared, where an operator is looking: what only a person can mend is said so.
    pub(super) fn while_preparing(self) -> Error {
        let misconfigured = |text: String| Error::new(ErrorKind::Misconfigured, text);
        match &self {
            Self::Schema(misfit) => misconfigured(misfit.to_string()),
            Self::Connect(sqlx::Error::Tls(_)) => misconfigured("cannot speak TLS with the database".to_owned()),
            Self::Sql(error)
            | Self::Connect(error)
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
        let down = |text: String| Self::new(ErrorKind::StoreDown, text);
        match error {
            PgStoreError::Sql(error)
            | PgStoreError::Connect(error)
            | PgStoreError::Stale(error)
            | PgStoreError::Migrate(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) => {
                of_sqlx(&error)
            }
            PgStoreError::Migrate(error) => Self::bug(format!("cannot prepare the database: {error}")),
            PgStoreError::Row(error) => Self::bug(error.to_string()),
            PgStoreError::Password(_) => down("the password of the store cannot be read".to_owned()),
            PgStoreError::Vanished => down("the database is too busy".to_owned()),
            PgStoreError::Silent => down("the database does not answer in time".to_owned()),
            // Heals when somebody else acts: the clients of a replica that is left behind turn to another one.
            PgStoreError::Schema(_)
            | PgStoreError::OlderReplicas { .. }
            | PgStoreError::Busy
            | PgStoreError::Closed
            | PgStoreError::ReadOnly => down(error.to_string()),
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
    if code == "53300" {
        return Error::new(ErrorKind::StoreDown, "the database has too many connections");
    }
    // undefined_table: of a caller that comes while the tables are made.
    if code == "42P01" {
        return Error::new(ErrorKind::StoreDown, "the database is not prepared yet");
    }
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

/// Whether the server takes no writes. read_only_sql_transaction
pub(super) fn is_read_only(error: &sqlx::Error) -> bool {
    sqlstate(error).as_deref() == Some("25006")
}

/// Whether nothing can be said any more on the connection that reported it.
pub(super) fn ends_the_session(error: &sqlx::Error) -> bool {
    match error {
        // 08 connection; admin_shutdown, crash_shutdown, cannot_connect_now, idle_session_timeout
        sqlx::Error::Database(error) => {
            let code = error.code().unwrap_or_default();
            code.starts_with("08") || matches!(&*code, "57P01" | "57P02" | "57P03" | "57P05")
        }
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => true,
        _ => false,
    }
}

/// invalid_authorization_specification, invalid_password
pub(super) fn refuses_the_password(error: &sqlx::Error) -> bool {
    matches!(sqlstate(error).as_deref(), Some("28000" | "28P01"))
}

fn sqlstate(error: &sqlx::Error) -> Option<String> {
    Some(error.as_database_error()?.code()?.into_owned())
}
