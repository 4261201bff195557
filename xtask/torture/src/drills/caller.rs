//! Clients of drills: cheap enough for millions of calls; and a load of them that notes what failed.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokencache_proto::v1::{
    GetTokenRequest, GetTokenResponse, InvalidateTokenRequest, InvalidateTokenResponse,
    invalidate_token_request::Rejected, token_service_client::TokenServiceClient,
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tonic::{Code, Request, Status, transport::Channel};

use super::verdict::Verdict;
use crate::fleet::{Fleet, reason};

/// Connections to each replica: calls of one must not wait for another's.
const CONNECTIONS: usize = 3;

/// How many failures are remembered in words.
const WITNESSES: usize = 5;

/// What is asked beside the name.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ask {
    /// `rejected_generation`; 0: not sent.
    pub(crate) rejected: u64,
    pub(crate) min_validity: Duration,
}

/// A client of all replicas. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    replicas: Arc<Vec<Vec<TokenServiceClient<Channel>>>>,
    next: Arc<AtomicUsize>,
}

impl Caller {
    /// One that connects when it calls.
    pub(crate) fn new(fleet: &Fleet) -> Result<Self> {
        let connections = |replica: &Arc<crate::replica::Replica>| (0..CONNECTIONS).map(|_| replica.tokens()).collect();
        let replicas = fleet.replicas.iter().map(connections).collect::<Result<_>>()?;
        Ok(Self { replicas: Arc::new(replicas), next: Arc::default() })
    }

    /// Asks one replica, once.
    pub(crate) async fn get(
        &self,
        replica: usize,
        name: &str,
        ask: Ask,
        deadline: Duration,
    ) -> Result<GetTokenResponse, Status> {
        let mut request = Request::new(GetTokenRequest {
            credential: name.to_owned(),
            rejected_generation: ask.rejected,
            min_validity: prost_types::Duration::try_from(ask.min_validity).ok(),
            ..Default::default()
        });
        request.set_timeout(deadline);
        bounded(deadline, self.connection(replica).get_token(request)).await
    }

    /// Asks one replica, and once more a peer where that may help, as the client library does. Whether it was asked, too.
    pub(crate) async fn get_or_peer(
        &self,
        replica: usize,
        name: &str,
        deadline: Duration,
    ) -> (Result<GetTokenResponse, Status>, bool) {
        match self.get(replica, name, Ask::default(), deadline).await {
            Err(status) if is_the_replicas(&status) => {
                let peer = (replica + 1) % self.replicas.len();
                (self.get(peer, name, Ask::default(), deadline).await, true)
            }
            answer => (answer, false),
        }
    }

    /// Reports a generation as refused by the upstream.
    pub(crate) async fn invalidate(
        &self,
        replica: usize,
        name: &str,
        generation: u64,
        deadline: Duration,
    ) -> Result<InvalidateTokenResponse, Status> {
        let mut request = Request::new(InvalidateTokenRequest {
            credential: name.to_owned(),
            rejected: Some(Rejected::Generation(generation)),
            http_status: 401,
            ..Default::default()
        });
        request.set_timeout(deadline);
        bounded(deadline, self.connection(replica).invalidate_token(request)).await
    }

    fn connection(&self, replica: usize) -> TokenServiceClient<Channel> {
        let connections = &self.replicas[replica];
        connections[self.next.fetch_add(1, Ordering::Relaxed) % connections.len()].clone()
    }
}

async fn bounded<T>(
    deadline: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, Status> {
    // A little later than the replica's: its answer says more than none.
    let answer = timeout(deadline + Duration::from_millis(200), call).await;
    answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer"))).map(tonic::Response::into_inner)
}

/// Whether a peer may do better: it is the replica that failed, or the way to it.
fn is_the_replicas(status: &Status) -> bool {
    let lost_on_the_way = reason(status).is_empty() && status.code() != Code::DeadlineExceeded;
    status.code() == Code::Unavailable || lost_on_the_way
}

/// What a load saw.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) calls: AtomicU64,
    pub(crate) peers: AtomicU64,
    pub(crate) failures: AtomicU64,
    witnesses: Mutex<Vec<String>>,
}

impl Tally {
    /// Notes a failed call.
    pub(crate) fn fail(&self, words: String) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        let mut witnesses = self.witnesses.lock().unwrap_or_else(PoisonError::into_inner);
        if witnesses.len() < WITNESSES {
            witnesses.push(words);
        }
    }

    /// The first failures, in words.
    pub(crate) fn words(&self) -> String {
        self.witnesses.lock().unwrap_or_else(PoisonError::into_inner).join("; ")
    }

    /// How many calls there were.
    pub(crate) fn tell(&self, verdict: &mut Verdict) {
        let calls = self.calls.load(Ordering::Relaxed);
        verdict.figure("calls under load", calls);
        verdict.figure("of them answered by the peer", self.peers.load(Ordering::Relaxed));
        verdict.figure("failed calls", self.failures.load(Ordering::Relaxed));
        verdict.require(calls > 0, "there was no load");
    }

    /// No call may have failed.
    pub(crate) fn judge(&self, verdict: &mut Verdict) {
        self.tell(verdict);
        let [calls, failures] = [&self.calls, &self.failures].map(|count| count.load(Ordering::Relaxed));
        verdict.require(failures == 0, format!("{failures} of {calls} calls failed: {}", self.words()));
    }
}

/// A load of plain calls, until it is ended.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) tally: Arc<Tally>,
    stop: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

impl Load {
    /// Callers that ask any replica for any of these credentials, each a few dozen times a second.
    pub(crate) fn start(caller: &Caller, names: &[String], callers: usize, deadline: Duration, seed: u64) -> Self {
        let (tally, stop) = (Arc::<Tally>::default(), Arc::new(AtomicBool::new(false)));
        let (names, mut tasks) = (Arc::new(names.to_vec()), JoinSet::new());
        for id in 0..callers {
            let (caller, names) = (caller.clone(), Arc::clone(&names));
            let (tally, stop) = (Arc::clone(&tally), Arc::clone(&stop));
            let mut rng = StdRng::seed_from_u64(seed.wrapping_mul(1_000_003).wrapping_add(id as u64));
            tasks.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let name = &names[rng.random_range(0..names.len())];
                    let replica = rng.random_range(0..caller.replicas.len());
                    let (answer, asked_peer) = caller.get_or_peer(replica, name, deadline).await;
                    tally.calls.fetch_add(1, Ordering::Relaxed);
                    tally.peers.fetch_add(u64::from(asked_peer), Ordering::Relaxed);
                    if let Err(status) = answer {
                        tally.fail(format!("{name} of r{replica}: {:?} {}", status.code(), status.message()));
                    }
                    sleep(Duration::from_millis(rng.random_range(5..40))).await;
                }
            });
        }
        Self { tally, stop, tasks }
    }

    /// Ends it, and says what it saw.
    pub(crate) async fn end(mut self) -> Arc<Tally> {
        self.stop.store(true, Ordering::Relaxed);
        while self.tasks.join_next().await.is_some() {}
        self.tally
    }
}
