//! A user's decorated session, over two replicas that are restarted, killed and away: its requests go on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use tempfile::TempDir;
use tokencache_client::{Client, TokenAuth, TokenSource};
use tokencache_server::time::SystemClock;
use tokencache_testkit::{Postgres, steady_ports};
use tokio::{task::JoinSet, time::sleep};

use super::{Daemon, http_client};
use crate::upstream::{CLIENT_ID, CLIENT_SECRET, Upstream};

/// How long a token lasts.
const LIFETIME: Duration = Duration::from_secs(10);

const CALLERS: usize = 8;

/// A replica that finds its ports and its database again.
struct Replica {
    directory: TempDir,
    configuration: String,
    endpoint: String,
    daemon: Option<Daemon>,
}

impl Replica {
    async fn start(database: &str, password: Option<&str>, token_url: &str) -> Self {
        let [client, admin, metrics]: [u16; 3] = steady_ports(3).expect("ports").try_into().expect("three");
        let password =
            password.map(|text| format!("password = {{ command = [\"echo\", \"{text}\"] }}\n")).unwrap_or_default();
        let configuration = format!(
            r#"[server]
listen = "127.0.0.1:{client}"
admin_listen = "127.0.0.1:{admin}"
metrics_listen = "127.0.0.1:{metrics}"
insecure_allow_any_caller = true
[store]
url = "{database}"
{password}
[credentials.api]
provider = "oauth2"
grant = "client_credentials"
token_url = "{token_url}/token"
client_id = "{CLIENT_ID}"
client_secret = {{ command = ["echo", "{CLIENT_SECRET}"] }}
"#
        );
        let directory = TempDir::new().expect("a directory");
        let endpoint = format!("http://127.0.0.1:{client}");
        let mut replica = Self { directory, configuration, endpoint, daemon: None };
        replica.begin().await;
        replica
    }

    async fn begin(&mut self) {
        self.daemon = Some(Daemon::serve(self.directory.path(), &self.configuration).await);
    }

    fn running(&mut self) -> Daemon {
        self.daemon.take().expect("it runs")
    }
}

/// What became of the user's requests.
#[derive(Debug, Default)]
struct Load {
    over: AtomicBool,
    succeeded: AtomicUsize,
    failed: AtomicUsize,
}

impl Load {
    async fn call(&self, session: ClientWithMiddleware, url: String) {
        while !self.over.load(Ordering::Relaxed) {
            let succeeded = session.get(&url).send().await.is_ok_and(|answer| answer.status() == 200);
            if succeeded { &self.succeeded } else { &self.failed }.fetch_add(1, Ordering::Relaxed);
            sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn until_replaced(source: &TokenSource, generation: u64) {
    while source.current().is_none_or(|token| token.generation <= generation) {
        sleep(Duration::from_millis(5)).await;
    }
}

fn generation(source: &TokenSource) -> u64 {
    source.current().map_or(0, |token| token.generation)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_replicas_are_restarted_killed_and_away() {
    let upstream = Upstream::start(Arc::new(SystemClock)).await;
    upstream.issue_for(LIFETIME);
    let server = Postgres::start().await.expect("a Postgres to test with");
    let database = server.new_database().await.expect("a new database");
    let mut replicas = vec![];
    for _ in 0..2 {
        replicas.push(Replica::start(&database, server.password(), upstream.url()).await);
    }
    let client = Client::builder().endpoints(replicas.iter().map(|replica| replica.endpoint.as_str()));
    let source = client.build().expect("a client").source("api");
    let auth = TokenAuth::new(source.clone());
    let session = ClientBuilder::new(http_client()).with(auth.middleware()).build();
    let (load, mut callers) = (Arc::new(Load::default()), JoinSet::new());
    for _ in 0..CALLERS {
        let (load, session, url) = (Arc::clone(&load), session.clone(), format!("{}/api", upstream.url()));
        callers.spawn(async move { load.call(session, url).await });
    }
    until_replaced(&source, 0).await;

    // A rolling restart, and one without notice.
    for replica in &mut replicas {
        replica.running().stop().await;
        replica.begin().await;
    }
    for replica in &mut replicas {
        replica.running().kill();
        replica.begin().await;
    }
    // A token that dies before its time.
    let dead = source.get().await.expect("a token");
    upstream.revoke(dead.access_token.expose());
    until_replaced(&source, dead.generation).await;
    // Nobody there for two fifths of a token's life, which begins now.
    until_replaced(&source, generation(&source)).await;
    for replica in &mut replicas {
        replica.running().kill();
    }
    sleep(LIFETIME * 2 / 5).await;
    let kept = generation(&source);
    for replica in &mut replicas {
        replica.begin().await;
    }
    until_replaced(&source, kept).await;

    load.over.store(true, Ordering::Relaxed);
    callers.join_all().await;
    assert_eq!(load.failed.load(Ordering::Relaxed), 0, "{load:?}");
    assert!(load.succeeded.load(Ordering::Relaxed) > 1000, "{load:?}");
    for replica in &mut replicas {
        replica.running().stop().await;
    }
}
