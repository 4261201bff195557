//! The body of an answer.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::body::Body;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// The body of an answer: of one message that is encoded already, or of whatever a service streams.
#[derive(Debug)]
pub(super) enum Answer {
    /// A message with its prefix. Then comes [`Answer::Trailers`].
    Message(Bytes),
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

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let this = &mut *self;
        let (frame, next) = match this {
            Self::Message(message) => (Frame::data(std::mem::take(message)), Self::Trailers),
            Self::Trailers => {
                let mut trailers = HeaderMap::with_capacity(1);
                trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
                (Frame::trailers(trailers), Self::End)
            }
            Self::End => return Poll::Ready(None),
            Self::Other(body) => return Pin::new(body).poll_frame(context),
        };
        *this = next;
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Message(_) | Self::Trailers => false,
            Self::End => true,
            Self::Other(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Other(body) => body.size_hint(),
            // An exact one would become a `content-length`, which gRPC does without.
            Self::Message(_) | Self::Trailers | Self::End => SizeHint::default(),
        }
    }
}
