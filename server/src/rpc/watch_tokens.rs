//! `WatchTokens` without tonic's codec, whose buffers are larger than all else that a stream needs.
//!
//! Whatever is unusual about a request is handed back, as in `get_token`.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt as _};
use http::{Request, Response};
use prost::Message as _;
use tokencache_proto::v1;
use tonic::{Status, body::Body};

use super::{
    accept::Facts,
    answer::Answer,
    hold::Hold,
    message::{Again, TokenMessage, begin_field, field_length, framed, key, read},
    token_service::{Tokens, Told, event},
};
use crate::cache::hub::Change;

/// Its path.
pub(super) const PATH: &str = "/tokencache.v1.TokenService/WatchTokens";

/// `WatchTokensResponse.selector` and `.token`.
const SELECTOR: u8 = key(1);
const TOKEN: u8 = key(2);

/// Answers a call, or hands its request back.
pub(super) async fn answer(
    tokens: &Tokens,
    facts: &Arc<Facts>,
    hold: &Hold,
    request: Box<Request<Again>>,
) -> Result<Response<Answer>, Box<Request<Again>>> {
    let (call, message) = read(facts, request).await?;
    Ok(match tokens.told(call, message).await {
        Ok(told) => Answer::Stream(Box::pin(messages(told, hold.clone()))).into_response(),
        Err(status) => Status::into_http::<Body>(status).map(Answer::from),
    })
}

/// What a watcher is told, as messages that leave once their events are on record.
fn messages(
    told: impl Stream<Item = Result<Told, Status>> + Send + 'static,
    hold: Hold,
) -> impl Stream<Item = Result<Bytes, Status>> + Send + 'static {
    told.map(move |told| {
        let Told { selector, change, receipt } = told?;
        if let Some(receipt) = receipt {
            hold.until(receipt);
        }
        Ok(encode(&selector, change))
    })
}

fn encode(selector: &[u8], change: Change) -> Bytes {
    let begin = field_length(selector.len());
    let put_selector = |buffer: &mut BytesMut| {
        begin_field(buffer, SELECTOR, selector.len());
        buffer.extend_from_slice(selector);
    };
    let Change::Token(entry) = change else {
        let rest = v1::WatchTokensResponse { selector: None, event: Some(event(change)) };
        return framed(begin + rest.encoded_len(), |buffer| {
            put_selector(buffer);
            rest.encode_raw(buffer);
        });
    };
    TokenMessage::of(&entry, |token| {
        framed(begin + token.length(), |buffer| {
            put_selector(buffer);
            token.put(TOKEN, buffer);
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cache::memory::Entry,
        error::{Error, ErrorKind},
        rpc::message::{PREFIX, length},
        types::Generation,
    };

    #[test]
    fn a_message_is_the_one_that_prost_would_encode() {
        let entry = Arc::new(Entry::sample("c", &"x".repeat(900)));
        let selector =
            v1::TokenSelector { credential: "c".into(), scopes: vec!["a".into()], ..v1::TokenSelector::default() };
        for change in [
            Change::Token(entry),
            Change::Invalidated(Generation::new(7)),
            Change::Unavailable(Box::new(Error::new(ErrorKind::UpstreamDown, "down"))),
        ] {
            let expected =
                v1::WatchTokensResponse { selector: Some(selector.clone()), event: Some(event(change.clone())) };
            let bytes = encode(&selector.encode_to_vec(), change);
            assert_eq!(length(&bytes), Some(Some(bytes.len())));
            assert_eq!(v1::WatchTokensResponse::decode(&bytes[PREFIX..]), Ok(expected));
        }
    }
}
