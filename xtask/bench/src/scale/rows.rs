//! A SQLite store that is filled without the broker: a million calls of an upstream would take too long.
//!
//! The broker makes one row; the others are copies of it under other keys. That it takes them for its own is seen by its
//! not asking the upstream for any of them.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use aws_lc_rs::digest::{SHA256, digest};
use sqlx::{AssertSqlSafe, Connection as _, Row as _, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::{contenders::WIDE, upstream::token};

/// Rows of a transaction.
const BATCH: usize = 10_000;

/// What differs from the row that is copied.
const OWN: [(&str, &str); 5] =
    [("key_hash", "$1"), ("audience", "$2"), ("access_token", "$3"), ("fingerprint", "$4"), ("attributes", "$5")];

/// Copies the one row that is there until there are rows for the keys 0 to `count`.
pub(super) async fn fill(file: &Path, count: u32) -> Result<()> {
    let mut connection = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(file)).await?;
    // Nobody waits for what a crash could lose here.
    sqlx::raw_sql("PRAGMA synchronous = OFF").execute(&mut connection).await?;
    let statement = statement(&mut connection).await?;
    let mut keys: Vec<([u8; 32], u32)> = (0..count).map(|key| (hash(&format!("key-{key:08}")), key)).collect();
    let copied = keys.first().context("no rows are wanted")?.0;
    // In the order of the table, so that no page of it is written twice.
    keys.sort_unstable();
    for batch in keys.chunks(BATCH) {
        let mut transaction = connection.begin().await?;
        for (hash, key) in batch {
            let token = token(&format!("{key:08}"));
            let fingerprint: String =
                digest(&SHA256, token.as_bytes()).as_ref()[..8].iter().map(|b| format!("{b:02x}")).collect();
            let insert = sqlx::query(AssertSqlSafe(statement.clone()));
            let insert = insert.bind(&hash[..]).bind(format!("key-{key:08}")).bind(token.into_bytes());
            let insert = insert.bind(fingerprint).bind(b"{}".as_slice()).bind(&copied[..]);
            insert.execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
    }
    let rows: i64 = sqlx::query("SELECT count(*) FROM tokens").fetch_one(&mut connection).await?.get(0);
    ensure!(rows == i64::from(count), "the table has {rows} rows");
    Ok(connection.close().await?)
}

/// Inserts a copy of the row of key 0, whatever columns there are.
async fn statement(connection: &mut SqliteConnection) -> Result<String> {
    let columns = sqlx::query("SELECT name FROM pragma_table_info('tokens')").fetch_all(&mut *connection).await?;
    let names: Vec<String> = columns.iter().map(|row| row.get(0)).collect();
    let values: Vec<&str> = names
        .iter()
        .map(|name| OWN.iter().find(|(own, _)| own == name).map_or(name.as_str(), |(_, value)| *value))
        .collect();
    ensure!(values.iter().filter(|value| value.starts_with('$')).count() == OWN.len(), "the table has other columns");
    let rows: i64 = sqlx::query("SELECT count(*) FROM tokens").fetch_one(&mut *connection).await?.get(0);
    ensure!(rows == 1, "there are {rows} rows to copy");
    let (names, values) = (names.join(", "), values.join(", "));
    Ok(format!("INSERT INTO tokens ({names}) SELECT {values} FROM tokens WHERE key_hash = $6 ON CONFLICT DO NOTHING"))
}

/// The broker's name for a key of the wide credential.
fn hash(audience: &str) -> [u8; 32] {
    let mut text = vec![];
    let mut field = |bytes: &[u8]| {
        text.extend((bytes.len() as u64).to_be_bytes());
        text.extend_from_slice(bytes);
    };
    field(b"tokencache.key.v1");
    field(WIDE.as_bytes());
    // No scopes, no resources.
    field(&0_u64.to_be_bytes());
    field(&0_u64.to_be_bytes());
    field(audience.as_bytes());
    digest(&SHA256, &text).as_ref().try_into().context("SHA-256 has 32 bytes").unwrap_or_default()
}
