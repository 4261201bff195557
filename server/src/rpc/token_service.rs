//! `TokenService`: what clients call.

use std::{pin::Pin, sync::Arc};

use futures::{Stream, StreamExt as _, stream};
use tokencache_proto::v1::{
    self, Freshness, token_service_server::TokenService, watch_tokens_response::Event as WatchEvent,
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::{call, convert, ends_with, identified, status};
use crate::{
    audit::Rpc,
    cache::{Served, hub::Change},
    error::Error,
    pipeline::{Call, Issued, Pipeline},
    time::SharedClock,
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
    pub(super) async fn issued(&self, call: Call, message: v1::GetTokenRequest) -> Result<Issued, Status> {
        self.issue(call, message).await.map_err(|error| status::to_status(&error))
    }

    async fn issue(&self, call: Call, message: v1::GetTokenRequest) -> Result<Issued, Error> {
        let call = self.pipeline.identify(call, Rpc::GetToken).await?;
        let request = convert::token_request(message);
        let request = request.map_err(|error| self.pipeline.turn_away(&call, Rpc::GetToken, error))?;
        self.pipeline.get_token(&call, request).await
    }
}

type Changes = Pin<Box<dyn Stream<Item = Result<v1::WatchTokensResponse, Status>> + Send>>;

#[tonic::async_trait]
impl TokenService for Tokens {
    /// For requests that are unusual: the others are answered by `rpc/get_token`.
    async fn get_token(&self, request: Request<v1::GetTokenRequest>) -> Result<Response<v1::GetTokenResponse>, Status> {
        let call = call(&request);
        let (Served { entry, verified, at, .. }, receipt) = self.issued(call, request.into_inner()).await?;
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

    async fn watch_tokens(&self, request: Request<v1::WatchTokensRequest>) -> Result<Response<Changes>, Status> {
        let call = identified(&self.pipeline, &request, Rpc::WatchTokens).await?;
        let selectors = request.into_inner().selectors;
        if selectors.is_empty() || selectors.len() > MAX_SELECTORS {
            let mut check = convert::Check::default();
            check.add("selectors", format!("1 to {MAX_SELECTORS} selectors, these are {}", selectors.len()));
            let turn_away = |error| self.pipeline.turn_away(&call, Rpc::WatchTokens, error);
            check.finish(()).map_err(|error| status::to_status(&turn_away(error)))?;
        }
        let (mut watches, mut watched) = (stream::SelectAll::new(), Vec::with_capacity(selectors.len()));
        for message in selectors {
            let selector = convert::selector(message.clone());
            let selector = selector.map_err(|error| self.pipeline.turn_away(&call, Rpc::WatchTokens, error));
            let changes = selector.and_then(|selector| {
                watched.push(selector.clone());
                self.pipeline.watch(&call, selector)
            });
            let changes = changes.map_err(|error| status::to_status(&error))?;
            let response = move |change: Result<Change, Error>| match change {
                Ok(change) => Ok(response(message.clone(), change)),
                Err(error) => Err(status::to_status(&error)),
            };
            watches.push(changes.map(response).boxed());
        }
        let pipeline = Arc::clone(&self.pipeline);
        let lost = async move { pipeline.loses_watch(&call, watched).await };
        Ok(Response::new(ends_with(watches, lost, self.draining.clone()).boxed()))
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

fn response(selector: v1::TokenSelector, change: Change) -> v1::WatchTokensResponse {
    let event = match change {
        Change::Token(entry) => WatchEvent::Token(convert::token(&entry)),
        Change::Invalidated(floor) => WatchEvent::Invalidated(v1::TokenInvalidated { min_generation: floor.get() }),
        Change::Unavailable(error) => WatchEvent::Unavailable(status::to_message(&error)),
    };
    v1::WatchTokensResponse { selector: Some(selector), event: Some(event) }
}
