//! The body of an answer.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures::Stream;
use http::{HeaderMap, HeaderName, HeaderValue, Response, header::CONTENT_TYPE};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::{Status, body::Body};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// The body of an answer: of one message that is encoded already, or of whatever a service streams.
pub(super) enum Answer {
    /// A message with its prefix. Then comes [`Answer::Trailers`].
    Message(Bytes),
    /// Messages as they come, each with its prefix. Then comes [`Answer::Trailers`], or an error's own.
    Stream(Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>),
    /// Success. Then comes [`Answer::End`].
    Trailers,
    /// Nothing more.
    End,
    /// What a service streams.
    Other(Body),
}

impl From<Body> for Answer {
    fn from(body: Body) -> Self {
        Self::Other(body)
    }
}

impl Answer {
    /// The answer that has this body.
    pub(super) fn into_response(self) -> Response<Self> {
        let mut response = Response::new(self);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        response
    }
}

fn success() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
    trailers
}

fn trailers_of(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    // It fails for a message that no header can hold, and then the code alone is told.
    if status.add_header(&mut trailers).is_err() {
        trailers = HeaderMap::new();
        trailers.insert(GRPC_STATUS, HeaderValue::from(status.code() as i32));
    }
    trailers
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let (frame, next) = match this {
            Self::Message(message) => (Frame::data(std::mem::take(message)), Self::Trailers),
            Self::Trailers => (Frame::trailers(success()), Self::End),
            Self::Stream(messages) => match ready!(messages.as_mut().poll_next(context)) {
                Some(Ok(message)) => return Poll::Ready(Some(Ok(Frame::data(message)))),
                Some(Err(status)) => (Frame::trailers(trailers_of(&status)), Self::End),
                None => (Frame::trailers(success()), Self::End),
            },
            Self::End => return Poll::Ready(None),
            Self::Other(body) => return Pin::new(body).poll_frame(context),
        };
        *this = next;
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Message(_) | Self::Stream(_) | Self::Trailers => false,
            Self::End => true,
            Self::Other(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Other(body) => body.size_hint(),
            // An exact one would become a `content-length`, which gRPC does without.
            Self::Message(_) | Self::Stream(_) | Self::Trailers | Self::End => SizeHint::default(),
        }
    }
}
