//! An upstream over HTTP/1 and HTTP/2 that takes one token at a time and notes what it is sent.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode,
    header::{AUTHORIZATION, CONNECTION, UPGRADE},
};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper::{
    body::{Bytes, Frame, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

/// What the upstream was sent.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Takes what the closure takes.
#[derive(Clone)]
pub(crate) struct Upstream {
    seen: Arc<Mutex<Vec<Seen>>>,
    takes: Arc<dyn Fn(&HeaderMap) -> bool + Send + Sync>,
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

impl Upstream {
    /// Serves on a free port until the test ends. Returns its URL as well.
    pub(crate) async fn serve(takes: impl Fn(&HeaderMap) -> bool + Send + Sync + 'static) -> (Self, String) {
        let upstream = Self { seen: Arc::default(), takes: Arc::new(takes) };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serving = upstream.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let upstream = serving.clone();
                let service = service_fn(move |request| {
                    let upstream = upstream.clone();
                    async move { Ok::<_, Infallible>(upstream.answer(request).await) }
                });
                tokio::spawn(async move {
                    let builder = Builder::new(TokioExecutor::new());
                    let _ = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
                });
            }
        });
        (upstream, url)
    }

    /// Takes one token.
    pub(crate) async fn serve_with(secret: impl Fn() -> String + Send + Sync + 'static) -> (Self, String) {
        Self::serve(move |headers| {
            headers.get(AUTHORIZATION).is_some_and(|value| *value == format!("Bearer {}", secret()))
        })
        .await
    }

    /// What it was sent so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    async fn answer(&self, mut request: Request<Incoming>) -> Response<Body> {
        let is_good = (self.takes)(request.headers());
        let (method, target) = (request.method().clone(), request.uri().to_string());
        let headers = request.headers().clone();
        if target.ends_with("/upgrade") && is_good {
            let upgraded = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let mut stream = TokioIo::new(upgraded.await.unwrap());
                let (mut read, mut write) = tokio::io::split(&mut stream);
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            });
            return Response::builder()
                .status(StatusCode::SWITCHING_PROTOCOLS)
                .header(CONNECTION, "upgrade")
                .header(UPGRADE, "echo")
                .body(full(""))
                .unwrap();
        }
        if let Some(size) = target.strip_prefix("/download/") {
            return Response::new(download(size.parse().unwrap()));
        }
        if target == "/count" {
            let mut count = 0;
            let mut body = request.into_body();
            while let Some(frame) = body.frame().await {
                count += frame.unwrap().data_ref().map_or(0, Bytes::len);
            }
            return Response::new(full(&count.to_string()));
        }
        let body = request.into_body().collect().await.unwrap().to_bytes();
        self.seen.lock().unwrap().push(Seen { method, target, headers, body: body.clone() });
        let mut response = Response::new(full(""));
        *response.status_mut() = if is_good { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
        let headers = response.headers_mut();
        headers.insert("x-upstream", HeaderValue::from_static("yes"));
        headers.insert("x-hop", HeaderValue::from_static("1"));
        headers.insert("keep-alive", HeaderValue::from_static("timeout=5"));
        headers.insert(CONNECTION, HeaderValue::from_static("x-hop"));
        *response.body_mut() = Full::new(if is_good { body } else { Bytes::from("refused") }).boxed_unsync();
        response
    }
}

fn full(text: &str) -> Body {
    Full::new(Bytes::from(text.to_owned())).boxed_unsync()
}

/// So many zeros, made as they are read.
fn download(size: usize) -> Body {
    let (mut sender, body) = http_body_util::channel::Channel::<Bytes, Infallible>::new(1);
    tokio::spawn(async move {
        let piece = Bytes::from(vec![0; 64 * 1024]);
        let mut left = size;
        while left > 0 {
            let data = piece.slice(..left.min(piece.len()));
            left -= data.len();
            if sender.send(Frame::data(data)).await.is_err() {
                return;
            }
        }
    });
    body.boxed_unsync()
}

/// Reads until the end of the headers of a response.
pub(crate) async fn read_head(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}
