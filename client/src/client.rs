//! The client API: tokens, their changes, and reports on them.

use std::sync::Arc;

use tokencache_proto::v1::{self, token_service_client::TokenServiceClient};

use crate::{
    Builder, GetToken, Invalidation, Rejection, Result, Selector, SourceBuilder, TokenEvents, TokenResponse,
    TokenSource, connection::Connection, source::Watcher,
};

/// A client of the broker. Cheap to clone; clones share their connections, and one stream for all their
/// [`TokenSource`]s.
#[derive(Clone, Debug)]
pub struct Client {
    connection: Connection,
    watcher: Arc<Watcher>,
}

impl Client {
    /// Begins to build a client.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn new(connection: Connection) -> Self {
        Self { watcher: Watcher::new(connection.clone()), connection }
    }

    /// Keeps a token at hand. See [`TokenSource`].
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    #[must_use]
    pub fn source(&self, selector: impl Into<Selector>) -> TokenSource {
        self.source_builder(selector).build()
    }

    /// The same, with options.
    pub fn source_builder(&self, selector: impl Into<Selector>) -> SourceBuilder {
        SourceBuilder::new(Arc::clone(&self.watcher), selector.into())
    }

    /// Gets a token.
    ///
    /// Dropping the future gives up waiting, not the upstream request that the broker may have begun.
    ///
    /// # Errors
    ///
    /// Whatever [`Error`](crate::Error) says. A replica that cannot be reached, drains or has lost its store is tried no
    /// second time, but another one is, once, within the deadline and a budget for all calls (gRFC A6).
    pub async fn get_token(&self, request: GetToken) -> Result<TokenResponse> {
        get_token(&self.connection, request).await
    }

    /// Watches tokens: first the current one of each, or why there is none, then every change.
    ///
    /// # Errors
    ///
    /// If the watch cannot be begun; later errors come with the stream.
    pub async fn watch(&self, selectors: impl IntoIterator<Item = impl Into<Selector>>) -> Result<TokenEvents> {
        watch(&self.connection, selectors.into_iter().map(Into::into)).await
    }

    /// Reports that the upstream refused a token.
    ///
    /// # Errors
    ///
    /// As [`Client::get_token`].
    pub async fn invalidate(&self, rejection: Rejection) -> Result<Invalidation> {
        invalidate(&self.connection, rejection).await
    }
}

pub(crate) async fn get_token(connection: &Connection, request: GetToken) -> Result<TokenResponse> {
    let request = v1::GetTokenRequest::from(request);
    let conditional = request.if_generation_not != 0;
    let call = |channel, request| async move { TokenServiceClient::new(channel).get_token(request).await };
    TokenResponse::from_proto(connection.call(request, call).await?, conditional)
}

pub(crate) async fn watch(connection: &Connection, selectors: impl Iterator<Item = Selector>) -> Result<TokenEvents> {
    let request = v1::WatchTokensRequest { selectors: selectors.map(Into::into).collect() };
    let call = |channel, request| async move { TokenServiceClient::new(channel).watch_tokens(request).await };
    let (replica, stream) = connection.open(request, call).await?;
    Ok(TokenEvents::new(stream, replica))
}

pub(crate) async fn invalidate(connection: &Connection, rejection: Rejection) -> Result<Invalidation> {
    let call = |channel, request| async move { TokenServiceClient::new(channel).invalidate_token(request).await };
    let response = connection.call(v1::InvalidateTokenRequest::from(rejection), call).await?;
    Ok(Invalidation { invalidated: response.invalidated, min_generation: response.min_generation })
}
