//! `GetToken` without tonic's codec: one buffer for the answer.
//!
//! Whatever is unusual about a request, such as compression or a message of more than one piece too many, is handed back,
//! for tonic to say what it says of any other rpc.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header::CONTENT_TYPE};
use hyper::body::Incoming;
use prost::Message as _;
use tokencache_proto::v1::{self, Freshness};
use tonic::{Status, body::Body};

use super::{
    accept::Facts,
    answer::Answer,
    call_of, convert,
    hold::Hold,
    message::{Again, PREFIX, TokenMessage, framed, key, whole},
    token_service::Tokens,
};
use crate::cache::Served;

/// Its path.
pub(super) const PATH: &str = "/tokencache.v1.TokenService/GetToken";

/// `GetTokenResponse.token`.
const TOKEN: u8 = key(1);

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
            Err(_) => return Err(Request::from_parts(head, Again::whole(bytes))),
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

/// The answer as a message with its prefix.
fn encode(served: &Served) -> Bytes {
    let rest = v1::GetTokenResponse {
        token: None,
        not_modified: served.entry.is_none(),
        freshness: if served.verified { Freshness::Verified } else { Freshness::Degraded }.into(),
        server_time: Some(convert::timestamp(served.at)),
    };
    match &served.entry {
        None => framed(rest.encoded_len(), |buffer| rest.encode_raw(buffer)),
        Some(entry) => TokenMessage::of(entry, |token| {
            framed(token.length() + rest.encoded_len(), |buffer| {
                token.put(TOKEN, buffer);
                // Fields may stand in any order.
                rest.encode_raw(buffer);
            })
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::message::length, *};
    use crate::{
        cache::memory::Entry,
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
                let bytes = encode(&served);
                assert_eq!(length(&bytes), Some(Some(bytes.len())), "{size}");
                assert_eq!(v1::GetTokenResponse::decode(&bytes[PREFIX..]), Ok(expected.clone()), "{size}");
                assert_eq!(bytes.len(), PREFIX + expected.encoded_len(), "{size}");
            }
        }
    }
}
