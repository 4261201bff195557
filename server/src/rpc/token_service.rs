//! `TokenService`: what clients call.

use std::{pin::Pin, sync::Arc};

use futures::{Stream, StreamExt as _, TryFutureExt as _, stream};
use prost::Message as _;
use tokencache_proto::v1::{
    self, Freshness, token_service_server::TokenService, watch_tokens_response::Event as WatchEvent,
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::{call, convert, ends_with, identified, status};
use crate::{
    audit::{Receipt, Rpc},
    cache::{Served, hub::Change},
    error::Error,
    pipeline::{Call, Issued, Pipeline},
    time::SharedClock,
    types::TokenRequest,
};

/// The most selectors of one watch.
const MAX_SELECTORS: usize = 1000;

/// Serves clients.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// The service.
    pub pipeline: Arc<Pipeline>,
    /// What time it is.
    pub clock: SharedClock,
    /// Told when the replica drains: watchers then look for another one.
    pub draining: CancellationToken,
}

impl Tokens {
    /// Serves a `GetToken`, whose answer is to wait for the receipt.
    pub(super) fn issued(
        &self,
        call: Call,
        request: Result<TokenRequest, Error>,
    ) -> impl Future<Output = Result<Issued, Status>> + Send {
        self.issue(call, request).map_err(|error| status::to_status(&error))
    }

    async fn issue(&self, call: Call, request: Result<TokenRequest, Error>) -> Result<Issued, Error> {
        let call = self.pipeline.identify(call, Rpc::GetToken).await?;
        let request = request.map_err(|error| self.pipeline.turn_away(&call, Rpc::GetToken, error))?;
        self.pipeline.get_token(&call, request).await
    }

    /// What a watcher is told, until the replica drains or its caller loses the right to it. A message is to wait for its
    /// receipt.
    pub(super) async fn told(
        &self,
        call: Call,
        message: v1::WatchTokensRequest,
    ) -> Result<impl Stream<Item = Result<Told, Status>> + Send + use<>, Status> {
        let call = self.pipeline.identify(call, Rpc::WatchTokens).await.map_err(|error| status::to_status(&error))?;
        let selectors = message.selectors;
        if selectors.is_empty() || selectors.len() > MAX_SELECTORS {
            let mut check = convert::Check::default();
            check.add("selectors", format!("1 to {MAX_SELECTORS} selectors, these are {}", selectors.len()));
            let turn_away = |error| self.pipeline.turn_away(&call, Rpc::WatchTokens, error);
            check.finish(()).map_err(|error| status::to_status(&turn_away(error)))?;
        }
        let (mut watches, mut watched) = (Vec::with_capacity(selectors.len()), Vec::with_capacity(selectors.len()));
        for message in selectors {
            let selector = convert::selector(message.clone());
            let selector = selector.map_err(|error| self.pipeline.turn_away(&call, Rpc::WatchTokens, error));
            let changes = selector.and_then(|selector| {
                watched.push(selector.clone());
                self.pipeline.watch(&call, selector)
            });
            let (changes, selector) =
                (changes.map_err(|error| status::to_status(&error))?, Arc::from(message.encode_to_vec()));
            let told = move |change: Result<(Change, Option<Receipt>), Error>| {
                let (change, receipt) = change.map_err(|error| status::to_status(&error))?;
                Ok(Told { selector: Arc::clone(&selector), change, receipt })
            };
            watches.push(changes.map(told).boxed());
        }
        // Most have one.
        let watches = if watches.len() == 1 { watches.remove(0) } else { stream::select_all(watches).boxed() };
        let pipeline = Arc::clone(&self.pipeline);
        let lost = async move { pipeline.loses_watch(&call, watched).await };
        Ok(ends_with(watches, lost, self.draining.clone()))
    }
}

/// What a watcher is told.
#[derive(Debug)]
pub(super) struct Told {
    /// What it asked for, as it wrote it: a `TokenSelector`, encoded, which takes less room.
    pub(super) selector: Arc<[u8]>,
    /// What became of it.
    pub(super) change: Change,
    /// What its message is to wait for.
    pub(super) receipt: Option<Receipt>,
}

type Changes = Pin<Box<dyn Stream<Item = Result<v1::WatchTokensResponse, Status>> + Send>>;

#[tonic::async_trait]
impl TokenService for Tokens {
    /// For requests that are unusual: the others are answered by `rpc/get_token`.
    async fn get_token(&self, request: Request<v1::GetTokenRequest>) -> Result<Response<v1::GetTokenResponse>, Status> {
        let call = call(&request);
        let request = convert::token_request(request.into_inner());
        let (Served { entry, verified, at, .. }, receipt) = self.issued(call, request).await?;
        if let Some(receipt) = receipt {
            receipt.written().await.map_err(|error| status::to_status(&error))?;
        }
        let freshness = if verified { Freshness::Verified } else { Freshness::Degraded };
        Ok(Response::new(v1::GetTokenResponse {
            not_modified: entry.is_none(),
            token: entry.as_deref().map(convert::token),
            freshness: freshness.into(),
            server_time: Some(convert::timestamp(at)),
        }))
    }

    type WatchTokensStream = Changes;

    /// For requests that are unusual: the others are answered by `rpc/watch_tokens`.
    async fn watch_tokens(&self, request: Request<v1::WatchTokensRequest>) -> Result<Response<Changes>, Status> {
        let call = call(&request);
        let told = self.told(call, request.into_inner()).await?;
        let responses = told.then(|told| async {
            let Told { selector, change, receipt } = told?;
            if let Some(receipt) = receipt {
                receipt.written().await.map_err(|error| status::to_status(&error))?;
            }
            let selector = v1::TokenSelector::decode(&*selector).ok();
            Ok(v1::WatchTokensResponse { selector, event: Some(event(change)) })
        });
        Ok(Response::new(responses.boxed()))
    }

    async fn invalidate_token(
        &self,
        request: Request<v1::InvalidateTokenRequest>,
    ) -> Result<Response<v1::InvalidateTokenResponse>, Status> {
        let call = identified(&self.pipeline, &request, Rpc::InvalidateToken).await?;
        let rejected = async {
            let rejection = convert::rejection(request.into_inner());
            let rejection = rejection.map_err(|error| self.pipeline.turn_away(&call, Rpc::InvalidateToken, error))?;
            self.pipeline.invalidate(&call, rejection).await
        };
        let rejected = rejected.await.map_err(|error| status::to_status(&error))?;
        Ok(Response::new(v1::InvalidateTokenResponse {
            invalidated: rejected.invalidated,
            min_generation: rejected.min_generation.get(),
        }))
    }
}

/// A change as a message tells it.
pub(super) fn event(change: Change) -> WatchEvent {
    match change {
        Change::Token(entry) => WatchEvent::Token(convert::token(&entry)),
        Change::Invalidated(floor) => WatchEvent::Invalidated(v1::TokenInvalidated { min_generation: floor.get() }),
        Change::Unavailable(error) => WatchEvent::Unavailable(status::to_message(&error)),
    }
}
