//! Upstreams that put canaries wherever an answer has room for them: over HTTP/1.1, over HTTP/2 with TLS, and not quite
//! over HTTP.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use axum::{
    Router,
    body::Bytes,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, Version, header},
    response::{IntoResponse, Response},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use serde_json::json;
use tokencache_testkit::{
    http::{Reply, ScriptedServer},
    tls::TlsIdentity,
};
use tokio::{net::TcpListener, task::JoinHandle};

use super::search::{canary, hits};

/// The ways to answer, each at a path of its own.
pub(super) const CASES: [&str; 19] = [
    "ok",
    "bad_client",
    "unknown_code",
    "lost",
    "denied",
    "broken",
    "throttled",
    "redirect",
    "truncated",
    "wrong_type",
    "no_token",
    "control_characters",
    "expired",
    "odd_lifetime",
    "compressed",
    "html",
    "same_again",
    "odd_refresh_token",
    "too_long",
];

/// Those of them that bring a token. They have an upstream apart from the others, which is not left alone for what those
/// fail with.
pub(super) const GOOD: [&str; 3] = ["ok", "odd_lifetime", "odd_refresh_token"];

/// The upstreams. They end when this is dropped.
pub(super) struct Upstreams {
    /// `http://…`, HTTP/1.1.
    pub(super) plain: String,
    /// The same once more, for what fails.
    pub(super) failing: String,
    /// `https://…`, HTTP/2.
    pub(super) tls: String,
    /// `http://…`, and then something else than HTTP.
    pub(super) garbage: String,
    seen: Arc<Seen>,
    tasks: [JoinHandle<()>; 3],
    _garbage: ScriptedServer,
}

/// What the upstreams have received.
#[derive(Default)]
struct Seen {
    requests: Mutex<Vec<(Version, String)>>,
    minted: AtomicU32,
    /// The URL of the plain one.
    base: Mutex<String>,
}

impl Upstreams {
    pub(super) async fn start() -> Self {
        let seen = Arc::new(Seen::default());
        let router = Router::new().fallback(answer).with_state(Arc::clone(&seen));
        let bind = || TcpListener::bind("127.0.0.1:0");
        let listeners = [bind().await, bind().await, bind().await];
        let [plain, failing, tls] = listeners.map(|listener| listener.expect("a port"));
        let url = |scheme, listener: &TcpListener| format!("{scheme}://{}", listener.local_addr().expect("an address"));
        let (plain_url, failing_url, tls_url) = (url("http", &plain), url("http", &failing), url("https", &tls));
        plain_url.clone_into(&mut lock(&seen.base));
        let tasks = [
            tokio::spawn(serve_plain(plain, router.clone())),
            tokio::spawn(serve_plain(failing, router.clone())),
            tokio::spawn(serve_tls(tls, router)),
        ];
        let reply = format!("HTTP/1.1 200 {0}\r\n{0}\r\n: {0}\r\n\r\n{0}", canary("not http"));
        let garbage = ScriptedServer::start(vec![Reply::Bytes(reply.into())]).await.expect("a port");
        let garbage_url = garbage.url().to_owned();
        let (plain, failing, tls) = (plain_url, failing_url, tls_url);
        Self { plain, failing, tls, garbage: garbage_url, seen, tasks, _garbage: garbage }
    }

    /// The search would prove nothing if the secrets had not been in use.
    pub(super) fn assert_that_secrets_were_sent(&self) {
        let requests = lock(&self.seen.requests);
        for secret in [
            "client-secret-by-file",
            "refresh-token-by-file",
            "rotated",
            "by-command",
            "hint-by-env",
            "password-by-env",
        ] {
            assert!(requests.iter().any(|(_, text)| text.contains(secret)), "{secret} was never sent");
        }
        for version in [Version::HTTP_11, Version::HTTP_2] {
            let secret = |(over, text): &&(Version, String)| *over == version && !hits(text.as_bytes()).is_empty();
            assert!(requests.iter().any(|request| secret(&request)), "no secret was sent over {version:?}");
        }
    }
}

impl Drop for Upstreams {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve_plain(listener: TcpListener, router: Router) {
    axum::serve(listener, router).await.expect("it serves until it is dropped");
}

async fn serve_tls(listener: TcpListener, router: Router) {
    let identity = TlsIdentity::in_directory(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls"));
    let acceptor = identity.and_then(|identity| identity.acceptor(None, &[b"h2"])).expect("a certificate and its key");
    while let Ok((stream, _)) = listener.accept().await {
        let Ok(stream) = acceptor.accept(stream).await else { continue };
        let service = TowerToHyperService::new(router.clone());
        let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        // It ends with its client.
        tokio::spawn(async move { drop(connection.serve_connection(TokioIo::new(stream), service).await) });
    }
}

async fn answer(State(seen): State<Arc<Seen>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 64 * 1024).await.unwrap_or_else(|_| Bytes::new());
    let text = format!("{} {:?} {}", head.uri, head.headers, String::from_utf8_lossy(&body));
    lock(&seen.requests).push((head.version, text));
    let number = seen.minted.fetch_add(1, Ordering::Relaxed);
    let mut response = match head.uri.path() {
        path if path.starts_with("/.well-known/") => metadata(path, &lock(&seen.base)),
        path => reply(path.trim_start_matches('/'), number),
    };
    // Whatever else it says.
    for name in ["x-session", "www-authenticate", "retry-after", "x-request-id"] {
        let value = canary(&format!("header {name} {number}")).parse().expect("a header value");
        response.headers_mut().insert(header::HeaderName::from_static(name), value);
    }
    let cookie = format!("SID={}; Path=/", canary(&format!("cookie {number}")));
    response.headers_mut().insert(header::SET_COOKIE, cookie.parse().expect("a header value"));
    response
}

/// Metadata as of RFC 8414, good and bad.
fn metadata(path: &str, base: &str) -> Response {
    let odd = path.ends_with("/odd");
    let issuer = if odd { format!("{base}/odd") } else { base.to_owned() };
    let endpoint = if odd { format!("https://u:{0}@{0}.example/", canary("endpoint")) } else { format!("{base}/ok") };
    let note = canary("metadata");
    axum::Json(json!({ "issuer": issuer, "token_endpoint": endpoint, "note": note })).into_response()
}

fn reply(case: &str, number: u32) -> Response {
    let token = canary(&format!("access token {number}"));
    let mut minted = json!({
        "access_token": token, "refresh_token": canary(&format!("rotated {number}")), "id_token": canary("id token"),
        "token_type": "Bearer", "expires_in": 3600,
    });
    let error = |code: &str| json!({ "error": code, "error_description": canary("text"), "error_uri": canary("uri") });
    let text = canary("body");
    let location: HeaderMap =
        [(header::LOCATION, format!("http://127.0.0.1:1/?t={text}").parse().expect("a value"))].into_iter().collect();
    match case {
        "bad_client" => return (StatusCode::UNAUTHORIZED, axum::Json(error("invalid_client"))).into_response(),
        "unknown_code" => return (StatusCode::BAD_REQUEST, axum::Json(error(&canary("code")))).into_response(),
        "lost" => return (StatusCode::BAD_REQUEST, axum::Json(error("invalid_grant"))).into_response(),
        "denied" => return (StatusCode::UNAUTHORIZED, text).into_response(),
        "broken" => return (StatusCode::INTERNAL_SERVER_ERROR, text).into_response(),
        "throttled" => return (StatusCode::TOO_MANY_REQUESTS, text).into_response(),
        "redirect" => return (StatusCode::FOUND, location, text).into_response(),
        "truncated" => return format!("{{\"access_token\":\"{token}").into_response(),
        "compressed" => return ([(header::CONTENT_ENCODING, "gzip")], text).into_response(),
        "html" => return format!("<html>{text}</html>").into_response(),
        "too_long" => return text.repeat(5000).into_response(),
        "wrong_type" => minted["token_type"] = text.into(),
        "no_token" => minted["access_token"] = serde_json::Value::Null,
        "control_characters" => minted["access_token"] = format!("{token}\r\nx: {text}").into(),
        "expired" => minted["expires_in"] = 0.into(),
        "odd_lifetime" => minted["expires_in"] = text.into(),
        "same_again" => minted["access_token"] = canary("the same").into(),
        "odd_refresh_token" => minted["refresh_token"] = format!("{text}\r\n").into(),
        _ => {}
    }
    axum::Json(minted).into_response()
}
