//! Which trace a call belongs to, as the application's own tracing says.

use std::{fmt, sync::Arc};

use tonic::metadata::{Ascii, MetadataValue};

/// Asks the application for the `traceparent` of the work that goes on. Cheap to clone.
#[derive(Clone)]
pub(crate) struct TraceSource(Arc<dyn Fn() -> Option<String> + Send + Sync>);

impl TraceSource {
    pub(crate) fn new(source: impl Fn() -> Option<String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(source))
    }

    /// The header's value. What no header can carry is left out: a call does not fail for its trace.
    pub(crate) fn traceparent(&self) -> Option<MetadataValue<Ascii>> {
        (self.0)()?.parse().ok()
    }
}

impl fmt::Debug for TraceSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TraceSource")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_header_can_carry_is_left_out() {
        assert!(TraceSource::new(|| None).traceparent().is_none());
        assert!(TraceSource::new(|| Some("a\nb".into())).traceparent().is_none());
        let value = TraceSource::new(|| Some("00-1-2-01".into())).traceparent().expect("a header");
        assert_eq!(value.to_str().ok(), Some("00-1-2-01"));
    }
}
