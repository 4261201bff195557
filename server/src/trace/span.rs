//! Spans, and how the work of a task finds the one that it belongs to.

use std::{borrow::Cow, fmt};

use futures::future::Either;
use opentelemetry::{
    Context, KeyValue, Value,
    trace::{Span as _, SpanContext, SpanKind, Status, TraceContextExt as _, Tracer as _},
};
use opentelemetry_sdk::trace::{SdkTracer, Span as SdkSpan};
use tracing::Instrument as _;

tokio::task_local! {
    /// The span that the present work belongs to.
    static HERE: Child;
}

/// The span that this task works for. `None`: nothing of it is recorded.
#[must_use]
pub fn here() -> Option<Child> {
    HERE.try_with(Clone::clone).ok()
}

/// The same work, as part of the trace of the task that hands it on to another one.
pub fn carry<F: Future>(work: F) -> impl Future<Output = F::Output> {
    match here() {
        Some(child) => Either::Left(child.scope(work)),
        None => Either::Right(work),
    }
}

/// What children of a span are made from. Cheap to clone.
#[derive(Clone)]
pub struct Child {
    tracer: SdkTracer,
    parent: SpanContext,
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Child").field(&self.parent.span_id()).finish()
    }
}

impl Child {
    /// Begins a child.
    pub(super) fn begin(&self, name: impl Into<Cow<'static, str>>, kind: SpanKind) -> Span {
        Span::begin(&self.tracer, Some(self.parent.clone()), name, kind)
    }

    /// Begins a child that calls another service.
    #[must_use]
    pub fn call(&self, name: impl Into<Cow<'static, str>>) -> Span {
        self.begin(name, SpanKind::Client)
    }

    /// Does some work as part of the span. Log lines from within carry the id of the trace.
    fn scope<F: Future>(self, work: F) -> impl Future<Output = F::Output> {
        // Of the highest level, or a log of warnings alone would do without it.
        let named = tracing::error_span!("trace", trace_id = %self.parent.trace_id());
        HERE.scope(self, work.instrument(named))
    }
}

/// A span. It ends when it is dropped.
pub struct Span {
    inner: SdkSpan,
    child: Child,
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Span").field(&self.child.parent.span_id()).finish()
    }
}

impl Span {
    pub(super) fn begin(
        tracer: &SdkTracer,
        parent: Option<SpanContext>,
        name: impl Into<Cow<'static, str>>,
        kind: SpanKind,
    ) -> Self {
        let context = Context::new();
        let context = parent.map_or(context.clone(), |parent| context.with_remote_span_context(parent));
        let inner = tracer.build_with_context(tracer.span_builder(name).with_kind(kind), &context);
        let child = Child { tracer: tracer.clone(), parent: inner.span_context().clone() };
        Self { inner, child }
    }

    /// Does some work as part of the span. Log lines from within carry the id of the trace.
    pub fn around<F: Future>(&self, work: F) -> impl Future<Output = F::Output> + use<F> {
        self.child.clone().scope(work)
    }

    /// Notes something. Never a secret.
    pub fn note(&mut self, key: &'static str, value: impl Into<Value>) {
        self.inner.set_attribute(KeyValue::new(key, value));
    }

    /// Notes that the work failed, and with which reason.
    pub fn fail(&mut self, reason: &'static str) {
        self.note("error.type", reason);
        self.inner.set_status(Status::error(reason));
    }

    /// What tells another service to which trace its work belongs (W3C Trace Context section 3.2).
    #[must_use]
    pub fn traceparent(&self) -> String {
        let context = &self.child.parent;
        format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags().to_u8())
    }
}
