//! `GetToken` without tonic's codec: one buffer for the answer.
//!
//! Whatever is unusual about a request, such as compression or a message of more than one piece too many, is handed back,
//! for tonic to say what it says of any other rpc.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use prost::Message as _;
use tokencache_proto::v1::{self, Freshness};
use tokio::time::Instant;
use tonic::{Status, body::Body};

use super::{
    accept::Facts,
    answer::Answer,
    call_of, convert,
    hold::Hold,
    message::{Again, TokenMessage, framed, key, read, read_at_once},
    token_service::Tokens,
};
use crate::{
    cache::Served,
    pipeline::{Call, Issued},
    types::TokenRequest,
};

/// Its path.
pub(super) const PATH: &str = "/tokencache.v1.TokenService/GetToken";

/// `GetTokenResponse.token`.
const TOKEN: u8 = key(1);

/// What became of the attempt to answer a call at once.
pub(super) enum AtOnce {
    /// There it is.
    Answered(Response<Answer>),
    /// It has to wait. Nothing has happened yet.
    Understood(Box<Asked>),
    /// Something is unusual about it. Nothing has happened yet, and the request is as it was.
    Unusual,
}

/// A call that was understood: its request is needed no more.
pub(super) struct Asked {
    tokens: Tokens,
    call: Call,
    request: TokenRequest,
}

/// Answers a call that nothing is unusual about and that has not to wait.
pub(super) fn answer_at_once(
    tokens: &Tokens,
    begun: Instant,
    facts: &Arc<Facts>,
    hold: &Hold,
    request: &mut Request<Again>,
) -> AtOnce {
    let message = read_at_once(request.body_mut());
    let Some(Ok(asked)) = message.map(convert::token_request) else { return AtOnce::Unusual };
    let call = call_of(Some(facts), request.headers());
    match tokens.pipeline.get_token_at_once(begun, &call, asked) {
        Ok(issued) => AtOnce::Answered(held_back(hold, issued)),
        Err(request) => AtOnce::Understood(Box::new(Asked { tokens: tokens.clone(), call, request })),
    }
}

/// Answers a call that was understood.
pub(super) async fn answer_asked(hold: &Hold, asked: Box<Asked>) -> Response<Answer> {
    let Asked { tokens, call, request } = *asked;
    respond(hold, tokens.issued(call, Ok(request)).await)
}

/// Answers a call, or hands its request back.
pub(super) async fn answer(
    tokens: &Tokens,
    facts: &Arc<Facts>,
    hold: &Hold,
    request: Box<Request<Again>>,
) -> Result<Response<Answer>, Box<Request<Again>>> {
    let (call, message) = read(facts, request).await?;
    Ok(respond(hold, tokens.issued(call, convert::token_request(message)).await))
}

fn respond(hold: &Hold, issued: Result<Issued, Status>) -> Response<Answer> {
    match issued {
        Ok(issued) => held_back(hold, issued),
        Err(status) => Status::into_http::<Body>(status).map(Answer::from),
    }
}

/// The answer, which leaves once its event is on record.
fn held_back(hold: &Hold, (served, receipt): Issued) -> Response<Answer> {
    if let Some(receipt) = receipt {
        hold.until(receipt);
    }
    Answer::Message(encode(&served)).into_response()
}

/// The answer as a message with its prefix.
pub(super) fn encode(served: &Served) -> Bytes {
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
    use super::{
        super::message::{PREFIX, length},
        *,
    };
    use crate::{cache::memory::Entry, time::Timestamp};

    #[test]
    fn an_answer_is_the_message_that_prost_would_encode() {
        let now = Timestamp::from_millis(12_345);
        // Lengths of one, two and three bytes.
        for size in [1, 100, 900, 20_000] {
            let current = Arc::new(Entry::sample("c", &"x".repeat(size)));
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
