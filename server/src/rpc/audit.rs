//! Audit events on the wire: filters in, events out.

use tokencache_proto::v1::{self, AuditKind, AuditSource};

use super::convert::{self, Check};
use crate::{
    audit::{Kind, Source, parse},
    error::Result,
    store::{AuditFilter, AuditRow},
    time::Timestamp,
};

const fn kind(kind: Kind) -> AuditKind {
    match kind {
        Kind::Started => AuditKind::Started,
        Kind::Stopped => AuditKind::Stopped,
        Kind::TokenIssued => AuditKind::TokenIssued,
        Kind::NotModified => AuditKind::NotModified,
        Kind::WatchOpened => AuditKind::WatchOpened,
        Kind::TokenPushed => AuditKind::TokenPushed,
        Kind::Rejection => AuditKind::Rejection,
        Kind::Refresh => AuditKind::Refresh,
        Kind::AdminCall => AuditKind::AdminCall,
        Kind::CallRefused => AuditKind::CallRefused,
        Kind::Lost => AuditKind::Lost,
    }
}

/// Where events were read.
pub(super) fn source(source: Source) -> i32 {
    match source {
        Source::Store => AuditSource::Store.into(),
        Source::Memory => AuditSource::Memory.into(),
    }
}

/// A filter.
pub(super) fn filter(message: Option<v1::AuditFilter>, from: Timestamp) -> Result<AuditFilter> {
    let message = message.unwrap_or_default();
    let mut check = Check::default();
    let asked = AuditKind::try_from(message.kind);
    if asked.is_err() {
        check.add("filter.kind", "not a kind that this broker knows");
    }
    let word = Kind::ALL.iter().find(|word| Ok(kind(**word)) == asked);
    let mut time = |field: &str, told: Option<prost_types::Timestamp>, otherwise| match told {
        None => otherwise,
        Some(told) => convert::time(&told).unwrap_or_else(|| {
            check.add(field, "not a valid time");
            otherwise
        }),
    };
    let (from, until) = (
        time("filter.start_time", message.start_time, from),
        time("filter.end_time", message.end_time, Timestamp::MAX),
    );
    for (field, text) in [("filter.subject", &message.subject), ("filter.credential", &message.credential)] {
        if text.len() > MAX_TEXT {
            check.add(field, format!("at most {MAX_TEXT} bytes"));
        }
    }
    let kind = word.map(|word| word.as_str().to_owned()).unwrap_or_default();
    check.finish(AuditFilter { from, until, subject: message.subject, credential: message.credential, kind })
}

/// The longest text of a filter.
const MAX_TEXT: usize = 1024;

/// An event. Of a line that this version does not know, what the columns say.
pub(super) fn event(row: AuditRow) -> v1::AuditEvent {
    let line = parse(&row.line).unwrap_or_default();
    let texts = |list: Vec<std::borrow::Cow<'_, str>>| list.into_iter().map(String::from).collect();
    let selector = (!row.credential.is_empty()).then(|| v1::TokenSelector {
        credential: row.credential,
        scopes: texts(line.scopes),
        audience: line.audience.into(),
        resources: texts(line.resources),
    });
    v1::AuditEvent {
        chain: row.chain,
        sequence: row.sequence,
        time: Some(convert::timestamp(row.at)),
        replica: line.replica.into(),
        kind: Kind::parse(&row.kind).map_or(AuditKind::Unspecified, kind).into(),
        rpc: line.rpc.map(|rpc| rpc.as_str().to_owned()).unwrap_or_default(),
        subject: row.subject,
        peer: line.peer.into(),
        selector,
        generation: line.generation.unwrap_or_default(),
        fingerprint: line.fingerprint.into(),
        outcome: line.outcome.into(),
        reason: line.reason.map(|reason| reason.as_str().to_owned()).unwrap_or_default(),
        grant: line.grant.into(),
        trace_id: line.trace.into(),
        http_status: line.http_status.unwrap_or_default().into(),
        count: line.count.unwrap_or_default(),
        line: row.line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_number_of_its_own() {
        let numbers: std::collections::BTreeSet<_> = Kind::ALL.iter().map(|word| kind(*word) as i32).collect();
        assert_eq!(numbers.len(), Kind::ALL.len());
        assert!(!numbers.contains(&0));
    }

    #[test]
    fn what_is_wrong_with_a_filter_is_told_at_once() {
        let bad = v1::AuditFilter {
            kind: 99,
            start_time: Some(prost_types::Timestamp { seconds: 0, nanos: -1 }),
            subject: "x".repeat(2000),
            ..Default::default()
        };
        let error = filter(Some(bad), Timestamp::MIN).expect_err("three violations");
        let fields: Vec<_> = error.violations().iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(fields, ["filter.kind", "filter.start_time", "filter.subject"]);
        let any = filter(None, Timestamp::MIN).expect("no filter is a filter");
        assert_eq!(any, AuditFilter::default());
    }
}
