//! Servers that stand in for a broker: they have nothing to do but to answer, and so show what answering costs.

use std::{
    convert::Infallible,
    fs,
    net::SocketAddr,
    path::PathBuf,
    pin::Pin,
    task::{Context, Poll},
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
use tokio::net::TcpListener;
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
}

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
        let service = TokenServiceServer::new(Constant(GetTokenResponse::decode(answer)?));
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
struct Constant(GetTokenResponse);

#[tonic::async_trait]
impl TokenService for Constant {
    async fn get_token(&self, _: Request<GetTokenRequest>) -> Result<tonic::Response<GetTokenResponse>, Status> {
        Ok(tonic::Response::new(self.0.clone()))
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
