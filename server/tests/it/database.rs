//! What may befall a Postgres and the way to it, and how the store comes back from that by itself.

mod own;
mod pgbouncer;
mod starvation;

use sqlx::{PgConnection, Row as _};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// How long anything may take that is not meant to be waited for.
const PATIENCE: Duration = Duration::from_secs(60);

const POLL: Duration = Duration::from_millis(10);

/// How many sessions of the connection's database wait for a lock.
async fn waiting_for_a_lock(connection: &mut PgConnection) -> i64 {
    let waiting = sqlx::query(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
    );
    waiting.fetch_one(connection).await.expect("an answer").get(0)
}

/// Waits until so many sessions wait for a lock.
async fn until_waiting(connection: &mut PgConnection, sessions: i64) {
    let wait = async {
        while waiting_for_a_lock(connection).await < sessions {
            sleep(POLL).await;
        }
    };
    timeout(PATIENCE, wait).await.expect("they come to wait");
}
