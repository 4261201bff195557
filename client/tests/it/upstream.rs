//! An upstream that accepts one token and refuses all others, and writes down what it was sent.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

/// What was sent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sent {
    pub(crate) method: Method,
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) status: StatusCode,
}

/// The upstream. It serves until the test ends.
#[derive(Clone, Debug)]
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    seen: Arc<Seen>,
}

#[derive(Debug)]
struct Seen {
    /// The generation of the one token that is accepted.
    accepted: AtomicU64,
    sent: Mutex<Vec<Sent>>,
}

impl Upstream {
    pub(crate) async fn start() -> Self {
        Self::serve(None).await
    }

    pub(crate) async fn start_tls(acceptor: TlsAcceptor) -> Self {
        Self::serve(Some(acceptor)).await
    }

    async fn serve(acceptor: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let seen = Arc::new(Seen { accepted: AtomicU64::new(1), sent: Mutex::default() });
        let upstream = Self { address, seen: Arc::clone(&seen) };
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                let (acceptor, seen) = (acceptor.clone(), Arc::clone(&seen));
                tokio::spawn(async move {
                    match acceptor {
                        // A client that does not trust us goes away.
                        Some(acceptor) => {
                            if let Ok(stream) = acceptor.accept(stream).await {
                                converse(stream, seen).await;
                            }
                        }
                        None => converse(stream, seen).await,
                    }
                });
            }
        });
        upstream
    }

    pub(crate) fn url(&self, target: &str) -> String {
        format!("http://{}{target}", self.address)
    }

    /// From now on this generation is accepted, and no other.
    pub(crate) fn accept(&self, generation: u64) {
        self.seen.accepted.store(generation, Ordering::SeqCst);
    }

    /// What was sent since this was last asked.
    pub(crate) fn sent(&self) -> Vec<Sent> {
        std::mem::take(&mut self.seen.sent.lock().expect("nobody panics with it"))
    }
}

async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin, seen: Arc<Seen>) {
    let serve = service_fn(move |request| answer(request, Arc::clone(&seen)));
    // The client may close it at any time.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), serve).await;
}

async fn answer(request: Request<Incoming>, seen: Arc<Seen>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let token = format!("token-{}-of-api", seen.accepted.load(Ordering::SeqCst));
    let authorized =
        head.headers.iter().any(|(_, value)| value.to_str().is_ok_and(|v| v.rsplit(' ').next() == Some(&token)));
    let (path, query) = (head.uri.path().to_owned(), head.uri.query().unwrap_or_default().to_owned());
    let mut response = Response::builder();
    let (status, answer) = match path.as_str() {
        "/moved" => {
            response = response.header("location", &query);
            (StatusCode::TEMPORARY_REDIRECT, Bytes::new())
        }
        "/status" => (StatusCode::from_u16(query.parse().expect("a number")).expect("a status"), Bytes::new()),
        // An upstream that answers 200 whatever happens.
        "/session" if !authorized => (StatusCode::OK, Bytes::from_static(b"{\"error\":\"SESSION_EXPIRED\"}")),
        _ if authorized => {
            response = response.header("set-cookie", "seen=1");
            (StatusCode::OK, body.clone())
        }
        _ => (StatusCode::UNAUTHORIZED, Bytes::from_static(b"who are you?")),
    };
    let target = head.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    let sent = Sent { method: head.method, target, headers: head.headers, body, status };
    seen.sent.lock().expect("nobody panics with it").push(sent);
    Ok(response.status(status).body(Full::new(answer)).expect("a response"))
}
