//! Servers that stand in for a broker: they have nothing to do but to answer, and so show what answering costs.

use std::{
    convert::Infallible,
    fs,
    net::SocketAddr,
    path::PathBuf,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use http::{HeaderMap, HeaderValue, Response, header::CONTENT_TYPE};
use http_body::{Body, Frame};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use tokencache_proto::v1::{
    GetTokenRequest, GetTokenResponse, InvalidateTokenRequest, InvalidateTokenResponse, WatchTokensRequest,
    WatchTokensResponse,
    token_service_server::{TokenService, TokenServiceServer},
};
use tokio::{net::TcpListener, time::sleep};
use tokio_stream::{Empty, empty};
use tonic::{
    Request, Status,
    transport::{Identity, Server, ServerTlsConfig},
};

/// Which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// A service as anybody would write it with tonic, which returns a constant.
    Tonic,
    /// hyper alone, which sends prepared bytes.
    Hyper,
}

/// Serves one until it is killed.
#[derive(Debug, Args)]
pub(crate) struct StandIn {
    #[arg(value_enum)]
    pub(crate) kind: Kind,
    /// Where it listens
    #[arg(long)]
    pub(crate) listen: SocketAddr,
    /// A file with the message that every call is answered with
    #[arg(long)]
    pub(crate) answer: PathBuf,
    /// A directory with `server.pem` and `server.key`: serve TLS
    #[arg(long)]
    pub(crate) tls: Option<PathBuf>,
    /// Of which key on a call is answered late, as one that is not in a cache is. Only tonic's knows keys
    #[arg(long)]
    pub(crate) late_from: Option<u32>,
}

/// How late.
pub(crate) const LATE: Duration = Duration::from_millis(100);

impl StandIn {
    /// Serves with the runtime that `#[tokio::main]` makes.
    pub(crate) fn run(&self) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let answer = fs::read(&self.answer).context("cannot read the answer")?;
        match self.kind {
            Kind::Tonic => runtime.block_on(self.tonic(&answer)),
            Kind::Hyper => runtime.block_on(self.hyper(&answer)),
        }
    }

    async fn tonic(&self, answer: &[u8]) -> Result<()> {
        let mut server = Server::builder();
        if let Some(directory) = &self.tls {
            let [certificate, key] = ["server.pem", "server.key"].map(|name| fs::read(directory.join(name)));
            server = server.tls_config(ServerTlsConfig::new().identity(Identity::from_pem(certificate?, key?)))?;
        }
        let constant = Constant { answer: GetTokenResponse::decode(answer)?, late_from: self.late_from };
        let service = TokenServiceServer::new(constant);
        Ok(server.add_service(service).serve(self.listen).await?)
    }

    async fn hyper(&self, answer: &[u8]) -> Result<()> {
        let mut framed = vec![0];
        framed.extend(u32::try_from(answer.len())?.to_be_bytes());
        framed.extend(answer);
        let framed = Bytes::from(framed);
        let listener = TcpListener::bind(self.listen).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let framed = framed.clone();
            let service = service_fn(move |_: http::Request<Incoming>| {
                let body = Prepared { data: Some(framed.clone()), done: false };
                let mut response = Response::new(body);
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
                std::future::ready(Ok::<_, Infallible>(response))
            });
            let connection = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service);
            // A client that goes away has had what it wanted.
            tokio::spawn(async move { drop(connection.await) });
        }
    }
}

/// A body of one piece, and the trailers of success.
#[derive(Debug)]
struct Prepared {
    data: Option<Bytes>,
    done: bool,
}

impl Body for Prepared {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(data) = self.data.take() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if std::mem::replace(&mut self.done, true) {
            return Poll::Ready(None);
        }
        let mut trailers = HeaderMap::with_capacity(1);
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.done
    }
}

/// Answers each call with the same message.
#[derive(Debug)]
struct Constant {
    answer: GetTokenResponse,
    /// The keys from this one on have to wait.
    late_from: Option<u32>,
}

impl Constant {
    /// Whether it is a call for a key that has to wait. Keys are digits at the end of the audience.
    fn is_late(&self, request: &GetTokenRequest) -> bool {
        let key = || request.audience.rsplit_once('-')?.1.parse::<u32>().ok();
        self.late_from.is_some_and(|from| key().is_some_and(|key| key >= from))
    }
}

#[tonic::async_trait]
impl TokenService for Constant {
    async fn get_token(&self, request: Request<GetTokenRequest>) -> Result<tonic::Response<GetTokenResponse>, Status> {
        if self.is_late(request.get_ref()) {
            sleep(LATE).await;
        }
        Ok(tonic::Response::new(self.answer.clone()))
    }

    type WatchTokensStream = Empty<Result<WatchTokensResponse, Status>>;

    async fn watch_tokens(
        &self,
        _: Request<WatchTokensRequest>,
    ) -> Result<tonic::Response<Self::WatchTokensStream>, Status> {
        Ok(tonic::Response::new(empty()))
    }

    async fn invalidate_token(
        &self,
        _: Request<InvalidateTokenRequest>,
    ) -> Result<tonic::Response<InvalidateTokenResponse>, Status> {
        Err(Status::unimplemented("it has nothing to invalidate"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_for_keys_from_one_on_have_to_wait() {
        let is_late = |late_from, audience: &str| {
            let request = GetTokenRequest { audience: audience.into(), ..Default::default() };
            Constant { answer: GetTokenResponse::default(), late_from }.is_late(&request)
        };
        assert!(is_late(Some(1000), "key-00001000") && is_late(Some(1000), "key-50000000"));
        assert!(!is_late(Some(1000), "key-00000999") && !is_late(Some(1000), "") && !is_late(None, "key-00001000"));
    }
}
