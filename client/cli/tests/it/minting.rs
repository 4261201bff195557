//! A broker that mints a new token whenever one is reported, and counts the reports.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use jiff::Timestamp;
use tokencache_proto::v1::{
    self,
    invalidate_token_request::Rejected,
    token_service_server::{TokenService, TokenServiceServer},
    watch_tokens_response::Event,
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
};
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tonic::{Request, Response, Status, transport::Server};
use tonic_types::{ErrorDetails, StatusExt as _};

/// Tokens are `token-1`, `token-2` and so on, whatever the credential; there is none for `away`.
#[derive(Clone, Debug)]
pub(crate) struct MintingBroker(Arc<Mutex<Facts>>, watch::Sender<u64>);

#[derive(Debug, Default)]
struct Facts {
    generation: u64,
    reports: Vec<String>,
    attributes: Vec<(&'static str, &'static str)>,
}

impl MintingBroker {
    /// Serves on a free port until the test ends.
    pub(crate) async fn serve() -> (Self, String) {
        let broker = Self(Arc::new(Mutex::new(Facts { generation: 1, ..Facts::default() })), watch::channel(1).0);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let router = Server::builder().add_service(TokenServiceServer::new(broker.clone()));
        tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
        (broker, endpoint)
    }

    /// The current token.
    pub(crate) fn secret(&self) -> String {
        format!("token-{}", self.0.lock().unwrap().generation)
    }

    /// What was reported, each by its generation or fingerprint.
    pub(crate) fn reports(&self) -> Vec<String> {
        self.0.lock().unwrap().reports.clone()
    }

    /// What goes with the token.
    pub(crate) fn set_attributes(&self, attributes: &[(&'static str, &'static str)]) {
        self.0.lock().unwrap().attributes = attributes.to_vec();
    }

    /// When tokens expire.
    pub(crate) fn expires_at() -> Timestamp {
        Timestamp::from_second(Timestamp::now().as_second() / 86_400 * 86_400 + 3 * 86_400).unwrap()
    }

    /// Replaces the token ahead of its time.
    pub(crate) fn refresh(&self) {
        self.1.send_replace({
            let mut facts = self.0.lock().unwrap();
            facts.generation += 1;
            facts.generation
        });
    }

    fn report(&self, what: String, generation: u64) -> bool {
        let is_current = {
            let mut facts = self.0.lock().unwrap();
            facts.reports.push(what);
            facts.generation == generation
        };
        if is_current {
            self.refresh();
        }
        is_current
    }

    fn token(&self, credential: &str) -> Result<v1::Token, Status> {
        if credential == "away" {
            let mut details =
                ErrorDetails::with_error_info("UPSTREAM_DOWN", "tokencache", [("k".to_owned(), "v".to_owned())]);
            details.set_retry_info(Some(Duration::from_millis(89_500)));
            return Err(Status::with_error_details(tonic::Code::Unavailable, "it failed", details));
        }
        let facts = self.0.lock().unwrap();
        let time = |time: Timestamp| Some(SystemTime::from(time).into());
        Ok(v1::Token {
            access_token: format!("token-{}", facts.generation),
            token_type: "Bearer".into(),
            expires_at: time(Self::expires_at()),
            issued_at: time(Timestamp::now()),
            generation: facts.generation,
            fingerprint: format!("{:016x}", facts.generation),
            attributes: facts.attributes.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
            ..v1::Token::default()
        })
    }
}

#[tonic::async_trait]
impl TokenService for MintingBroker {
    async fn get_token(&self, request: Request<v1::GetTokenRequest>) -> Result<Response<v1::GetTokenResponse>, Status> {
        let request = request.into_inner();
        if request.rejected_generation != 0 {
            self.report(request.rejected_generation.to_string(), request.rejected_generation);
        }
        Ok(Response::new(v1::GetTokenResponse {
            token: Some(self.token(&request.credential)?),
            not_modified: false,
            freshness: v1::Freshness::Verified.into(),
            server_time: Some(SystemTime::from(Timestamp::now()).into()),
        }))
    }

    type WatchTokensStream = UnboundedReceiverStream<Result<v1::WatchTokensResponse, Status>>;

    async fn watch_tokens(
        &self,
        request: Request<v1::WatchTokensRequest>,
    ) -> Result<Response<Self::WatchTokensStream>, Status> {
        let (events, stream) = mpsc::unbounded_channel();
        let selectors = request.into_inner().selectors;
        let (broker, mut changes) = (self.clone(), self.1.subscribe());
        tokio::spawn(async move {
            loop {
                for selector in &selectors {
                    let Ok(token) = broker.token(&selector.credential) else { continue };
                    let event = Some(Event::Token(token));
                    let _ = events.send(Ok(v1::WatchTokensResponse { selector: Some(selector.clone()), event }));
                }
                if changes.changed().await.is_err() || events.is_closed() {
                    return;
                }
            }
        });
        Ok(Response::new(UnboundedReceiverStream::new(stream)))
    }

    async fn invalidate_token(
        &self,
        request: Request<v1::InvalidateTokenRequest>,
    ) -> Result<Response<v1::InvalidateTokenResponse>, Status> {
        let (what, generation) = match request.into_inner().rejected {
            Some(Rejected::Generation(generation)) => (generation.to_string(), generation),
            Some(Rejected::Fingerprint(fingerprint)) => (fingerprint, 0),
            None => (String::new(), 0),
        };
        let invalidated = self.report(what, generation);
        Ok(Response::new(v1::InvalidateTokenResponse { invalidated, min_generation: 2 }))
    }
}
