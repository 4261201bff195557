//! The file of an SQLite store, and how it is opened.

use std::{
    fs::{self, DirBuilder, OpenOptions, Permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
    time::Duration,
};

use sqlx::{
    ConnectOptions as _, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

/// How long another process may write before an attempt fails.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the wait for a connection may take: longer than the one before us may wait for its turn.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(4);

const READERS: u32 = 4;

/// The one writer and the readers.
pub(super) fn pools(path: &Path) -> (SqlitePool, SqlitePool) {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .busy_timeout(BUSY_TIMEOUT)
        .disable_statement_logging();
    let writer = options.clone().journal_mode(SqliteJournalMode::Wal).synchronous(SqliteSynchronous::Full);
    // Readers do not open the file read-only, for in WAL they, too, write to the index that all share.
    let reader = options.pragma("query_only", "ON");
    let pool = |connections| SqlitePoolOptions::new().max_connections(connections).acquire_timeout(ACQUIRE_TIMEOUT);
    (pool(1).connect_lazy_with(writer), pool(READERS).connect_lazy_with(reader))
}

/// Makes the file and its directory, if they are missing, and takes the file from everybody but its owner: SQLite gives
/// the files beside it the same mode.
pub(super) fn create(path: &Path) -> io::Result<()> {
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
    }
    Ok(())
}
