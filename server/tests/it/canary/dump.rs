//! All that is in a database, as whoever steals it reads it.

use std::{fs, path::Path};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, postgres::PgConnectOptions};

/// The bytes of the file of an SQLite database and of those beside it, each with its name.
pub(super) fn of_sqlite(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let files = fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path());
    let name = |path: &Path| path.file_name().expect("a name").to_string_lossy().into_owned();
    let ours = files.filter(|path| name(path).starts_with("tokens.db"));
    ours.map(|path| (name(&path), fs::read(&path).expect("readable"))).collect()
}

/// Every column of every row of every table of a Postgres database, each table with its name.
pub(super) async fn of_postgres(url: &str, password: Option<&str>) -> Vec<(String, Vec<u8>)> {
    let mut options: PgConnectOptions = url.parse().expect("a URL");
    if let Some(password) = password {
        options = options.password(password);
    }
    let mut connection = PgConnection::connect_with(&options).await.expect("it answers");
    let tables = "SELECT table_name::text FROM information_schema.tables WHERE table_schema = 'public'";
    let tables: Vec<String> = sqlx::query_scalar(tables).fetch_all(&mut connection).await.expect("tables");
    let mut dump = vec![];
    for table in tables {
        // bytea as hexadecimal digits, which are searched for as well.
        let rows = format!("SELECT t::text FROM {table} t");
        let rows: Vec<String> =
            sqlx::query_scalar(AssertSqlSafe(rows)).fetch_all(&mut connection).await.expect("all rows");
        dump.push((table, rows.join("\n").into_bytes()));
    }
    connection.close().await.expect("closed");
    dump
}
