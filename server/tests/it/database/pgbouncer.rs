//! The store behind a real pgbouncer in transaction mode: it hands out another connection with every transaction, knows no
//! prepared statements, and loses notifications.

use sqlx::{Connection as _, raw_sql};
use tempfile::TempDir;
use tokencache_client::{GetToken, Rejection, Selector};
use tokencache_server::store::{Committed, conformance};
use tokencache_testkit::{PgBouncer, Postgres};

use crate::{
    process::{Daemon, FREE_PORTS},
    stores::{commit, key, open, postgres_connection},
};

/// A pgbouncer before the Postgres of the tests.
async fn pooled() -> (&'static Postgres, PgBouncer) {
    let server = Postgres::start().await.expect("a Postgres to test with");
    let url = server.new_database().await.expect("a new database");
    (server, PgBouncer::start(&url, server.password()).await.expect("a pgbouncer"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs pgbouncer on this machine: cargo xtask test"]
async fn the_postgres_store_conforms_behind_pgbouncer() {
    let (server, pgbouncer) = pooled().await;
    conformance::run_without_hints(async || {
        let url = server.new_database().await.expect("a new database");
        open(&pgbouncer.through(&url).expect("a URL"), None)
    })
    .await;
}

/// A listener that went away leaves its LISTEN on the pooled connections that it was given: whoever is given them next must
/// not take a notification for an answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs pgbouncer on this machine: cargo xtask test"]
async fn what_a_listener_left_on_pooled_connections_disturbs_nobody() {
    let (server, pgbouncer) = pooled().await;
    let url = pgbouncer.through(&server.new_database().await.expect("a new database")).expect("a URL");
    let store = open(&url, None);
    store.prepare().await.expect("a schema");
    let mut listeners = vec![];
    for _ in 0..PgBouncer::POOL_SIZE {
        let mut listener = postgres_connection(&(url.clone(), None)).await;
        raw_sql("BEGIN; LISTEN tokencache_events").execute(&mut listener).await.expect("it listens");
        listeners.push(listener);
    }
    for mut listener in listeners {
        raw_sql("COMMIT").execute(&mut listener).await.expect("it is committed");
        listener.close().await.expect("it leaves");
    }
    for generation in 1..=10 {
        assert_eq!(store.commit(commit(&key("read"), generation)).await, Ok(Committed::Stored));
    }
}

/// Two brokers behind one pgbouncer hear of one another by polling, and say once that they have to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs pgbouncer on this machine: cargo xtask test"]
async fn replicas_behind_pgbouncer_acknowledge_rejections_without_notifications() {
    let (server, pgbouncer) = pooled().await;
    let directories = [TempDir::new().expect("a directory"), TempDir::new().expect("a directory")];
    let token = directories[0].path().join("api.token");
    std::fs::write(&token, "first").expect("a file");
    let url = pgbouncer.through(&server.new_database().await.expect("a new database")).expect("a URL");
    let configuration = format!(
        "{FREE_PORTS}[store]\nurl = \"{url}\"\n\
         [credentials.api]\nprovider = \"fixed\"\ntoken = {{ file = \"{}\" }}\n",
        token.display()
    );
    let mut daemons = vec![];
    for directory in &directories {
        daemons.push(Daemon::serve(directory.path(), &configuration).await);
    }
    for daemon in &mut daemons {
        daemon.until_logged("the database's notifications do not arrive").await;
    }
    let clients: Vec<_> = daemons.iter().map(Daemon::client).collect();
    let selector = || Selector::new("api");
    let mut rejected = 0;
    for client in &clients {
        let token = client.get_token(GetToken::of(selector())).await.expect("an answer").token.expect("a token");
        rejected = token.generation;
    }
    std::fs::write(&token, "second").expect("a file");
    let answer = clients[0].invalidate(Rejection::of_generation(selector(), rejected)).await.expect("an answer");
    assert!(answer.invalidated);
    let token = clients[1].get_token(GetToken::of(selector())).await.expect("an answer").token.expect("a token");
    assert!(token.generation > rejected, "acknowledged: the other replica serves it no more");
    for daemon in daemons {
        let outcome = daemon.stop().await;
        assert_eq!(outcome.code(), Some(0), "{outcome:?}");
        assert_eq!(outcome.stderr.matches("the database's notifications do not arrive").count(), 1, "said once");
        assert!(!outcome.stderr.contains("listening for the database's notifications"));
    }
}
