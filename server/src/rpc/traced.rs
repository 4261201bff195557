//! The span of a call that is recorded. One that is not costs a look at its `traceparent`.

use http::{Request, Response};

use super::calls::{Row, code_of};
use crate::trace::{Span, Tracer};

/// The span of a call of our own services, if it is to be recorded.
pub(super) fn begin<B>(tracer: &Tracer, row: Row, request: &Request<B>) -> Option<Span> {
    if tracer.is_off() {
        return None;
    }
    let (service, method) = row.traced()?;
    let traceparent = request.headers().get("traceparent").map(|value| value.as_bytes());
    let mut span = tracer.of_call(traceparent, || format!("{service}/{method}"))?;
    span.note("rpc.system", "grpc");
    span.note("rpc.service", service);
    span.note("rpc.method", method);
    Some(span)
}

/// Answers a call as part of its span.
pub(super) async fn record<B>(mut span: Span, answer: impl Future<Output = Response<B>>) -> Response<B> {
    let response = span.around(answer).await;
    let (number, name) = code_of(response.status(), response.headers());
    span.note("rpc.grpc.status_code", i64::try_from(number).unwrap_or_default());
    if number != 0 {
        span.fail(name);
    }
    response
}
