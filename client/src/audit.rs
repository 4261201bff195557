//! What the broker has recorded: who got which token, who was refused, and why.

use std::time::SystemTime;

use tokencache_proto::v1;
use tonic::Streaming;

use crate::{Error, ErrorKind, Result, Selector, convert, token::nonsense};

/// Which audit events are wanted: those that fit all that is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditFilter {
    /// Not before this time.
    pub since: Option<SystemTime>,
    /// Before this time.
    pub until: Option<SystemTime>,
    /// Of this subject.
    pub subject: Option<String>,
    /// About this credential.
    pub credential: Option<String>,
    /// Of this kind, e.g. `token_issued`.
    pub kind: Option<String>,
}

/// One event. It never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditEvent {
    /// The chain that it belongs to.
    pub chain: String,
    /// Its place in the chain.
    pub sequence: u64,
    /// When it happened, by the clock of the replica.
    pub time: Option<SystemTime>,
    /// The replica.
    pub replica: String,
    /// What happened, e.g. `token_issued`; `unknown` if this client does not know it.
    pub kind: String,
    /// The rpc that was called. Empty: background work.
    pub rpc: String,
    /// Who called. Empty: nobody, or somebody who did not prove who it is.
    pub subject: String,
    /// From where.
    pub peer: String,
    /// What it was about, if it was about a credential.
    pub selector: Option<Selector>,
    /// The generation of the token; 0: not about one.
    pub generation: u64,
    /// The fingerprint of the token.
    pub fingerprint: String,
    /// `OK`, or the reason of the error.
    pub outcome: String,
    /// Why it happened.
    pub reason: String,
    /// The grant of the policy that allowed it.
    pub grant: String,
    /// The W3C trace id.
    pub trace_id: String,
    /// The upstream's HTTP status, as reported; 0: not told.
    pub http_status: u32,
    /// How many there were; 0: one.
    pub count: u64,
    /// The line as it was recorded, with its place in the hash chain.
    pub line: String,
}

/// A page of events, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditPage {
    /// The events.
    pub events: Vec<AuditEvent>,
    /// Where the next page begins. Empty: this was the last.
    pub next_page_token: String,
    /// Whether they are those of all replicas, from the store. Otherwise the last ones of the replica that answered.
    pub fleet: bool,
}

/// Events as they are recorded. It ends when the replica drains or the connection is lost; dropping it ends the call.
#[derive(Debug)]
pub struct AuditEvents(Streaming<v1::TailAuditEventsResponse>);

impl AuditEvents {
    pub(crate) fn new(stream: Streaming<v1::TailAuditEventsResponse>) -> Self {
        Self(stream)
    }

    /// The next event; `None` at the end. Cancel safe.
    ///
    /// # Errors
    ///
    /// Why the broker ended the stream.
    pub async fn next(&mut self) -> Option<Result<AuditEvent>> {
        match self.0.message().await {
            Ok(response) => {
                let event = response?.event;
                Some(event.map(Into::into).ok_or_else(|| nonsense("an event without its content")))
            }
            Err(status) => Some(Err(Error::from_status(&status))),
        }
    }
}

impl AuditFilter {
    pub(crate) fn into_proto(self) -> Result<v1::AuditFilter> {
        let kind = match self.kind {
            None => v1::AuditKind::Unspecified,
            Some(kind) => v1::AuditKind::from_str_name(&format!("AUDIT_KIND_{}", kind.to_ascii_uppercase()))
                .ok_or_else(|| Error::new(ErrorKind::InvalidRequest, format!("there is no kind '{kind}'")))?,
        };
        Ok(v1::AuditFilter {
            start_time: self.since.map(Into::into),
            end_time: self.until.map(Into::into),
            subject: self.subject.unwrap_or_default(),
            credential: self.credential.unwrap_or_default(),
            kind: kind.into(),
        })
    }
}

impl From<v1::AuditEvent> for AuditEvent {
    fn from(event: v1::AuditEvent) -> Self {
        let kind = event.kind();
        let word = kind.as_str_name().trim_start_matches("AUDIT_KIND_").to_ascii_lowercase();
        Self {
            kind: if kind == v1::AuditKind::Unspecified { "unknown".into() } else { word },
            chain: event.chain,
            sequence: event.sequence,
            time: convert::time(event.time),
            replica: event.replica,
            rpc: event.rpc,
            subject: event.subject,
            peer: event.peer,
            selector: event.selector.map(|selector| Selector::from_proto(Some(selector))),
            generation: event.generation,
            fingerprint: event.fingerprint,
            outcome: event.outcome,
            reason: event.reason,
            grant: event.grant,
            trace_id: event.trace_id,
            http_status: event.http_status,
            count: event.count,
            line: event.line,
        }
    }
}

impl From<v1::ListAuditEventsResponse> for AuditPage {
    fn from(page: v1::ListAuditEventsResponse) -> Self {
        Self {
            fleet: page.source() == v1::AuditSource::Store,
            events: page.events.into_iter().map(Into::into).collect(),
            next_page_token: page.next_page_token,
        }
    }
}
