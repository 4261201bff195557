//! `GetToken` without tonic's codec: one buffer for the answer, and what does not change from call to call encoded once.
//!
//! Whatever is unusual about a request, such as compression or a message of more than one piece too many, is handed back,
//! for tonic to say what it says of any other rpc.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderValue, Request, Response, header::CONTENT_TYPE};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use prost::Message as _;
use tokencache_proto::v1::{self, Freshness};
use tonic::{Status, body::Body};

use super::{accept::Facts, answer::Answer, call_of, convert, hold::Hold, routes::MAX_REQUEST, token_service::Tokens};
use crate::cache::{Served, memory::Entry};

/// Its path.
pub(super) const PATH: &str = "/tokencache.v1.TokenService/GetToken";

/// A message's prefix: whether it is compressed, and its length (gRPC over HTTP/2, "Length-Prefixed-Message").
const PREFIX: usize = 5;

/// `GetTokenResponse.token` and `Token.access_token`, as the keys of their fields: number 1, length-delimited.
const TOKEN_FIELD: u8 = 1 << 3 | 2;
const ACCESS_TOKEN_FIELD: u8 = 1 << 3 | 2;

/// Answers a call, or hands its request back.
pub(super) async fn answer(
    tokens: &Tokens,
    facts: &Arc<Facts>,
    hold: &Hold,
    request: Request<Incoming>,
) -> Result<Response<Answer>, Request<Again>> {
    let (head, body) = request.into_parts();
    let message = match whole(body).await {
        Ok(bytes) => match v1::GetTokenRequest::decode(bytes.slice(PREFIX..)) {
            Ok(message) => message,
            Err(_) => return Err(Request::from_parts(head, Again { begun: Some(bytes), rest: None })),
        },
        Err(again) => return Err(Request::from_parts(head, again)),
    };
    let issued = tokens.issued(call_of(Some(facts), &head.headers), message).await;
    Ok(match issued {
        Ok((served, receipt)) => {
            if let Some(receipt) = receipt {
                hold.until(receipt);
            }
            let mut response = Response::new(Answer::Message(encode(&served)));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            response
        }
        Err(status) => Status::into_http::<Body>(status).map(Answer::from),
    })
}

/// The one message of a request, with its prefix.
async fn whole(mut body: Incoming) -> Result<Bytes, Again> {
    let mut begun = Bytes::new();
    while !body.is_end_stream() {
        match body.frame().await {
            None => break,
            Some(Ok(frame)) => {
                let Ok(data) = frame.into_data() else { continue };
                begun = if begun.is_empty() { data } else { [begun, data].concat().into() };
            }
            // The stream is broken: nobody hears the answer.
            Some(Err(_)) => return Err(Again { begun: Some(begun), rest: Some(body) }),
        }
        if length(&begun).is_some_and(|length| length.is_none_or(|length| length > MAX_REQUEST || begun.len() > length))
        {
            return Err(Again { begun: Some(begun), rest: Some(body) });
        }
    }
    if length(&begun) == Some(Some(begun.len())) { Ok(begun) } else { Err(Again { begun: Some(begun), rest: None }) }
}

/// The length of the message that begins here, with its prefix; inner `None`: it is compressed. Outer `None`: it is not yet
/// told.
fn length(begun: &[u8]) -> Option<Option<usize>> {
    let (compressed, length) = begun.first_chunk::<PREFIX>()?.split_first()?;
    let length = u32::from_be_bytes(length.try_into().ok()?);
    Some((*compressed == 0).then_some(PREFIX + length as usize))
}

/// A request's body from its beginning, after that has been read.
#[derive(Debug)]
pub(super) struct Again {
    begun: Option<Bytes>,
    rest: Option<Incoming>,
}

impl http_body::Body for Again {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match (self.begun.take(), &mut self.rest) {
            (Some(begun), _) => Poll::Ready(Some(Ok(Frame::data(begun)))),
            (None, Some(rest)) => Pin::new(rest).poll_frame(context),
            (None, None) => Poll::Ready(None),
        }
    }
}

/// The answer as a message with its prefix.
fn encode(served: &Served) -> Bytes {
    let entry = served.entry.as_deref();
    let rest = v1::GetTokenResponse {
        token: None,
        not_modified: entry.is_none(),
        freshness: if served.verified { Freshness::Verified } else { Freshness::Degraded }.into(),
        server_time: Some(convert::timestamp(served.at)),
    };
    let token = entry.map(|entry| (public(entry), entry.token.access_token.expose().as_bytes()));
    let token_length = token.map_or(0, |(public, secret)| public.len() + field_length(secret.len()));
    let length = rest.encoded_len() + token.map_or(0, |_| field_length(token_length));
    let mut buffer = BytesMut::with_capacity(PREFIX + length);
    buffer.put_u8(0);
    buffer.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    if let Some((public, secret)) = token {
        begin_field(&mut buffer, TOKEN_FIELD, token_length);
        buffer.extend_from_slice(public);
        begin_field(&mut buffer, ACCESS_TOKEN_FIELD, secret.len());
        buffer.extend_from_slice(secret);
    }
    // Fields may stand in any order.
    rest.encode_raw(&mut buffer);
    buffer.freeze()
}

/// What is no secret of a token's message. It is kept beside the token, for to encode it takes several allocations.
fn public(entry: &Entry) -> &[u8] {
    entry.public_form(|| v1::Token { access_token: String::new(), ..convert::token(entry) }.encode_to_vec())
}

fn begin_field(buffer: &mut BytesMut, key: u8, length: usize) {
    buffer.put_u8(key);
    // A `BytesMut` grows.
    let _ = prost::encode_length_delimiter(length, buffer);
}

/// Of a field of so many bytes, with its key and its length.
fn field_length(bytes: usize) -> usize {
    1 + prost::length_delimiter_len(bytes) + bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        time::Timestamp,
        types::{CredentialName, Fingerprint, Generation, Secret, Selector, Token, TokenKey},
    };

    fn entry(access_token: &str) -> Entry {
        let access_token = Secret::from(access_token);
        let token = Token {
            fingerprint: Fingerprint::of(&access_token),
            access_token,
            token_type: "Bearer".into(),
            issued_at: Timestamp::from_millis(1_000),
            expires_at: Timestamp::from_millis(3_601_000),
            refresh_at: Timestamp::from_millis(3_000_000),
            scopes: vec!["a".into(), "b".into()],
            generation: Generation::new(7),
            attributes: [("instance_url".into(), "https://x.example/".into())].into(),
        };
        let credential = CredentialName::parse("c").expect("a valid name");
        let key = TokenKey::new(Selector::new(credential, vec![], None, vec![]));
        Entry::new(key, token, Fingerprint::of_bytes(b""), Timestamp::from_millis(0))
    }

    #[test]
    fn an_answer_is_the_message_that_prost_would_encode() {
        let now = Timestamp::from_millis(12_345);
        // Lengths of one, two and three bytes.
        for size in [1, 100, 900, 20_000] {
            let current = Arc::new(entry(&"x".repeat(size)));
            for (verified, modified) in [(true, true), (false, true), (true, false)] {
                let known = modified.then(|| Arc::clone(&current));
                let served = Served { entry: known, verified, current: Arc::clone(&current), hit: true, at: now };
                let expected = v1::GetTokenResponse {
                    token: modified.then(|| convert::token(&current)),
                    not_modified: !modified,
                    freshness: if verified { Freshness::Verified } else { Freshness::Degraded }.into(),
                    server_time: Some(convert::timestamp(now)),
                };
                // The second time what is public is encoded already.
                for _ in 0..2 {
                    let bytes = encode(&served);
                    assert_eq!(length(&bytes), Some(Some(bytes.len())), "{size}");
                    assert_eq!(v1::GetTokenResponse::decode(&bytes[PREFIX..]), Ok(expected.clone()), "{size}");
                    assert_eq!(bytes.len(), PREFIX + expected.encoded_len(), "{size}");
                }
            }
        }
    }

    #[test]
    fn a_message_is_as_long_as_its_prefix_says_unless_it_is_compressed() {
        assert_eq!(length(b""), None);
        assert_eq!(length(&[0, 0, 0, 1]), None);
        assert_eq!(length(&[0, 0, 0, 1, 2]), Some(Some(PREFIX + 258)));
        assert_eq!(length(&[1, 0, 0, 0, 0]), Some(None));
    }
}
