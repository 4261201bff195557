//! The load: clients that get tokens, use them, report the dead ones and get others; and watchers.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use prost_types::Timestamp;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokencache_proto::v1::{
    Freshness, GetTokenRequest, GetTokenResponse, InvalidateTokenRequest, Token, TokenSelector, WatchTokensRequest,
    invalidate_token_request::Rejected, token_service_client::TokenServiceClient,
    watch_tokens_response::Event as WatchEvent,
};
use tokio::time::{sleep, timeout};
use tonic::{Request, Status, transport::Channel};

use crate::{
    clock::millis,
    fleet::{Fleet, reason},
    history::{Acknowledged, Answer, Event, Get, Report},
};

/// How long a call may take; it is sent along as `grpc-timeout`.
const DEADLINE: Duration = Duration::from_secs(5);

/// The numbers of all watches that were begun.
static STREAMS: AtomicU64 = AtomicU64::new(0);

/// One client task.
#[derive(Debug)]
pub(crate) struct Client {
    id: u32,
    fleet: Arc<Fleet>,
    stop: Arc<AtomicBool>,
    channels: Vec<TokenServiceClient<Channel>>,
    rng: StdRng,
    /// The newest generation that it has, by credential.
    held: HashMap<String, u64>,
}

/// What a client asks beside the name.
#[derive(Clone, Copy, Debug, Default)]
struct Ask {
    min_validity: Duration,
    held: u64,
    rejected: u64,
}

impl Client {
    /// A client with randomness of its own.
    pub(crate) fn new(
        id: u32,
        fleet: Arc<Fleet>,
        channels: Vec<TokenServiceClient<Channel>>,
        stop: Arc<AtomicBool>,
        seed: u64,
    ) -> Self {
        let rng = StdRng::seed_from_u64(seed.wrapping_mul(1_000_003).wrapping_add(u64::from(id)));
        Self { id, fleet, stop, channels, rng, held: HashMap::new() }
    }

    /// Works until it is told to stop.
    pub(crate) async fn run(mut self) {
        let home = self.rng.random_range(0..self.channels.len());
        while !self.stop.load(Ordering::Relaxed) {
            let credential = self.rng.random_range(0..self.fleet.truth.credentials().len());
            let name = self.fleet.truth.credentials()[credential].name.clone();
            let first = if self.rng.random_bool(0.5) { home } else { self.any_replica() };
            self.work(&name, first).await;
            let think = self.rng.random_range(20..100);
            sleep(Duration::from_millis(think)).await;
        }
    }

    fn any_replica(&mut self) -> usize {
        self.rng.random_range(0..self.channels.len())
    }

    /// Gets a token and uses it; reports it and gets another one if the upstream refuses it.
    async fn work(&mut self, name: &str, first: usize) {
        let held = self.held.get(name).copied().unwrap_or_default();
        let ask = Ask {
            min_validity: Duration::from_millis([0, 0, 500, 1500][self.rng.random_range(0..4)]),
            held: if self.rng.random_bool(0.5) { held } else { 0 },
            rejected: 0,
        };
        let Some((replica, token)) = self.get_somewhere(name, ask, first).await else { return };
        if self.present(name, &token) != 401 {
            return;
        }
        let other = if self.rng.random_bool(0.5) { replica } else { self.any_replica() };
        if self.rng.random_bool(0.5) {
            self.report(name, token.generation, other).await;
            // Deliberately without `rejected_generation`: the acknowledgement alone has to do.
            let next = self.any_replica();
            if let Some((_, token)) = self.get_somewhere(name, Ask::default(), next).await {
                self.present(name, &token);
            }
        } else {
            let ask = Ask { rejected: token.generation, ..Ask::default() };
            if let Some((_, token)) = self.get_somewhere(name, ask, other).await {
                self.present(name, &token);
            }
        }
    }

    /// Asks a replica, and up to two others if that fails for want of the replica.
    async fn get_somewhere(&mut self, name: &str, ask: Ask, first: usize) -> Option<(usize, Token)> {
        for i in 0..self.channels.len().min(3) {
            let replica = (first + i) % self.channels.len();
            match self.get(name, ask, replica).await {
                Ok(token) => return token.map(|token| (replica, token)),
                Err(status) if reason(&status) == "NEEDS_REAUTH" => {
                    let told = self.fleet.heard_of_loss(name, status.message(), replica).await;
                    if let Err(error) = told {
                        self.fleet.history.fault("cannot log in again", &error.to_string());
                    }
                    return None;
                }
                Err(status) if matches!(reason(&status).as_str(), "" | "DRAINING" | "STORE_DOWN") => {}
                Err(_) => return None,
            }
        }
        None
    }

    async fn get(&mut self, name: &str, ask: Ask, replica: usize) -> Result<Option<Token>, Status> {
        let mut request = Request::new(GetTokenRequest {
            credential: name.to_owned(),
            min_validity: prost_types::Duration::try_from(ask.min_validity).ok(),
            if_generation_not: ask.held,
            rejected_generation: ask.rejected,
            ..Default::default()
        });
        request.set_timeout(DEADLINE);
        let begun = self.fleet.history.clock().now();
        let answer = timeout(DEADLINE, self.channels[replica].get_token(request)).await;
        let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer")));
        let ended = self.fleet.history.clock().now();
        let answer = answer.map(tonic::Response::into_inner);
        self.fleet.history.add(Event::Get(Get {
            client: self.id,
            replica,
            credential: name.to_owned(),
            begun,
            ended,
            min_validity_ms: millis(ask.min_validity),
            held: ask.held,
            rejected: ask.rejected,
            answer: recorded(&answer),
        }));
        let token = answer?.token;
        if let Some(token) = &token {
            let held = self.held.entry(name.to_owned()).or_default();
            *held = (*held).max(token.generation);
        }
        Ok(token)
    }

    async fn report(&mut self, name: &str, generation: u64, replica: usize) {
        let mut request = Request::new(InvalidateTokenRequest {
            credential: name.to_owned(),
            rejected: Some(Rejected::Generation(generation)),
            http_status: 401,
            error: "invalid_token".to_owned(),
            ..Default::default()
        });
        request.set_timeout(DEADLINE);
        let begun = self.fleet.history.clock().now();
        let answer = timeout(DEADLINE, self.channels[replica].invalidate_token(request)).await;
        let ended = self.fleet.history.clock().now();
        let acknowledged = answer.ok().and_then(Result::ok).map(|answer| Acknowledged {
            invalidated: answer.get_ref().invalidated,
            min_generation: answer.get_ref().min_generation,
        });
        let (client, credential) = (self.id, name.to_owned());
        let report = Report { client, replica, credential, begun, ended, generation, acknowledged };
        self.fleet.history.add(Event::Report(report));
    }

    /// Calls the protected API; the status.
    fn present(&self, name: &str, token: &Token) -> u16 {
        let credential = self.fleet.truth.number(name).unwrap_or(usize::MAX);
        let answer = self.fleet.truth.api(credential, &token.access_token);
        self.fleet.history.add(Event::Use {
            client: self.id,
            credential: name.to_owned(),
            generation: token.generation,
            status: answer.status,
            claimed_expiry: wall(token.expires_at.as_ref()),
            expiry: answer.expiry,
        });
        answer.status
    }
}

fn recorded(answer: &Result<GetTokenResponse, Status>) -> Answer {
    match answer {
        Ok(response) => {
            let verified = response.freshness() == Freshness::Verified;
            match &response.token {
                Some(token) => Answer::Token {
                    generation: token.generation,
                    verified,
                    expires_at: wall(token.expires_at.as_ref()),
                    server_time: wall(response.server_time.as_ref()),
                },
                None => Answer::NotModified { verified },
            }
        }
        Err(status) => Answer::Failed { code: format!("{:?}", status.code()), reason: reason(status) },
    }
}

/// Milliseconds since the Unix epoch.
fn wall(at: Option<&Timestamp>) -> i64 {
    at.map_or(0, |at| at.seconds * 1000 + i64::from(at.nanos / 1_000_000))
}

/// Has the upstream take back access tokens before their time, now of this credential and now of that.
pub(crate) async fn revoke(fleet: Arc<Fleet>, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        if let Some(name) = fleet.truth.revoke_one() {
            fleet.history.fault("revoke access tokens", &name);
        }
        sleep(Duration::from_millis(700)).await;
    }
}

/// Watches all credentials on one replica until it is told to stop, beginning anew whenever the stream ends.
pub(crate) async fn watch(
    fleet: Arc<Fleet>,
    replica: usize,
    mut tokens: TokenServiceClient<Channel>,
    stop: Arc<AtomicBool>,
) {
    let selector = |name: &str| TokenSelector { credential: name.to_owned(), ..Default::default() };
    let selectors: Vec<_> = fleet.truth.credentials().iter().map(|c| selector(&c.name)).collect();
    while !stop.load(Ordering::Relaxed) {
        let stream = STREAMS.fetch_add(1, Ordering::Relaxed);
        let begun = timeout(DEADLINE, tokens.watch_tokens(WatchTokensRequest { selectors: selectors.clone() })).await;
        if let Ok(Ok(answer)) = begun {
            let mut changes = answer.into_inner();
            while !stop.load(Ordering::Relaxed) {
                let Ok(next) = timeout(Duration::from_secs(1), changes.message()).await else { continue };
                let Ok(Some(change)) = next else { break };
                if let (Some(selector), Some(WatchEvent::Token(token))) = (change.selector, change.event) {
                    let (credential, generation) = (selector.credential, token.generation);
                    fleet.history.add(Event::Watched { stream, replica, credential, generation });
                }
            }
        }
        sleep(Duration::from_millis(300)).await;
    }
}
