//! Messages as gRPC frames them, read and written without tonic's codec.

use std::{
    cell::RefCell,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use bytes::{BufMut as _, Bytes, BytesMut};
use http::Request;
use http_body::{Body as _, Frame};
use hyper::body::Incoming;
use prost::Message as _;

use super::{accept::Facts, call_of, convert, routes::MAX_REQUEST};
use crate::{cache::memory::Entry, pipeline::Call, time::Timestamp};

/// A message's prefix: whether it is compressed, and its length (gRPC over HTTP/2, "Length-Prefixed-Message").
pub(super) const PREFIX: usize = 5;

/// What a request's transport says of it, and its one message; a request that is unusual, as it came.
pub(super) async fn read<T: prost::Message + Default>(
    facts: &Arc<Facts>,
    mut request: Box<Request<Again>>,
) -> Result<(Call, T), Box<Request<Again>>> {
    let bytes = poll_fn(|context| request.body_mut().poll_whole(context)).await;
    match bytes.as_ref().and_then(decoded) {
        Some(message) => Ok((call_of(Some(facts), request.headers()), message)),
        None => Err(request),
    }
}

/// The one message of a request, if all of it is here and it is not unusual.
pub(super) fn read_at_once<T: prost::Message + Default>(body: &mut Again) -> Option<T> {
    // Who waits for the rest later asks for it anew.
    match body.poll_whole(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(bytes) => bytes.as_ref().and_then(decoded),
        Poll::Pending => None,
    }
}

fn decoded<T: prost::Message + Default>(message: &Bytes) -> Option<T> {
    T::decode(message.slice(PREFIX..)).ok()
}

/// The length of the message that begins here, with its prefix; inner `None`: it is compressed. Outer `None`: it is not yet
/// told.
pub(super) fn length(begun: &[u8]) -> Option<Option<usize>> {
    let (compressed, length) = begun.first_chunk::<PREFIX>()?.split_first()?;
    let length = u32::from_be_bytes(length.try_into().ok()?);
    Some((*compressed == 0).then_some(PREFIX + length as usize))
}

/// A request's body, whose beginning may have been read: who reads it gets that again.
#[derive(Debug)]
pub(super) struct Again {
    begun: Option<Bytes>,
    rest: Incoming,
}

impl Again {
    pub(super) fn new(body: Incoming) -> Self {
        Self { begun: None, rest: body }
    }

    /// Reads on until the body's one message is here, with its prefix. `None`: it is not as nearly all are.
    fn poll_whole(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        while !self.rest.is_end_stream() {
            match ready!(Pin::new(&mut self.rest).poll_frame(context)) {
                None => break,
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else { continue };
                    self.begun = Some(match self.begun.take() {
                        None => data,
                        Some(begun) => [begun, data].concat().into(),
                    });
                }
                // The stream is broken: nobody hears the answer.
                Some(Err(_)) => return Poll::Ready(None),
            }
            let begun = self.begun.as_deref().unwrap_or_default();
            let is_too_long = |length| length > MAX_REQUEST || begun.len() > length;
            if length(begun).is_some_and(|length| length.is_none_or(is_too_long)) {
                return Poll::Ready(None);
            }
        }
        let whole = self.begun.clone().unwrap_or_default();
        Poll::Ready((length(&whole) == Some(Some(whole.len()))).then_some(whole))
    }
}

impl http_body::Body for Again {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.begun.take() {
            Some(begun) => Poll::Ready(Some(Ok(Frame::data(begun)))),
            None => Pin::new(&mut self.rest).poll_frame(context),
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
