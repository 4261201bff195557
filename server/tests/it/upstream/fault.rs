//! What the token endpoint does instead of issuing a token.

use std::{future::pending, io, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{Response, header::CONTENT_LENGTH},
};
use futures::{StreamExt as _, stream};
use tokio::time::sleep;

/// What is done at one call.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// This answer.
    Answer { status: u16, headers: Vec<(&'static str, String)>, body: Vec<u8> },
    /// A success whose body breaks off after these bytes.
    BreakOff(Vec<u8>),
    /// The connection ends without an answer.
    Cut,
    /// What was asked for is done, and the connection ends before the answer.
    Lose,
    /// Nothing, until the caller goes away.
    Hang,
}

/// Marks an answer that is not to be sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut;

impl Fault {
    /// An answer of this status, without a body.
    pub(crate) fn status(status: u16) -> Self {
        Self::Answer { status, headers: vec![], body: vec![] }
    }

    /// A success with these bytes as JSON.
    pub(crate) fn json(body: impl Into<Vec<u8>>) -> Self {
        Self::status(200).with_header("content-type", "application/json").with_body(body)
    }

    /// A refusal with an error code of RFC 6749 section 5.2.
    pub(crate) fn refusal(code: &str) -> Self {
        let body = format!(r#"{{"error":"{code}","error_description":"c4n4ry"}}"#);
        Self::status(400).with_header("content-type", "application/json").with_body(body)
    }

    /// The same answer with one more header.
    pub(crate) fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        if let Self::Answer { headers, .. } = &mut self {
            headers.push((name, value.into()));
        }
        self
    }

    /// The same answer with this body.
    pub(crate) fn with_body(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        if let Self::Answer { body, .. } = &mut self {
            *body = bytes.into();
        }
        self
    }

    /// The answer, as far as there is one.
    pub(super) async fn into_response(self) -> Response<Body> {
        match self {
            Self::Answer { status, headers, body } => {
                let response = Response::builder().status(status);
                let response =
                    headers.into_iter().fold(response, |response, (name, value)| response.header(name, value));
                response.body(Body::from(body)).expect("a valid answer")
            }
            Self::BreakOff(bytes) => {
                let promised = bytes.len() + 100;
                let end = async {
                    // What is sent together with an error is not sent at all.
                    sleep(Duration::from_millis(100)).await;
                    Err(io::Error::other("it breaks off here"))
                };
                let pieces = stream::iter([Ok(Bytes::from(bytes))]).chain(stream::once(end));
                let response = Response::builder().header(CONTENT_LENGTH, promised);
                response.body(Body::from_stream(pieces)).expect("a valid answer")
            }
            Self::Cut | Self::Lose => Response::builder().extension(Cut).body(Body::empty()).expect("a valid answer"),
            Self::Hang => pending().await,
        }
    }
}
