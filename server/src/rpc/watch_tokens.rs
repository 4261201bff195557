//! `WatchTokens` without tonic's codec, whose buffers are larger than all else that a stream needs.
//!
//! Whatever is unusual about a request is handed back, as in `get_token`.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt as _};
use http::{HeaderValue, Request, Response, header::CONTENT_TYPE};
use hyper::body::Incoming;
use prost::Message as _;
use tokencache_proto::v1;
use tonic::{Status, body::Body};

use super::{
    accept::Facts,
    answer::Answer,
    call_of,
    hold::Hold,
    message::{Again, PREFIX, TokenMessage, begin_field, field_length, framed, key, whole},
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
    request: Request<Incoming>,
) -> Result<Response<Answer>, Request<Again>> {
    let (head, body) = request.into_parts();
    let message = match whole(body).await {
        Ok(bytes) => match v1::WatchTokensRequest::decode(bytes.slice(PREFIX..)) {
            Ok(message) => message,
            Err(_) => return Err(Request::from_parts(head, Again::whole(bytes))),
        },
        Err(again) => return Err(Request::from_parts(head, again)),
    };
    let told = tokens.told(call_of(Some(facts), &head.headers), message).await;
    Ok(match told {
        Ok(told) => {
            let mut response = Response::new(Answer::Stream(Box::pin(messages(told, hold.clone()))));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            response
        }
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
        rpc::message::length,
        time::Timestamp,
        types::{CredentialName, Fingerprint, Generation, Secret, Selector, Token, TokenKey},
    };

    #[test]
    fn a_message_is_the_one_that_prost_would_encode() {
        let access_token = Secret::from("x".repeat(900));
        let token = Token {
            fingerprint: Fingerprint::of(&access_token),
            access_token,
            token_type: "Bearer".into(),
            issued_at: Timestamp::from_millis(1_000),
            expires_at: Timestamp::from_millis(3_601_000),
            refresh_at: Timestamp::from_millis(3_000_000),
            scopes: vec!["a".into(), "b".into()],
            generation: Generation::new(300),
            attributes: [("instance_url".into(), "https://x.example/".into())].into(),
        };
        let name = CredentialName::parse("c").expect("a valid name");
        let key = TokenKey::new(Selector::new(name, vec![], None, vec![]));
        let entry = Arc::new(Entry::new(key, token, Fingerprint::of_bytes(b""), Timestamp::from_millis(0)));
        let selector =
            v1::TokenSelector { credential: "c".into(), scopes: vec!["a".into()], ..v1::TokenSelector::default() };
        for change in [
            Change::Token(entry),
            Change::Invalidated(Generation::new(7)),
            Change::Unavailable(Error::new(ErrorKind::UpstreamDown, "down")),
        ] {
            let expected =
                v1::WatchTokensResponse { selector: Some(selector.clone()), event: Some(event(change.clone())) };
            let bytes = encode(&selector.encode_to_vec(), change);
            assert_eq!(length(&bytes), Some(Some(bytes.len())));
            assert_eq!(v1::WatchTokensResponse::decode(&bytes[PREFIX..]), Ok(expected));
        }
    }
}
