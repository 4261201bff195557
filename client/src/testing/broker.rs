//! A broker in memory: the real protocol, over a pipe instead of a network.

use std::{
    collections::BTreeMap,
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use hyper_util::rt::TokioIo;
use tokencache_proto::v1::{
    self,
    invalidate_token_request::Rejected,
    token_service_server::{TokenService, TokenServiceServer},
    watch_tokens_response::Event,
};
use tokio::{
    io::DuplexStream,
    net::TcpListener,
    sync::{mpsc, watch},
};
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tonic::{
    Code, Request, Response, Status,
    transport::{Channel, Endpoint, Server},
};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::{Client, DEFAULT_DEADLINE, backoff::RetryBudget, connection::Connection, replicas::Replicas};

/// How much a pipe holds.
const PIPE: usize = 64 * 1024;

/// A broker for tests. Its tokens are made up, its behaviour is that of the real one: a token is kept until it expires or is
/// refused, a report on one that was replaced changes nothing, and who watches is told. Cheap to clone; clones share it.
#[derive(Clone)]
pub struct MemoryBroker {
    tokens: Arc<Tokens>,
    connection: Connection,
}

#[derive(Debug)]
struct Tokens {
    credentials: Mutex<BTreeMap<String, Credential>>,
    /// Counts the changes, so that streams look again; and whether the broker is there.
    changes: watch::Sender<(u64, bool)>,
}

#[derive(Debug)]
struct Credential {
    lifetime: Duration,
    generation: u64,
    min_generation: u64,
    expires_at: SystemTime,
    minted: u64,
    reports: u64,
    failure: Option<(Code, String)>,
}

impl Default for MemoryBroker {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryBroker {
    /// One without credentials.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, to which it belongs.
    #[must_use]
    pub fn new() -> Self {
        let (changes, _) = watch::channel((0, true));
        let tokens = Arc::new(Tokens { credentials: Mutex::default(), changes });
        let (pipes, incoming) = mpsc::unbounded_channel();
        let service = TokenServiceServer::new(Service(Arc::clone(&tokens)));
        let incoming = UnboundedReceiverStream::new(incoming);
        tokio::spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
        let channel: Channel = Endpoint::from_static("http://memory").connect_with_connector_lazy(Pipes(pipes));
        let connection = Connection {
            replicas: Arc::new(Replicas::new(vec![channel])),
            budget: Arc::new(RetryBudget::new()),
            identity: None,
            traces: None,
            deadline: DEFAULT_DEADLINE,
        };
        Self { tokens, connection }
    }

    /// A client of it.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(self.connection.clone())
    }

    /// Serves on a free port of the loopback address as well, for programs under test. Returns the endpoint.
    ///
    /// # Errors
    ///
    /// If the operating system gives no port.
    pub async fn listen(&self) -> io::Result<String> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let service = TokenServiceServer::new(Service(Arc::clone(&self.tokens)));
        let incoming = TcpListenerStream::new(listener);
        tokio::spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
        Ok(endpoint)
    }

    /// Adds a credential whose tokens live so long.
    pub fn add(&self, credential: impl Into<String>, lifetime: Duration) {
        let fresh = Credential {
            lifetime,
            generation: 0,
            min_generation: 1,
            expires_at: SystemTime::UNIX_EPOCH,
            minted: 0,
            reports: 0,
            failure: None,
        };
        self.tokens.credentials().insert(credential.into(), fresh);
    }

    /// Replaces the token, as the broker does ahead of expiry.
    ///
    /// # Panics
    ///
    /// If there is no such credential, here and below.
    pub fn refresh(&self, credential: &str) {
        self.with(credential, Credential::mint);
    }

    /// From now on there is no new token; `reason` is one of the broker's, e.g. `UPSTREAM_DOWN` or `NEEDS_REAUTH`.
    pub fn fail(&self, credential: &str, reason: &str) {
        let code = match reason {
            "NEEDS_REAUTH" | "MISCONFIGURED" | "KEY_MISSING" | "CONFIG_TAMPERED" => Code::FailedPrecondition,
            "TOO_MANY_INVALIDATIONS" | "TOO_MANY_REQUESTS" | "OVERLOADED" => Code::ResourceExhausted,
            _ => Code::Unavailable,
        };
        self.with(credential, |credential| credential.failure = Some((code, reason.to_owned())));
    }

    /// There are new tokens again.
    pub fn mend(&self, credential: &str) {
        self.with(credential, |credential| credential.failure = None);
    }

    /// Whether the broker is there. While it is away every call fails, and streams end.
    pub fn set_present(&self, present: bool) {
        self.tokens.changes.send_modify(|changes| *changes = (changes.0 + 1, present));
    }

    /// How many tokens were minted.
    #[must_use]
    pub fn minted(&self, credential: &str) -> u64 {
        self.with(credential, |credential| credential.minted)
    }

    /// How often a token was reported as refused.
    #[must_use]
    pub fn reports(&self, credential: &str) -> u64 {
        self.with(credential, |credential| credential.reports)
    }

    fn with<T>(&self, name: &str, act: impl FnOnce(&mut Credential) -> T) -> T {
        let mut credentials = self.tokens.credentials();
        let done = act(credentials.get_mut(name).unwrap_or_else(|| panic!("there is no credential {name:?}: add it")));
        drop(credentials);
        self.tokens.changed();
        done
    }
}

impl fmt::Debug for MemoryBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBroker").field("tokens", &self.tokens).finish_non_exhaustive()
    }
}

impl Credential {
    fn mint(&mut self) {
        self.generation += 1;
        self.minted += 1;
        self.expires_at = now() + self.lifetime;
    }

    /// The current token, if need be a new one.
    fn token(&mut self, name: &str) -> Result<v1::Token, Status> {
        if self.generation < self.min_generation || self.expires_at <= now() {
            if let Some((code, reason)) = &self.failure {
                let details = ErrorDetails::with_error_info(
                    reason.as_str(),
                    tokencache_proto::ERROR_DOMAIN,
                    [("credential".to_owned(), name.to_owned())],
                );
                return Err(Status::with_error_details(*code, "as the test wishes", details));
            }
            self.mint();
        }
        Ok(v1::Token {
            access_token: format!("token-{}-of-{name}", self.generation),
            token_type: "Bearer".into(),
            expires_at: Some(self.expires_at.into()),
            issued_at: Some((self.expires_at - self.lifetime).into()),
            generation: self.generation,
            fingerprint: format!("{:016x}", self.generation),
            ..v1::Token::default()
        })
    }

    fn failure(&self, name: &str) -> Result<(), Status> {
        let Some((code, reason)) = &self.failure else { return Ok(()) };
        let about = [("credential".to_owned(), name.to_owned())];
        let details = ErrorDetails::with_error_info(reason.as_str(), tokencache_proto::ERROR_DOMAIN, about);
        Err(Status::with_error_details(*code, "as the test wishes", details))
    }

    /// Fails as long as the upstream is thought to refuse fresh tokens.
    fn refuse_reports(&self, name: &str) -> Result<(), Status> {
        match &self.failure {
            Some((Code::ResourceExhausted, _)) => self.failure(name),
            _ => Ok(()),
        }
    }

    /// Whether this report took the token out of service.
    fn reject(&mut self, generation: u64) -> bool {
        self.reports += 1;
        let rejects = generation == self.generation && generation >= self.min_generation;
        if rejects {
            self.min_generation = generation + 1;
        }
        rejects
    }
}

impl Tokens {
    fn credentials(&self) -> MutexGuard<'_, BTreeMap<String, Credential>> {
        self.credentials.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.changes.send_modify(|changes| changes.0 += 1);
    }

    fn with<T>(&self, name: &str, act: impl FnOnce(&mut Credential) -> Result<T, Status>) -> Result<T, Status> {
        if !self.changes.borrow().1 {
            return Err(away());
        }
        act(self.credentials().get_mut(name).ok_or_else(|| Status::not_found("there is no such credential"))?)
    }
}

/// Its behaviour over the wire.
#[derive(Debug)]
struct Service(Arc<Tokens>);

/// What a stream has told of a selector.
#[derive(Debug)]
struct Watched {
    selector: v1::TokenSelector,
    generation: Option<u64>,
    min_generation: u64,
}

impl Watched {
    fn new(selector: v1::TokenSelector) -> Self {
        Self { selector, generation: None, min_generation: 0 }
    }

    /// What is new: first the token, or why there is none.
    fn look(&mut self, tokens: &Tokens) -> Option<v1::WatchTokensResponse> {
        let name = self.selector.credential.clone();
        let looked = tokens.with(&name, |credential| {
            if self.generation.is_some() && credential.min_generation > self.min_generation.max(credential.generation) {
                self.min_generation = credential.min_generation;
                return Ok(Some(Event::Invalidated(v1::TokenInvalidated { min_generation: self.min_generation })));
            }
            if self.generation == Some(credential.generation) {
                return Ok(None);
            }
            let token = credential.token(&name)?;
            (self.generation, self.min_generation) = (Some(token.generation), credential.min_generation);
            Ok(Some(Event::Token(token)))
        });
        let event = looked.unwrap_or_else(|status| {
            self.generation = Some(0);
            let (code, message) = (status.code().into(), status.message().to_owned());
            Some(Event::Unavailable(tonic_types::pb::Status { code, message, details: vec![] }))
        });
        event.map(|event| v1::WatchTokensResponse { selector: Some(self.selector.clone()), event: Some(event) })
    }
}

fn away() -> Status {
    Status::unavailable("the broker is away, as the test wishes")
}

#[tonic::async_trait]
impl TokenService for Service {
    async fn get_token(&self, request: Request<v1::GetTokenRequest>) -> Result<Response<v1::GetTokenResponse>, Status> {
        let request = request.into_inner();
        let token = self.0.with(&request.credential, |credential| {
            if request.rejected_generation != 0 {
                credential.refuse_reports(&request.credential)?;
                credential.reject(request.rejected_generation);
            }
            credential.token(&request.credential)
        });
        self.0.changed();
        let token = token?;
        let not_modified = request.if_generation_not == token.generation;
        Ok(Response::new(v1::GetTokenResponse {
            token: (!not_modified).then_some(token),
            not_modified,
            freshness: v1::Freshness::Verified.into(),
            server_time: Some(now().into()),
        }))
    }

    type WatchTokensStream = UnboundedReceiverStream<Result<v1::WatchTokensResponse, Status>>;

    async fn watch_tokens(
        &self,
        request: Request<v1::WatchTokensRequest>,
    ) -> Result<Response<Self::WatchTokensStream>, Status> {
        let mut changes = self.0.changes.subscribe();
        let (events, stream) = mpsc::unbounded_channel();
        let mut watched: Vec<_> = request.into_inner().selectors.into_iter().map(Watched::new).collect();
        let tokens = Arc::clone(&self.0);
        tokio::spawn(async move {
            while changes.borrow_and_update().1 {
                for event in watched.iter_mut().filter_map(|watched| watched.look(&tokens)) {
                    // Whoever listens no more does not mind.
                    let _ = events.send(Ok(event));
                }
                if events.is_closed() || changes.changed().await.is_err() {
                    return;
                }
            }
            let _ = events.send(Err(away()));
        });
        Ok(Response::new(UnboundedReceiverStream::new(stream)))
    }

    async fn invalidate_token(
        &self,
        request: Request<v1::InvalidateTokenRequest>,
    ) -> Result<Response<v1::InvalidateTokenResponse>, Status> {
        let request = request.into_inner();
        let status = request.http_status;
        let answer = self.0.with(&request.credential, |credential| {
            let generation = match request.rejected {
                Some(Rejected::Generation(generation)) => generation,
                Some(Rejected::Fingerprint(fingerprint)) => u64::from_str_radix(&fingerprint, 16).unwrap_or_default(),
                None => 0,
            };
            let invalidated = matches!(status, 0 | 401) && credential.reject(generation);
            Ok(v1::InvalidateTokenResponse { invalidated, min_generation: credential.min_generation })
        });
        self.0.changed();
        answer.map(Response::new)
    }
}

#[expect(clippy::disallowed_methods, reason = "it is a broker, and has a clock")]
fn now() -> SystemTime {
    SystemTime::now()
}

/// Makes connections to it.
#[derive(Clone)]
struct Pipes(mpsc::UnboundedSender<io::Result<DuplexStream>>);

impl tower_service::Service<http::Uri> for Pipes {
    type Response = TokioIo<DuplexStream>;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let (ours, theirs) = tokio::io::duplex(PIPE);
        let sent = self.0.send(Ok(theirs));
        std::future::ready(sent.map(|()| TokioIo::new(ours)).map_err(|_| io::ErrorKind::ConnectionRefused.into()))
    }
}
