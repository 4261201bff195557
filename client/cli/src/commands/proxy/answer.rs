//! What the proxy itself answers.

use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER},
};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use tokencache_client::{Error, tower::BodyError};

use crate::failure::next_step;

pub(super) type ResponseBody = UnsyncBoxBody<Bytes, BodyError>;

/// A sentence for whoever reads it.
pub(super) fn sentence(status: StatusCode, text: &str) -> Response<ResponseBody> {
    let body = Full::new(Bytes::from(format!("tokencache: {text}\n"))).map_err(|never| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// Why a request came to nothing.
pub(super) fn failure(error: &BodyError) -> Response<ResponseBody> {
    match error.downcast_ref::<Error>() {
        Some(error) => no_token(error),
        None => sentence(StatusCode::BAD_GATEWAY, &format!("the upstream cannot be reached: {}", causes(&**error))),
    }
}

fn no_token(error: &Error) -> Response<ResponseBody> {
    let reason = error.reason().map(|reason| format!(" ({reason})")).unwrap_or_default();
    let step = next_step(error).map(|step| format!("; {step}")).unwrap_or_default();
    let text = format!("there is no token: {error}{reason}{step}");
    let mut response = sentence(StatusCode::SERVICE_UNAVAILABLE, &text);
    if let Some(delay) = error.retry_after() {
        let seconds = delay.as_millis().div_ceil(1000);
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from_str(&seconds.to_string()).expect("it is a number"));
    }
    response
}

/// The error with its causes, which hyper tells one by one.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
