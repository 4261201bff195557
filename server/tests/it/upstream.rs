//! An identity provider of the tests' own, over real HTTP: it counts what it is asked, and fails as it is told.

mod fault;
mod tokens;

use std::{
    collections::{HashMap, VecDeque},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Form, Router,
    body::Body,
    extract::State,
    http::{HeaderMap, Request, Response, StatusCode, header},
    response::IntoResponse as _,
    routing::{get, post},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokencache_server::time::SharedClock;
use tokio::{
    net::TcpListener,
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::sleep,
};
use tower::ServiceExt as _;

use self::{fault::Cut, tokens::Tokens};
pub(crate) use fault::Fault;

/// The client that the provider knows, and its secret.
pub(crate) const CLIENT_ID: &str = "broker";
pub(crate) const CLIENT_SECRET: &str = "cl13nt-s3cr3t";

/// The provider. It ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Upstream {
    url: String,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<Script>,
    held: watch::Sender<bool>,
}

/// What is done at the next calls, and what was done at those before.
#[derive(Debug)]
struct Script {
    next: VecDeque<Fault>,
    always: Option<Fault>,
    delay: Duration,
    calls: usize,
    under_way: usize,
    most_at_once: usize,
    traceparents: Vec<Option<String>>,
    tokens: Tokens,
}

impl Upstream {
    /// Listens on a free port. Its tokens last for an hour of `clock`.
    pub(crate) async fn start(clock: SharedClock) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let script = Script {
            next: VecDeque::new(),
            always: None,
            delay: Duration::ZERO,
            calls: 0,
            under_way: 0,
            most_at_once: 0,
            traceparents: Vec::new(),
            tokens: Tokens::new(clock, Duration::from_secs(3600)),
        };
        let shared = Arc::new(Shared { state: Mutex::new(script), held: watch::Sender::new(false) });
        let task = tokio::spawn(serve(listener, routes(Arc::clone(&shared))));
        Self { url, shared, task }
    }

    /// `http://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Does this at the next call that nothing is planned for yet.
    pub(crate) fn then(&self, fault: Fault) {
        self.script().next.push_back(fault);
    }

    /// Has the next attempt by client credentials fail so. The end of a connection that was kept does not yet: the call is
    /// made once more.
    pub(crate) fn spoil_attempt(&self, fault: Fault) {
        if matches!(fault, Fault::Cut) {
            self.then(Fault::Cut);
        }
        self.then(fault);
    }

    /// Does this at every call that nothing else is planned for; `None`: works again.
    pub(crate) fn always(&self, fault: Option<Fault>) {
        self.script().always = fault;
    }

    /// Takes so long for each answer.
    pub(crate) fn take(&self, delay: Duration) {
        self.script().delay = delay;
    }

    /// Lets tokens that are issued from now on last for this long.
    pub(crate) fn issue_for(&self, lifetime: Duration) {
        self.script().tokens.lifetime = lifetime;
    }

    /// Answers no call until [`Upstream::release`].
    pub(crate) fn hold(&self) {
        self.shared.held.send_replace(true);
    }

    /// Answers the calls that were held.
    pub(crate) fn release(&self) {
        self.shared.held.send_replace(false);
    }

    /// How often the token endpoint was called.
    pub(crate) fn calls(&self) -> usize {
        self.script().calls
    }

    /// The most calls that were under way at once.
    pub(crate) fn most_at_once(&self) -> usize {
        self.script().most_at_once
    }

    /// What each call said of the trace that it belongs to.
    pub(crate) fn traceparents(&self) -> Vec<Option<String>> {
        self.script().traceparents.clone()
    }

    /// The first refresh token of a new family.
    pub(crate) fn new_family(&self) -> String {
        self.script().tokens.new_family()
    }

    /// How often a refresh token was sent that had been used before.
    pub(crate) fn reuses(&self) -> usize {
        self.script().tokens.reuses
    }

    /// How many refresh tokens were exchanged for others.
    pub(crate) fn rotations(&self) -> usize {
        self.script().tokens.rotations
    }

    /// The most calls with the same refresh token that were under way at once.
    pub(crate) fn most_live_calls(&self) -> usize {
        self.script().tokens.most_live
    }

    /// Revokes an access token, as an operator of the provider would.
    pub(crate) fn revoke(&self, access_token: &str) {
        self.script().tokens.revoke(access_token);
    }

    /// Whether an access token was revoked.
    pub(crate) fn is_revoked(&self, access_token: &str) -> bool {
        self.script().tokens.is_revoked(access_token)
    }

    /// Every secret that was ever given out.
    pub(crate) fn secrets(&self) -> Vec<String> {
        self.script().tokens.secrets()
    }

    /// What the protected API answers to this token.
    pub(crate) async fn call_api(&self, access_token: &str) -> u16 {
        let client = reqwest::Client::builder().no_proxy().build().expect("valid settings");
        let response = client.get(format!("{}/api", self.url)).bearer_auth(access_token).send().await;
        response.expect("the API answers").status().as_u16()
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.shared.script()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn script(&self) -> MutexGuard<'_, Script> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call with a refresh token, as long as it is under way.
struct Live {
    shared: Arc<Shared>,
    refresh_token: String,
}

impl Drop for Live {
    fn drop(&mut self) {
        self.shared.script().tokens.end_call(&self.refresh_token);
    }
}

/// A call, as long as it is under way.
struct UnderWay(Arc<Shared>);

impl UnderWay {
    fn begin(shared: &Arc<Shared>) -> Self {
        let mut script = shared.script();
        script.under_way += 1;
        script.most_at_once = script.most_at_once.max(script.under_way);
        Self(Arc::clone(shared))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.script().under_way -= 1;
    }
}

fn routes(shared: Arc<Shared>) -> Router {
    Router::new().route("/token", post(token)).route("/revoke", post(revoke)).route("/api", get(api)).with_state(shared)
}

type Parameters = Form<HashMap<String, String>>;

async fn token(State(shared): State<Arc<Shared>>, headers: HeaderMap, Form(form): Parameters) -> Response<Body> {
    let refresh_token = form.get("refresh_token").cloned();
    let _under_way = UnderWay::begin(&shared);
    let (fault, delay) = {
        let mut script = shared.script();
        script.calls += 1;
        let traceparent = headers.get("traceparent").and_then(|value| value.to_str().ok());
        script.traceparents.push(traceparent.map(str::to_owned));
        if let Some(sent) = &refresh_token {
            script.tokens.begin_call(sent);
        }
        (script.next.pop_front().or_else(|| script.always.clone()), script.delay)
    };
    // It ends when the answer is there, or the caller has gone.
    let _live = refresh_token.map(|refresh_token| Live { shared: Arc::clone(&shared), refresh_token });
    let mut held = shared.held.subscribe();
    let _ = held.wait_for(|held| !held).await;
    sleep(delay).await;
    match fault {
        Some(Fault::Lose) => {
            drop(shared.script().tokens.answer(&form));
            Fault::Cut.into_response().await
        }
        Some(fault) => fault.into_response().await,
        None if !is_client(&headers) => tokens::refusal(StatusCode::UNAUTHORIZED, "invalid_client"),
        None => shared.script().tokens.answer(&form),
    }
}

async fn revoke(State(shared): State<Arc<Shared>>, headers: HeaderMap, Form(form): Parameters) -> StatusCode {
    if !is_client(&headers) {
        return StatusCode::UNAUTHORIZED;
    }
    if let Some(token) = form.get("token") {
        shared.script().tokens.revoke(token);
    }
    StatusCode::OK
}

async fn api(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response<Body> {
    let token = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    if token.is_some_and(|token| shared.script().tokens.is_good(token)) {
        return StatusCode::OK.into_response();
    }
    let challenge = [(header::WWW_AUTHENTICATE, "Bearer error=\"invalid_token\"")];
    (StatusCode::UNAUTHORIZED, challenge).into_response()
}

/// `client_secret_basic` (RFC 6749 section 2.3.1).
fn is_client(headers: &HeaderMap) -> bool {
    let expected = format!("Basic {}", BASE64_STANDARD.encode(format!("{CLIENT_ID}:{CLIENT_SECRET}")));
    headers.get(header::AUTHORIZATION).is_some_and(|value| value.as_bytes() == expected.as_bytes())
}

async fn serve(listener: TcpListener, router: Router) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let router = router.clone();
        let service = service_fn(move |request| answer(router.clone(), request));
        // A connection that breaks is part of many a test.
        connections
            .spawn(async move { drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await) });
    }
}

async fn answer(router: Router, request: Request<Incoming>) -> io::Result<Response<Body>> {
    let Ok(response) = router.oneshot(request.map(Body::new)).await;
    // hyper closes the connection without a word.
    if response.extensions().get::<Cut>().is_some() { Err(io::Error::other("cut")) } else { Ok(response) }
}
