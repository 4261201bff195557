//! The client API: tokens, their changes, and reports on them.

use tokencache_proto::v1::{self, token_service_client::TokenServiceClient};
use tonic::{Request, transport::Channel};

use crate::{
    Builder, GetToken, Invalidation, Rejection, Result, Selector, TokenEvents, TokenResponse, builder::Connection,
};

/// A client of the broker. Cheap to clone; clones share a connection.
#[derive(Clone, Debug)]
pub struct Client {
    connection: Connection,
}

impl Client {
    /// Begins to build a client.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn new(connection: Connection) -> Self {
        Self { connection }
    }

    /// Gets a token.
    ///
    /// Dropping the future gives up waiting, not the upstream request that the broker may have begun.
    ///
    /// # Errors
    ///
    /// Whatever [`Error`](crate::Error) says; nothing is retried.
    pub async fn get_token(&self, request: GetToken) -> Result<TokenResponse> {
        let request = v1::GetTokenRequest::from(request);
        let conditional = request.if_generation_not != 0;
        let request = self.connection.request(request);
        let response = self.connection.bounded(self.service().get_token(request)).await?;
        TokenResponse::from_proto(response, conditional)
    }

    /// Watches tokens: first the current one of each, or why there is none, then every change.
    ///
    /// # Errors
    ///
    /// If the watch cannot be begun; later errors come with the stream.
    pub async fn watch(&self, selectors: impl IntoIterator<Item = impl Into<Selector>>) -> Result<TokenEvents> {
        let selectors = selectors.into_iter().map(|selector| selector.into().into()).collect();
        let request = Request::new(v1::WatchTokensRequest { selectors });
        let stream = self.connection.bounded(self.service().watch_tokens(request)).await?;
        Ok(TokenEvents::new(stream))
    }

    /// Reports that the upstream refused a token.
    ///
    /// # Errors
    ///
    /// Whatever [`Error`](crate::Error) says; nothing is retried.
    pub async fn invalidate(&self, rejection: Rejection) -> Result<Invalidation> {
        let request = self.connection.request(v1::InvalidateTokenRequest::from(rejection));
        let response = self.connection.bounded(self.service().invalidate_token(request)).await?;
        Ok(Invalidation { invalidated: response.invalidated, min_generation: response.min_generation })
    }

    fn service(&self) -> TokenServiceClient<Channel> {
        TokenServiceClient::new(self.connection.channel.clone())
    }
}
