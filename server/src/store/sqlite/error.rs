//! What SQLite and sqlx report, as the kinds of the service: the one place that knows SQLite's result codes.

use std::io;

use sqlx::{error::DatabaseError, migrate::MigrateError};
use thiserror::Error;

use crate::{
    error::{Error, ErrorKind},
    store::sql::{rows::BadRow, schema::Misfit},
};

/// What goes wrong in this store.
#[derive(Debug, Error)]
pub(super) enum SqliteStoreError {
    /// The database.
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
    /// The file and its directory.
    #[error("cannot create the database file: {0}")]
    File(io::Error),
    /// A row that another transaction took away between two statements.
    #[error("a row vanished")]
    Vanished,
}

/// What the low byte of a result code says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// SQLITE_BUSY, SQLITE_LOCKED: another process writes.
    Busy,
    /// SQLITE_PERM, SQLITE_READONLY, SQLITE_CANTOPEN, SQLITE_AUTH.
    NoAccess,
    /// SQLITE_NOMEM, SQLITE_INTERRUPT, SQLITE_IOERR, SQLITE_FULL, SQLITE_PROTOCOL.
    Resources,
    /// SQLITE_CORRUPT, SQLITE_NOTADB.
    Damaged,
    /// All else is a defect of this program.
    Defect,
}

impl SqliteStoreError {
    /// Whether only another writer was in the way: it may be tried again.
    pub(super) fn is_conflict(&self) -> bool {
        match self {
            Self::Sql(sqlx::Error::Database(error))
            | Self::Migrate(
                MigrateError::Execute(sqlx::Error::Database(error))
                | MigrateError::ExecuteMigration(sqlx::Error::Database(error), _),
            ) => class(&**error) == Class::Busy,
            Self::Vanished => true,
            _ => false,
        }
    }

    /// As found while the schema is prepared, where an operator is looking: what only a person can mend is said so.
    pub(super) fn while_preparing(self) -> Error {
        let misconfigured = |text: String| Error::new(ErrorKind::Misconfigured, text);
        match &self {
            Self::File(error) => misconfigured(format!("cannot create the database file: {}", error.kind())),
            Self::Schema(misfit) => misconfigured(misfit.to_string()),
            Self::Sql(sqlx::Error::Database(error))
            | Self::Migrate(MigrateError::Execute(sqlx::Error::Database(error))) => match class(&**error) {
                Class::NoAccess => misconfigured("the database file cannot be opened for writing".to_owned()),
                Class::Damaged => misconfigured("the database file is damaged, or no SQLite database".to_owned()),
                Class::Busy | Class::Resources | Class::Defect => self.into(),
            },
            _ => self.into(),
        }
    }
}

impl From<SqliteStoreError> for Error {
    fn from(error: SqliteStoreError) -> Self {
        let down = |text| Self::new(ErrorKind::StoreDown, text);
        match error {
            SqliteStoreError::Sql(error)
            | SqliteStoreError::Migrate(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) => {
                of_sqlx(&error)
            }
            SqliteStoreError::Migrate(error) => Self::bug(format!("cannot prepare the database: {error}")),
            SqliteStoreError::Schema(misfit) => Self::new(ErrorKind::StoreDown, misfit.to_string()),
            SqliteStoreError::Row(error) => Self::bug(error.to_string()),
            SqliteStoreError::File(_) => down("the database file cannot be created"),
            SqliteStoreError::Vanished => down("the database is too busy"),
        }
    }
}

fn of_sqlx(error: &sqlx::Error) -> Error {
    let down = |text| Error::new(ErrorKind::StoreDown, text);
    match error {
        sqlx::Error::Database(error) => of_database(&**error),
        sqlx::Error::Io(_) | sqlx::Error::WorkerCrashed => down("the database file cannot be used"),
        sqlx::Error::PoolTimedOut => down("the database is too busy"),
        sqlx::Error::PoolClosed => down("the store is closed"),
        // Their texts may hold values.
        _ => Error::bug("a statement and the schema of the database do not fit"),
    }
}

/// The text of a database error may hold values, its code never does.
fn of_database(error: &dyn DatabaseError) -> Error {
    let code = error.code().unwrap_or_default();
    let down = |text: &str| Error::new(ErrorKind::StoreDown, format!("{text} (SQLite code {code})"));
    match class(error) {
        Class::Busy => down("the database is too busy"),
        Class::NoAccess => down("the database file cannot be opened for writing"),
        Class::Resources => down("the disk of the database is full or fails"),
        Class::Damaged => down("the database file is damaged"),
        // Of a caller that comes while the tables are made.
        Class::Defect if error.message().starts_with("no such table") => down("the database is not prepared yet"),
        Class::Defect => Error::bug(format!("the database fails (SQLite code {code})")),
    }
}

fn class(error: &dyn DatabaseError) -> Class {
    let code: u32 = error.code().and_then(|code| code.parse().ok()).unwrap_or(0);
    match code & 0xff {
        5 | 6 => Class::Busy,
        3 | 8 | 14 | 23 => Class::NoAccess,
        7 | 9 | 10 | 13 | 15 => Class::Resources,
        11 | 26 => Class::Damaged,
        _ => Class::Defect,
    }
}
