//! Bodies of which the beginning was read: they are handed on whole.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf as _, Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;

/// A body of which the beginning was read.
#[derive(Debug)]
pub struct ReadBody<B> {
    begun: Option<Bytes>,
    failed: Option<BodyError>,
    /// `None`: that was all.
    rest: Option<B>,
}

/// What a body may fail with.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

impl<B> ReadBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BodyError>,
{
    /// All of it is in memory.
    pub(crate) fn whole(bytes: Bytes) -> Self {
        Self { begun: (!bytes.is_empty()).then_some(bytes), failed: None, rest: None }
    }

    /// Nothing was read of it.
    pub(crate) fn unread(body: B) -> Self {
        Self { begun: None, failed: None, rest: Some(body) }
    }

    /// Reads up to `limit` bytes. Returns them if that was all, trailers aside, which only a body that is not all has.
    pub(crate) async fn read(mut body: B, limit: usize) -> (Self, Option<Bytes>) {
        // One that says that it is longer is not touched; nor is any where nothing is kept, for it may be a conversation whose
        // first word waits for an answer.
        let nothing_is_kept = limit == 0 && !body.is_end_stream();
        if nothing_is_kept || body.size_hint().lower() > u64::try_from(limit).unwrap_or(u64::MAX) {
            return (Self::unread(body), None);
        }
        let mut begun = BytesMut::new();
        while begun.len() <= limit {
            match body.frame().await {
                None => {
                    let bytes = begun.freeze();
                    return (Self::whole(bytes.clone()), Some(bytes));
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => begun.extend_from_slice(&data),
                    // Trailers end it, and cannot be sent twice: they are given up with the replay.
                    Err(_) => break,
                },
                Some(Err(error)) => {
                    let (begun, failed) = (Some(begun.freeze()), Some(error.into()));
                    return (Self { begun, failed, rest: None }, None);
                }
            }
        }
        (Self { begun: Some(begun.freeze()), failed: None, rest: Some(body) }, None)
    }
}

impl<B> Body for ReadBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BodyError>,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(begun) = self.begun.take().filter(|begun| begun.has_remaining()) {
            return Poll::Ready(Some(Ok(Frame::data(begun))));
        }
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Some(Err(error)));
        }
        match &mut self.rest {
            Some(rest) => Pin::new(rest).poll_frame(cx).map_err(Into::into),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.begun.is_none() && self.failed.is_none() && self.rest.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let begun = u64::try_from(self.begun.as_ref().map_or(0, Bytes::len)).unwrap_or(u64::MAX);
        let rest = self.rest.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint);
        let mut hint = SizeHint::new();
        hint.set_lower(begun.saturating_add(rest.lower()));
        if let Some(upper) = rest.upper() {
            hint.set_upper(begun.saturating_add(upper));
        }
        hint
    }
}
