//! Any number of callers who want the same at the same time cost one upstream call.

use std::{collections::BTreeSet, time::Duration};

use futures::future::join_all;
use tokencache_proto::v1::{
    GetTokenRequest, GetTokenResponse, InvalidateTokenRequest, InvalidateTokenResponse,
    invalidate_token_request::Rejected, token_service_client::TokenServiceClient,
};
use tokio::task::JoinSet;
use tonic::{Request, transport::Channel};

use crate::broker::{Broker, Over, Stage, eventually};

const CALLERS: usize = 10_000;

/// Enough for all callers to be under way at once: a connection carries 128 calls.
const CONNECTIONS: usize = 80;

/// Longer than anything here takes, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(120);

type Tokens = TokenServiceClient<Channel>;

fn patient<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(PATIENCE);
    request
}

async fn get(mut tokens: Tokens, rejected_generation: u64) -> GetTokenResponse {
    let request = GetTokenRequest { credential: "ci".into(), rejected_generation, ..Default::default() };
    tokens.get_token(patient(request)).await.expect("a token").into_inner()
}

async fn invalidate(mut tokens: Tokens, generation: u64) -> InvalidateTokenResponse {
    let rejected = Some(Rejected::Generation(generation));
    let request = InvalidateTokenRequest { credential: "ci".into(), rejected, http_status: 401, ..Default::default() };
    tokens.invalidate_token(patient(request)).await.expect("it is taken note of").into_inner()
}

async fn connections(broker: &Broker) -> Vec<Tokens> {
    join_all((0..CONNECTIONS).map(|_| broker.tokens())).await
}

/// The generations and the tokens that the answers carry.
fn distinct(answers: &[GetTokenResponse]) -> BTreeSet<(u64, &str)> {
    let tokens = answers.iter().map(|answer| answer.token.as_ref().expect("every answer has a token"));
    tokens.map(|token| (token.generation, token.access_token.as_str())).collect()
}

/// The upstream answers nobody until all callers wait for it.
async fn a_herd_costs_one_call(over: Over) {
    let stage = Stage::new(over).await;
    let patience = "timeout = \"120s\"\nhttp = { timeout = \"120s\" }\n";
    let broker = stage.start(&stage.credential("ci", patience)).await;
    let connections = connections(&broker).await;

    stage.upstream.hold();
    let herd: JoinSet<_> = (0..CALLERS).map(|i| get(connections[i % CONNECTIONS].clone(), 0)).collect();
    let all_wait = async |count| {
        eventually("all callers wait", async || broker.metric("tokencache_misses_total").await == count).await;
    };
    all_wait(CALLERS as u64).await;
    stage.upstream.release();
    let first = herd.join_all().await;
    assert_eq!(distinct(&first).len(), 1, "all have the same token");
    assert_eq!(stage.upstream.calls(), 1);

    stage.upstream.hold();
    let (half, clients) = (CALLERS / 2, |i: usize| connections[i % CONNECTIONS].clone());
    let getting: JoinSet<_> = (0..half).map(|i| get(clients(i), 1)).collect();
    let reporting: JoinSet<_> = (0..half).map(|i| invalidate(clients(i), 1)).collect();
    let reports = reporting.join_all().await;
    assert!(reports.iter().all(|report| report.min_generation == 2));
    assert!(reports.iter().filter(|report| report.invalidated).count() <= 1, "one report at most takes it out");
    all_wait((CALLERS + half) as u64).await;
    stage.upstream.release();
    let second = getting.join_all().await;
    let replacements = distinct(&second);
    assert_eq!(replacements.iter().map(|(generation, _)| *generation).collect::<Vec<_>>(), [2]);
    assert_eq!(stage.upstream.calls(), 2);
    assert_eq!(broker.metric("tokencache_rejections_total").await, 1);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_callers_cost_one_upstream_call_and_as_many_reports_one_more_on_sqlite() {
    a_herd_costs_one_call(Over::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_callers_cost_one_upstream_call_and_as_many_reports_one_more_on_postgres() {
    a_herd_costs_one_call(Over::Postgres).await;
}
