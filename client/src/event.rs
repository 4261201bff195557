//! The stream of what happens to watched tokens.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokencache_proto::v1;
use tokio_stream::Stream;
use tonic::Streaming;

use crate::{Error, Result, Selector, Token, connection, replicas::Replica, token::nonsense};

/// One change of one watched token.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TokenEvent {
    /// Which token, as the caller wrote it.
    pub selector: Selector,
    /// What happened.
    pub update: TokenUpdate,
}

/// What happened to a watched token.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TokenUpdate {
    /// The current token, or its replacement.
    Token(Token),
    /// The token was rejected; a replacement follows when there is one.
    Invalidated {
        /// The lowest generation that may still be used.
        min_generation: u64,
    },
    /// There is no valid token, and why. A token follows when there is one.
    Unavailable(Error),
}

/// What happens to watched tokens, beginning with their current state.
///
/// It ends when the replica drains or the connection is lost; dropping it ends the call. Nothing reconnects by itself.
#[derive(Debug)]
pub struct TokenEvents {
    stream: Streaming<v1::WatchTokensResponse>,
    replica: Arc<Replica>,
}

impl TokenEvents {
    pub(crate) fn new(stream: Streaming<v1::WatchTokensResponse>, replica: Arc<Replica>) -> Self {
        Self { stream, replica }
    }

    /// The next event; `None` at the end. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<TokenEvent>> {
        tokio_stream::StreamExt::next(self).await
    }
}

impl Stream for TokenEvents {
    type Item = Result<TokenEvent>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let item = ready!(Pin::new(&mut self.stream).poll_next(cx));
        Poll::Ready(item.map(|item| match item {
            Ok(response) => TokenEvent::from_proto(response),
            Err(status) => {
                let error = Error::from_status(&status);
                connection::judge(&self.replica, Some(&error));
                Err(error)
            }
        }))
    }
}

impl TokenEvent {
    fn from_proto(response: v1::WatchTokensResponse) -> Result<Self> {
        use v1::watch_tokens_response::Event;
        let update = match response.event {
            Some(Event::Token(token)) => TokenUpdate::Token(Token::from_proto(token)?),
            Some(Event::Invalidated(event)) => TokenUpdate::Invalidated { min_generation: event.min_generation },
            Some(Event::Unavailable(status)) => TokenUpdate::Unavailable(
                Error::from_rpc(&status).ok_or_else(|| nonsense("an unavailable token without a reason"))?,
            ),
            None => return Err(nonsense("an event of a kind that this client does not know")),
        };
        Ok(Self { selector: Selector::from_proto(response.selector), update })
    }
}
