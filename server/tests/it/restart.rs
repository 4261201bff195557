//! What outlives the process, and a store that is not there.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use futures::{StreamExt as _, future::join_all, stream};
use tokencache_client::{GetToken, Selector as ClientSelector};
use tokencache_proto::v1::GetTokenRequest;
use tokencache_server::{
    app::open_store,
    store::{Commit, Committed, Fence, SharedStore, StoreRegistry},
    time::Clock as _,
    types::{CredentialName, Fingerprint, Generation, Secret, Selector, Terms, Token, TokenKey},
};
use tokencache_testkit::Postgres;
use tokio::{
    io::copy_bidirectional,
    net::{TcpSocket, TcpStream},
    task::{JoinHandle, JoinSet},
};
use tonic::{Code, Status};

use crate::{
    broker::{Broker, Over, Stage, come_again, eventually, reason},
    upstream::Fault,
};

const ROWS: usize = 10_000;
const CONNECTIONS: usize = 20;
const HOUR: Duration = Duration::from_secs(3600);

async fn get(broker: &Broker, request: GetToken) -> tokencache_client::Result<u64> {
    Ok(broker.library().get_token(request).await?.token.expect("a token").generation)
}

fn scope(row: usize) -> String {
    format!("scope-{row}")
}

/// A token as an earlier process would have left it.
fn row(stage: &Stage, number: usize, config: Fingerprint) -> Commit {
    let now = stage.clock.now();
    let access_token = Secret::new(format!("stored-{number}"));
    let name = CredentialName::parse("ci").expect("a valid name");
    let token = Token {
        fingerprint: Fingerprint::of(&access_token),
        access_token,
        terms: Terms::new("Bearer".into(), vec![scope(number)], [].into()),
        issued_at: now,
        expires_at: now.after(HOUR),
        refresh_at: now.after(HOUR / 2),
        generation: Generation::new(1),
    };
    let key = TokenKey::new(Selector::new(name, vec![scope(number)], None, vec![]));
    Commit { key, token, fence: Fence::Next, config, last_used_at: now, grant: None }
}

/// Ten thousand valid tokens in the store of the stage.
async fn fill(stage: &Stage, credential: &str) {
    let config = stage.config(credential);
    let clock = Arc::clone(&stage.clock);
    let opened = open_store(&config, &StoreRegistry::builtin(), clock).await.expect("a valid store");
    let store: SharedStore = opened.store;
    store.prepare().await.expect("an empty database");
    let identity = config.credentials.iter().next().expect("one credential").config;
    let commits = (0..ROWS).map(|number| store.commit(row(stage, number, identity)));
    let stored = stream::iter(commits).buffer_unordered(16);
    assert!(stored.all(async |committed| committed == Ok(Committed::Stored)).await);
    store.close().await;
}

async fn ten_thousand_valid_tokens_cost_no_call(over: Over) {
    let stage = Stage::new(over).await;
    let credential = stage.credential("ci", "");
    fill(&stage, &credential).await;
    let broker = stage.start(&credential).await;
    let connections = join_all((0..CONNECTIONS).map(|_| broker.tokens())).await;
    let calls = (0..ROWS).map(|number| {
        let mut tokens = connections[number % CONNECTIONS].clone();
        async move {
            let get = GetTokenRequest { credential: "ci".into(), scopes: vec![scope(number)], ..Default::default() };
            let answer = tokens.get_token(get).await.unwrap_or_else(|status| panic!("{number}: {status:?}"));
            answer.into_inner().token.expect("a token").access_token
        }
    });
    let served: BTreeSet<String> = stream::iter(calls).buffer_unordered(200).collect().await;
    assert_eq!(served, (0..ROWS).map(|number| format!("stored-{number}")).collect());
    // moka counts behind, by up to a batch of what was put in last.
    eventually("they are in memory", async || {
        broker.operator().server_info().await.expect("an answer").cached_token_count > ROWS as u64 * 9 / 10
    })
    .await;
    assert_eq!(stage.upstream.calls(), 0);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_valid_tokens_found_at_start_cost_no_upstream_call_on_sqlite() {
    ten_thousand_valid_tokens_cost_no_call(Over::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_valid_tokens_found_at_start_cost_no_upstream_call_on_postgres() {
    ten_thousand_valid_tokens_cost_no_call(Over::Postgres).await;
}

/// Rejections, grants and what a person has to mend are as before.
async fn a_restart_changes_nothing(over: Over) {
    let stage = Stage::new(over).await;
    let credentials = stage.credential("ci", "") + &stage.rotating("crm/prod");
    let broker = stage.start(&credentials).await;
    for name in ["ci", "crm/prod"] {
        assert_eq!(get(&broker, GetToken::of(name)).await, Ok(1));
    }
    stage.upstream.always(Some(Fault::status(503)));
    get(&broker, GetToken::of("ci").rejected_generation(1)).await.expect_err("rejected, and no other to be had");
    broker.stop().await;

    let broker = stage.start(&credentials).await;
    let refused = get(&broker, GetToken::of("ci")).await.expect_err("it stays rejected");
    assert_eq!(refused.reason(), Some("UPSTREAM_DOWN"));
    assert_eq!(get(&broker, GetToken::of("crm/prod")).await, Ok(1), "the other one is as good as before");
    stage.upstream.always(None);
    broker.stop().await;

    stage.clock.advance(HOUR);
    let broker = stage.start(&credentials).await;
    assert_eq!(get(&broker, GetToken::of("ci")).await, Ok(2), "no generation is given out twice");
    assert_eq!(get(&broker, GetToken::of("crm/prod")).await, Ok(2), "the grant goes on from where it was");
    assert_eq!((stage.upstream.rotations(), stage.upstream.reuses()), (2, 0));
    broker.stop().await;
}

#[tokio::test]
async fn rejections_and_grants_outlive_a_restart_on_sqlite() {
    a_restart_changes_nothing(Over::Sqlite).await;
}

#[tokio::test]
async fn rejections_and_grants_outlive_a_restart_on_postgres() {
    a_restart_changes_nothing(Over::Postgres).await;
}

#[tokio::test]
async fn an_orderly_end_waits_for_the_answer_of_the_upstream_and_keeps_it() {
    let stage = Stage::new(Over::Sqlite).await;
    let credential = stage.rotating("crm/prod");
    let broker = stage.start(&credential).await;
    stage.upstream.hold();
    let mut caller = broker.tokens().await;
    let request = GetTokenRequest { credential: "crm/prod".into(), ..Default::default() };
    let caller = tokio::spawn(async move { caller.get_token(request).await });
    eventually("the upstream is asked", async || stage.upstream.calls() == 1).await;
    caller.abort();
    broker.drain();
    eventually("nobody listens any more", async || TcpStream::connect(broker.client).await.is_err()).await;
    stage.upstream.release();
    broker.stop().await;

    let broker = stage.start(&credential).await;
    assert_eq!(get(&broker, GetToken::of("crm/prod")).await, Ok(1));
    assert_eq!(stage.upstream.calls(), 1);
    broker.stop().await;
}

/// A way to a database that can be closed and opened.
struct Way {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Way {
    /// Opens the way from the address of `socket` to a server.
    fn open(socket: TcpSocket, to: String) -> Self {
        let listener = socket.listen(64).expect("the port is ours");
        let address = listener.local_addr().expect("it is bound");
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                let to = to.clone();
                connections.spawn(async move {
                    let mut far = TcpStream::connect(to).await?;
                    copy_bidirectional(&mut near, &mut far).await
                });
            }
        });
        Self { address, task }
    }

    /// Closes it: connections end, and new ones are refused. The port stays ours.
    async fn close(self) -> TcpSocket {
        self.task.abort();
        let _ = self.task.await;
        bound(self.address)
    }
}

/// A port that refuses connections, and that nobody else is given.
fn bound(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("a socket's option");
    socket.bind(address).expect("a port");
    socket
}

/// A new database, as it is reached through `socket`: its URL, and where the way leads to.
async fn database_behind(socket: &TcpSocket) -> (String, String) {
    let server = Postgres::start().await.expect("a Postgres to test with");
    let mut url: url::Url = server.new_database().await.expect("a new database").parse().expect("a URL");
    let to = format!("{}:{}", url.host_str().expect("a host"), url.port().unwrap_or(5432));
    let near = socket.local_addr().expect("it is bound");
    url.set_ip_host(near.ip()).expect("an address");
    url.set_port(Some(near.port())).expect("a port");
    (url.into(), to)
}

async fn refusal(broker: &Broker, scope: &str) -> Status {
    let get = GetTokenRequest { credential: "ci".into(), scopes: vec![scope.into()], ..Default::default() };
    broker.tokens().await.get_token(get).await.expect_err("there is no store")
}

#[tokio::test]
async fn a_database_that_is_down_at_the_start_is_waited_for_and_one_that_goes_away_does_not_stop_what_is_in_memory() {
    let socket = bound(([127, 0, 0, 1], 0).into());
    let (url, to) = database_behind(&socket).await;
    let stage = Stage::with_store(&url).await;
    let broker = stage.launch(&stage.credential("ci", ""), false).await;

    assert_eq!(broker.http("/healthz").await.status().as_u16(), 200, "it listens and lives");
    assert_eq!(broker.http("/readyz").await.status().as_u16(), 503);
    assert_eq!(broker.health().await, 2, "NOT_SERVING");
    let refused = refusal(&broker, "a").await;
    assert_eq!((refused.code(), reason(&refused)), (Code::Unavailable, "STORE_DOWN".into()));
    assert!(come_again(&refused).is_some());
    assert_eq!(stage.upstream.calls(), 0, "what cannot be stored is not asked for");

    let way = Way::open(socket, to.clone());
    broker.serving().await;
    let of = |scope: &str| GetToken::of(ClientSelector::new("ci").with_scopes([scope]));
    stage.clock.advance(Duration::from_secs(2));
    assert_eq!(get(&broker, of("a")).await, Ok(1), "without a restart");

    let socket = way.close().await;
    assert_eq!(get(&broker, of("a")).await, Ok(1), "from memory");
    let refused = refusal(&broker, "b").await;
    assert_eq!((refused.code(), reason(&refused)), (Code::Unavailable, "STORE_DOWN".into()));
    let way = Way::open(socket, to);
    stage.clock.advance(Duration::from_secs(2));
    eventually("new tokens are to be had again", async || get(&broker, of("b")).await == Ok(1)).await;
    assert_eq!(stage.upstream.calls(), 2);
    broker.stop().await;
    drop(way.close().await);
}
