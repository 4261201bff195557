//! Callers who go away cancel nothing, lose nothing and break nothing.

use std::{collections::BTreeSet, time::Duration};

use futures::{StreamExt as _, future::join_all, stream};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokencache_proto::v1::{
    DescribeCredentialRequest, GetTokenRequest, InvalidateTokenRequest, ListCredentialsRequest,
    invalidate_token_request::Rejected, token_service_client::TokenServiceClient,
};
use tokio::time::timeout;
use tonic::{Code, Request, Status, transport::Channel};

use crate::{
    broker::{Broker, Over, Stage, come_again, patiently},
    upstream::Upstream,
};

const CANCELLATIONS: usize = 10_000;
const KEYS: usize = 200;
const CONNECTIONS: usize = 20;

/// As many as are cut short in the midst of their work: of many more at once most would be so before it began.
const AT_ONCE: usize = 40;

/// How many tokens are to be replaced meanwhile: a machine that does much else needs more calls for that.
const REPLACED: usize = 50;

/// The seed of everything random here; a failure repeats with it, as far as the scheduler lets it.
const SEED: u64 = 0x5eed;

/// One call, and how long its caller waits.
struct Plan {
    key: usize,
    ask: Ask,
    patience: Duration,
    /// Whether the broker is told, or the caller just goes away.
    told: bool,
}

enum Ask {
    Get,
    GetInsteadOf(u64),
    Invalidate(u64),
}

impl Plan {
    fn draw(rng: &mut StdRng) -> Self {
        let ask = match rng.random_range(0..10) {
            0..=5 => Ask::Get,
            6..=7 => Ask::GetInsteadOf(rng.random_range(1..=3)),
            _ => Ask::Invalidate(rng.random_range(1..=3)),
        };
        let patience = Duration::from_micros(rng.random_range(50..20_000));
        Self { key: rng.random_range(0..KEYS), ask, patience, told: rng.random() }
    }

    /// Makes the call. Whether it was cut short.
    async fn run(self, mut tokens: TokenServiceClient<Channel>) -> bool {
        let (credential, scopes) = ("ci".to_owned(), vec![scope(self.key)]);
        let (told, patience) = (self.told, self.patience);
        let call = async move {
            match self.ask {
                Ask::Get | Ask::GetInsteadOf(_) => {
                    let rejected_generation = if let Ask::GetInsteadOf(generation) = self.ask { generation } else { 0 };
                    let get = GetTokenRequest { credential, scopes, rejected_generation, ..Default::default() };
                    tokens.get_token(with_timeout(get, told, patience)).await.map(drop)
                }
                Ask::Invalidate(generation) => {
                    let rejected = Some(Rejected::Generation(generation));
                    let report = InvalidateTokenRequest { credential, scopes, rejected, ..Default::default() };
                    tokens.invalidate_token(with_timeout(report, told, patience)).await.map(drop)
                }
            }
        };
        if told {
            call.await.is_err_and(|status| is_cut_short(&status))
        } else {
            timeout(patience, call).await.is_err()
        }
    }
}

fn with_timeout<T>(message: T, told: bool, patience: Duration) -> Request<T> {
    let mut request = Request::new(message);
    if told {
        request.set_timeout(patience);
    }
    request
}

/// Whether the deadline passed. Otherwise the broker has refused a storm of rejections or is overloaded, and says when to
/// come again; anything else is a failure.
fn is_cut_short(status: &Status) -> bool {
    let is_cut_short = [Code::DeadlineExceeded, Code::Cancelled].contains(&status.code());
    assert!(is_cut_short || come_again(status).is_some(), "{status:?}");
    is_cut_short
}

fn scope(key: usize) -> String {
    format!("scope-{key}")
}

async fn cancel(broker: &Broker, upstream: &Upstream) {
    let connections = join_all((0..CONNECTIONS).map(|_| broker.tokens())).await;
    let mut rng = StdRng::seed_from_u64(SEED);
    let plans = (0..).map(|i| Plan::draw(&mut rng).run(connections[i % CONNECTIONS].clone()));
    let mut outcomes = stream::iter(plans).buffer_unordered(AT_ONCE);
    let mut cancelled = 0;
    while cancelled < CANCELLATIONS || upstream.calls() < KEYS + REPLACED {
        cancelled += usize::from(outcomes.next().await.expect("the plans have no end"));
    }
}

/// Every key is served; what is served.
async fn every_key_is_served(broker: &Broker) -> BTreeSet<String> {
    let tokens = broker.tokens().await;
    let calls = (0..KEYS).map(|key| {
        let mut tokens = tokens.clone();
        async move {
            let get = GetTokenRequest { credential: "ci".into(), scopes: vec![scope(key)], ..Default::default() };
            let answer = patiently(async || tokens.get_token(get.clone()).await).await;
            let answer = answer.unwrap_or_else(|status| panic!("{}: {status:?}", scope(key)));
            answer.into_inner().token.expect("a token").access_token
        }
    });
    stream::iter(calls).buffer_unordered(50).collect().await
}

async fn callers_may_go_away(over: Over) {
    let stage = Stage::new(over).await;
    let credential = stage.credential("ci", "");
    let broker = stage.start(&credential).await;
    stage.upstream.take(Duration::from_millis(5));
    cancel(&broker, &stage.upstream).await;

    every_key_is_served(&broker).await;
    let mut admin = broker.admin().await;
    for operation in 0..200 {
        let listed = patiently(async || admin.list_credentials(ListCredentialsRequest::default()).await).await;
        assert!(listed.is_ok(), "operation {operation}: {listed:?}");
    }
    // A report whose caller has gone away may still be taken, until the broker has ended.
    broker.stop().await;

    let second = stage.start(&credential).await;
    let served = every_key_is_served(&second).await;
    let minted = stage.upstream.calls();
    let mut admin = second.admin().await;
    let describe = DescribeCredentialRequest { name: "ci".into() };
    let described = patiently(async || admin.describe_credential(describe.clone()).await).await;
    let tokens = described.expect("the store answers").into_inner().tokens;
    let stored: u64 = tokens.iter().map(|token| token.generation).sum();
    assert_eq!((tokens.len(), stored), (KEYS, minted as u64), "every mint was stored");
    second.stop().await;

    let third = stage.start(&credential).await;
    let kept = every_key_is_served(&third).await;
    assert_eq!(kept.symmetric_difference(&served).collect::<Vec<_>>(), Vec::<&String>::new(), "no result was lost");
    assert_eq!(
        (served.len(), stage.upstream.calls()),
        (KEYS, minted),
        "each key has a token of its own, from the store"
    );
    third.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_cancellations_leave_nothing_lost_and_nothing_broken_on_sqlite() {
    callers_may_go_away(Over::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_cancellations_leave_nothing_lost_and_nothing_broken_on_postgres() {
    callers_may_go_away(Over::Postgres).await;
}

/// Many calls that run into their deadlines together must not cost the connection that others use as well.
#[tokio::test]
async fn calls_that_are_given_up_together_do_not_end_those_of_others_on_the_same_connection() {
    let stage = Stage::new(Over::Memory).await;
    let broker = stage.start(&stage.credential("ci", "")).await;
    let tokens = broker.tokens().await;
    stage.upstream.hold();
    let get = |key| GetTokenRequest { credential: "ci".into(), scopes: vec![scope(key)], ..Default::default() };
    let mut steady = tokens.clone();
    let steady = tokio::spawn(async move { steady.get_token(get(0)).await });
    for _ in 0..50 {
        let hasty = (0..100).map(|_| {
            let mut tokens = tokens.clone();
            timeout(Duration::from_millis(1), async move { tokens.get_token(get(0)).await })
        });
        let failed = join_all(hasty).await.into_iter().find_map(|call| call.ok()?.err());
        assert!(failed.is_none(), "each is given up, none fails: {failed:?}");
    }
    stage.upstream.release();
    let answer = steady.await.expect("no panic").expect("the connection is the one from before");
    assert_eq!(answer.into_inner().token.expect("a token").generation, 1);
    assert_eq!(stage.upstream.calls(), 1);
    broker.stop().await;
}
