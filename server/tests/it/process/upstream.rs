//! A token endpoint that answers when the test says so.

use std::{collections::HashMap, sync::Arc};

use axum::{Form, Json, Router, extract::State, http::StatusCode, response::IntoResponse, routing::post};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    task::JoinHandle,
};

/// The endpoint. It ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Upstream {
    url: String,
    state: Arc<Inner>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Inner {
    /// One permit for each answer that may be given.
    gate: Semaphore,
    /// One for each request, in order.
    answers: Vec<(StatusCode, Value)>,
    received: watch::Sender<Vec<HashMap<String, String>>>,
}

impl Upstream {
    /// An endpoint that answers the n-th request with the n-th of these, once [`Upstream::release`] lets it.
    pub(crate) async fn start(answers: impl IntoIterator<Item = (StatusCode, Value)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/token", listener.local_addr().expect("an address"));
        let answers = answers.into_iter().collect();
        let state = Arc::new(Inner { gate: Semaphore::new(0), answers, received: watch::Sender::default() });
        let router = Router::new().route("/token", post(token)).with_state(Arc::clone(&state));
        let task =
            tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves until it is dropped") });
        Self { url, state, task }
    }

    /// Where it is.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Lets so many answers out.
    pub(crate) fn release(&self, answers: usize) {
        self.state.gate.add_permits(answers);
    }

    /// Waits until it has received so many requests.
    pub(crate) async fn until_asked(&self, times: usize) {
        let mut received = self.state.received.subscribe();
        received.wait_for(|requests| requests.len() >= times).await.expect("the sender lives");
    }

    /// The refresh tokens that it was sent, in order.
    pub(crate) fn refresh_tokens(&self) -> Vec<String> {
        let requests = self.state.received.borrow();
        requests.iter().map(|request| request.get("refresh_token").cloned().unwrap_or_default()).collect()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn token(State(state): State<Arc<Inner>>, Form(request): Form<HashMap<String, String>>) -> impl IntoResponse {
    let mut number = 0;
    state.received.send_modify(|received| {
        number = received.len();
        received.push(request);
    });
    state.gate.acquire().await.expect("the gate is never closed").forget();
    match state.answers.get(number).cloned() {
        Some((status, body)) => (status, Json(body)),
        None => (StatusCode::INTERNAL_SERVER_ERROR, Json(json!({ "error": "more requests than answers" }))),
    }
}

/// An answer with a token and, unless it is empty, a refresh token.
pub(crate) fn minted(access_token: &str, refresh_token: &str) -> (StatusCode, Value) {
    let mut body = json!({ "access_token": access_token, "token_type": "Bearer", "expires_in": 3600 });
    if !refresh_token.is_empty() {
        body["refresh_token"] = refresh_token.into();
    }
    (StatusCode::OK, body)
}

/// An error of RFC 6749 section 5.2.
pub(crate) fn refused(error: &str) -> (StatusCode, Value) {
    (StatusCode::BAD_REQUEST, json!({ "error": error }))
}
