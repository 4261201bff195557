//! A collector: the trace service of OTLP, which keeps what it is sent.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
    trace::v1::{Span, span::SpanKind, status::StatusCode},
};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

/// A span that was sent, in words.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) name: String,
    pub(super) trace_id: String,
    pub(super) id: String,
    /// Empty: it is the first of its trace.
    pub(super) parent_id: String,
    pub(super) kind: String,
    pub(super) failed: bool,
    pub(super) attributes: BTreeMap<String, String>,
    pub(super) resource: BTreeMap<String, String>,
}

/// It ends when it is dropped.
#[derive(Debug)]
pub(super) struct Collector {
    url: String,
    kept: Kept,
    task: JoinHandle<()>,
}

#[derive(Clone, Debug, Default)]
struct Kept(Arc<Mutex<Vec<Seen>>>);

impl Collector {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let kept = Kept::default();
        let server = Server::builder().add_service(TraceServiceServer::new(kept.clone()));
        let served = server.serve_with_incoming(TcpListenerStream::new(listener));
        let task = tokio::spawn(async move { served.await.expect("it serves") });
        Self { url, kept, task }
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Everything that was sent.
    pub(super) fn spans(&self) -> Vec<Seen> {
        self.kept.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tonic::async_trait]
impl TraceService for Kept {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for sent in request.into_inner().resource_spans {
            let resource = words(&sent.resource.expect("who sends says who it is").attributes);
            let spans = sent.scope_spans.into_iter().flat_map(|scope| scope.spans);
            kept.extend(spans.map(|span| seen(&span, resource.clone())));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn seen(span: &Span, resource: BTreeMap<String, String>) -> Seen {
    Seen {
        name: span.name.clone(),
        trace_id: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent_id: hex(&span.parent_span_id),
        kind: match span.kind() {
            SpanKind::Server => "server",
            SpanKind::Client => "client",
            SpanKind::Internal => "internal",
            _ => "another",
        }
        .into(),
        failed: span.status.as_ref().is_some_and(|status| status.code() == StatusCode::Error),
        attributes: words(&span.attributes),
        resource,
    }
}

fn words(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let word = |attribute: &KeyValue| match attribute.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    attributes.iter().map(|attribute| (attribute.key.clone(), word(attribute))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
