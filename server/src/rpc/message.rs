//! Messages as gRPC frames them, read and written without tonic's codec.

use std::{
    cell::RefCell,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{Request, request::Parts};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use prost::Message as _;

use super::{convert, routes::MAX_REQUEST};
use crate::{cache::memory::Entry, time::Timestamp};

/// A message's prefix: whether it is compressed, and its length (gRPC over HTTP/2, "Length-Prefixed-Message").
pub(super) const PREFIX: usize = 5;

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

/// A request with its one message; one that is unusual, as it came.
pub(super) async fn read<T: prost::Message + Default>(
    request: Request<Incoming>,
) -> Result<(Parts, T), Request<Again>> {
    let (head, body) = request.into_parts();
    let bytes = match whole(body).await {
        Ok(bytes) => bytes,
        Err(again) => return Err(Request::from_parts(head, again)),
    };
    match T::decode(bytes.slice(PREFIX..)) {
        Ok(message) => Ok((head, message)),
        Err(_) => Err(Request::from_parts(head, Again { begun: Some(bytes), rest: None })),
    }
}

/// The length of the message that begins here, with its prefix; inner `None`: it is compressed. Outer `None`: it is not yet
/// told.
pub(super) fn length(begun: &[u8]) -> Option<Option<usize>> {
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

/// A message with its prefix, of a length that is known beforehand.
pub(super) fn framed(length: usize, fill: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut buffer = BytesMut::with_capacity(PREFIX + length);
    buffer.put_u8(0);
    buffer.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    fill(&mut buffer);
    buffer.freeze()
}

/// The key of a field of bytes (length-delimited) with this number.
pub(super) const fn key(number: u8) -> u8 {
    number << 3 | 2
}

/// The length of a field of so many bytes, with its key and its length.
pub(super) fn field_length(bytes: usize) -> usize {
    1 + prost::length_delimiter_len(bytes) + bytes
}

/// Begins a field of so many bytes.
pub(super) fn begin_field(buffer: &mut impl bytes::BufMut, key: u8, length: usize) {
    buffer.put_u8(key);
    // Buffers grow.
    let _ = prost::encode_length_delimiter(length, buffer);
}

fn put_field(buffer: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    begin_field(buffer, key(number), bytes.len());
    buffer.extend_from_slice(bytes);
}

fn put_time(buffer: &mut Vec<u8>, number: u8, time: Timestamp) {
    let time = convert::timestamp(time);
    begin_field(buffer, key(number), time.encoded_len());
    let _ = time.encode(buffer);
}

/// The message `Token` of an entry, ready to be copied into a larger one.
#[derive(Clone, Copy)]
pub(super) struct TokenMessage<'a> {
    access_token: &'a [u8],
    rest: &'a [u8],
}

impl TokenMessage<'_> {
    const ACCESS_TOKEN: u8 = key(1);

    /// Encodes all but the token itself into a buffer of this thread, for the length comes before it.
    pub(super) fn of<T>(entry: &Entry, then: impl FnOnce(TokenMessage<'_>) -> T) -> T {
        thread_local! {
            static REST: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        let mut rest = REST.take();
        rest.clear();
        encode_rest(&mut rest, entry);
        let told = then(TokenMessage { access_token: entry.token.access_token.expose().as_bytes(), rest: &rest });
        REST.set(rest);
        told
    }

    /// As a field with this key.
    pub(super) fn put(self, key: u8, buffer: &mut BytesMut) {
        begin_field(buffer, key, self.inner_length());
        buffer.extend_from_slice(self.rest);
        begin_field(buffer, Self::ACCESS_TOKEN, self.access_token.len());
        buffer.extend_from_slice(self.access_token);
    }

    /// The length of that field.
    pub(super) fn length(self) -> usize {
        field_length(self.inner_length())
    }

    fn inner_length(self) -> usize {
        self.rest.len() + field_length(self.access_token.len())
    }
}

/// The fields 2 to 8 of `Token`. What has its default is left out, as proto3 does.
fn encode_rest(buffer: &mut Vec<u8>, entry: &Entry) {
    let (token, terms) = (&entry.token, &entry.token.terms);
    if !terms.token_type().is_empty() {
        put_field(buffer, 2, terms.token_type().as_bytes());
    }
    put_time(buffer, 3, token.expires_at);
    put_time(buffer, 4, token.issued_at);
    terms.scopes().iter().for_each(|scope| put_field(buffer, 5, scope.as_bytes()));
    if token.generation.get() > 0 {
        // A number: a varint.
        buffer.push(6 << 3);
        prost::encoding::encode_varint(token.generation.get(), buffer);
    }
    let mut digits = [0; 16];
    // It has room for exactly these.
    let _ = hex::encode_to_slice(token.fingerprint.as_bytes(), &mut digits);
    put_field(buffer, 7, &digits);
    for (name, value) in terms.attributes() {
        begin_field(buffer, key(8), field_length(name.len()) + field_length(value.len()));
        put_field(buffer, 1, name.as_bytes());
        put_field(buffer, 2, value.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_as_long_as_its_prefix_says_unless_it_is_compressed() {
        assert_eq!(length(b""), None);
        assert_eq!(length(&[0, 0, 0, 1]), None);
        assert_eq!(length(&[0, 0, 0, 1, 2]), Some(Some(PREFIX + 258)));
        assert_eq!(length(&[1, 0, 0, 0, 0]), Some(None));
    }
}
