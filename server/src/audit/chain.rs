//! The hash chain: how an event becomes a line, and a line proves that it follows the one before.
//!
//! A line is a JSON object whose last member is `hash`: the SHA-256, in lower-case hexadecimal, of all bytes of the line
//! before `,"hash":`. `previous` is the `hash` of the line before it in the chain, absent in the first. `sequence` counts
//! from 0 for each `chain`, which is random for each process. `docs/audit.md` says so to those who check it.

use std::{
    borrow::Cow,
    time::{Duration, UNIX_EPOCH},
};

use aws_lc_rs::digest;
use serde::Deserialize;

use super::{
    event::{Actor, AuditEvent, Kind, Reason, Rpc},
    json,
};
use crate::{
    store::AuditRow,
    time::Timestamp,
    types::{CredentialName, Peer, ReplicaId, TokenKey},
};

/// The version of the format.
pub(super) const VERSION: u32 = 1;

/// How many bytes of scopes, audience and resources a line shows; of longer ones the hash of the key tells them apart.
const MAX_KEY_TEXT: usize = 4096;

const HASH_MEMBER: &str = ",\"hash\":\"";

/// After the body: the member, 64 digits, and the end of the object.
const HASH_LEN: usize = HASH_MEMBER.len() + 64 + 2;

/// A SHA-256.
pub(super) type Hash = [u8; 32];

/// An event in its written form.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields)]
pub struct Line<'a> {
    /// The version of the format.
    pub v: u32,
    /// The chain: 32 hexadecimal digits.
    #[serde(borrow)]
    pub chain: Cow<'a, str>,
    /// Its place in the chain, from 0.
    pub sequence: u64,
    /// The hash of the line before it. Absent in the first of a chain.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Cow<'a, str>>,
    /// When it happened (RFC 3339).
    #[serde(borrow)]
    pub time: Cow<'a, str>,
    /// The replica.
    #[serde(borrow)]
    pub replica: Cow<'a, str>,
    /// What happened.
    pub kind: Option<Kind>,
    /// Which rpc was called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rpc: Option<Rpc>,
    /// Who called.
    #[serde(borrow, default, skip_serializing_if = "is_empty")]
    pub subject: Cow<'a, str>,
    /// From where: an IP address and a port, or `unix`.
    #[serde(borrow, default, skip_serializing_if = "is_empty")]
    pub peer: Cow<'a, str>,
    /// The credential.
    #[serde(borrow, default, skip_serializing_if = "is_empty")]
    pub credential: Cow<'a, str>,
    /// The hash of the token key.
    #[serde(borrow, default, skip_serializing_if = "is_empty")]
    pub key: Cow<'a, str>,
    /// The scopes that were asked for.
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<Cow<'a, str>>,
    /// The audience that was asked for.
    #[serde(borrow, default, skip_serializing_if = "is_empty")]
    pub audience: Cow<'a, str>,
    /// The resources that were asked for.
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<Cow<'a, str>>,
    /// The generation of the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// The fingerprint of the token.
    #[serde(borrow, default, skip_serializing_if = "is_empty")]
    pub fingerprint: Cow<'a, str>,
    /// `OK`, or the reason of the error.
    #[serde(borrow)]
    pub outcome: Cow<'a, str>,
    /// Why it happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// The grant of the policy that decided.
    #[serde(borrow, default, skip_serializing_if = "is_empty")]
    pub grant: Cow<'a, str>,
    /// The W3C trace id.
    #[serde(borrow, default, skip_serializing_if = "is_empty")]
    pub trace: Cow<'a, str>,
    /// The upstream's HTTP status, as reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_status: Option<u16>,
    /// How many there were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Of `started`: the version of the broker.
    #[serde(borrow, default, skip_serializing_if = "is_empty")]
    pub version: Cow<'a, str>,
    /// Of `started`: the hash of the last whole line of the file that it was written to.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Cow<'a, str>>,
}

#[cfg(test)]
fn is_empty(text: &str) -> bool {
    text.is_empty()
}

/// A chain that grows.
#[derive(Debug)]
pub(super) struct Chain {
    id: String,
    replica: ReplicaId,
    sequence: u64,
    previous: Option<Digits>,
    texts: Texts,
}

/// A hash in lower-case hexadecimal.
type Digits = [u8; 64];

/// Texts that a line borrows, kept so that no line takes memory of its own.
#[derive(Debug, Default)]
struct Texts {
    at: Option<Timestamp>,
    time: String,
    from: Option<Peer>,
    peer: String,
    key: String,
    fingerprint: String,
    trace: String,
}

impl Texts {
    fn fill(&mut self, event: &AuditEvent, at: Timestamp) {
        if self.at.replace(at) != Some(at) {
            self.time = rfc3339(at);
        }
        let from = event.actor.as_ref().map_or(Peer::Unknown, |actor| actor.peer);
        if self.from.replace(from) != Some(from) {
            self.peer = if from == Peer::Unknown { String::new() } else { from.to_string() };
        }
        for text in [&mut self.key, &mut self.fingerprint, &mut self.trace] {
            text.clear();
        }
        if let Some(key) = &event.key {
            push_hex(&mut self.key, key.hash().as_bytes());
        }
        if let Some(fingerprint) = &event.fingerprint {
            push_hex(&mut self.fingerprint, fingerprint.as_bytes());
        }
        if let Some(trace) = &event.trace {
            push_hex(&mut self.trace, trace.as_bytes());
        }
    }
}

impl Chain {
    /// A chain without events.
    pub(super) fn new(id: [u8; 16], replica: ReplicaId) -> Self {
        Self { id: hex::encode(id), replica, sequence: 0, previous: None, texts: Texts::default() }
    }

    /// The first event: the process has started. `after` is the hash of what the file ended with.
    pub(super) fn start(&mut self, out: &mut Vec<u8>, at: Timestamp, after: Option<Hash>) {
        let (version, after) = (Cow::from(env!("CARGO_PKG_VERSION")), after.map(|hash| hex::encode(hash).into()));
        self.write(out, &AuditEvent::new(Kind::Started), at, |line| Line { version, after, ..line });
    }

    /// Appends an event, its line break included, to `out`.
    pub(super) fn append(&mut self, out: &mut Vec<u8>, event: &AuditEvent, at: Timestamp) {
        self.write(out, event, at, |line| line);
    }

    /// Leaves out places: of events that were forgotten before anybody saw them.
    pub(super) fn skip(&mut self, places: u64) {
        self.sequence += places;
    }

    /// The last event that was appended, as the store keeps it. `line` is what it was written as.
    pub(super) fn row(&self, event: &AuditEvent, at: Timestamp, line: &[u8]) -> AuditRow {
        AuditRow {
            id: 0,
            chain: self.id.clone(),
            sequence: self.sequence.saturating_sub(1),
            at,
            kind: event.kind.as_str().into(),
            subject: event.actor.as_ref().map(Actor::subject).unwrap_or_default().into(),
            credential: event.credential().map(CredentialName::as_str).unwrap_or_default().into(),
            line: String::from_utf8_lossy(line.trim_ascii_end()).into_owned(),
        }
    }

    fn write(
        &mut self,
        out: &mut Vec<u8>,
        event: &AuditEvent,
        at: Timestamp,
        with: impl for<'a> FnOnce(Line<'a>) -> Line<'a>,
    ) {
        let begin = out.len();
        self.texts.fill(event, at);
        let line = with(Line {
            v: VERSION,
            chain: Cow::from(self.id.as_str()),
            sequence: self.sequence,
            previous: self.previous.as_ref().map(|digits| Cow::from(str::from_utf8(digits).unwrap_or_default())),
            replica: Cow::from(self.replica.as_str()),
            ..describe(event, &self.texts)
        });
        json::write(out, &line);
        out.pop();
        let mut digits = [0; 64];
        // It has room for exactly these.
        let _ = hex::encode_to_slice(hash(&out[begin..]), &mut digits);
        out.extend_from_slice(HASH_MEMBER.as_bytes());
        out.extend_from_slice(&digits);
        out.extend_from_slice(b"\"}\n");
        self.previous = Some(digits);
        self.sequence += 1;
    }
}

fn describe<'a>(event: &'a AuditEvent, texts: &'a Texts) -> Line<'a> {
    let (scopes, audience, resources) = event.key.as_ref().map(key_texts).unwrap_or_default();
    Line {
        time: Cow::from(&texts.time),
        kind: Some(event.kind),
        rpc: event.rpc,
        subject: event.actor.as_ref().map(Actor::subject).unwrap_or_default().into(),
        peer: Cow::from(&texts.peer),
        credential: event.credential().map(CredentialName::as_str).unwrap_or_default().into(),
        key: Cow::from(&texts.key),
        scopes,
        audience,
        resources,
        generation: event.generation.map(|generation| generation.get()),
        fingerprint: Cow::from(&texts.fingerprint),
        outcome: event.error.map_or("OK", |kind| kind.reason()).into(),
        reason: event.reason,
        grant: event.grant.as_deref().map(Cow::from).unwrap_or_default(),
        trace: Cow::from(&texts.trace),
        http_status: event.http_status,
        count: event.count,
        ..Line::default()
    }
}

/// Appends bytes, at most 32 of them, in lower-case hexadecimal.
fn push_hex(text: &mut String, bytes: &[u8]) {
    let mut digits = [0; 64];
    let digits = &mut digits[..2 * bytes.len()];
    // It has room for exactly these.
    let _ = hex::encode_to_slice(bytes, digits);
    text.push_str(str::from_utf8(digits).unwrap_or_default());
}

type KeyTexts<'a> = (Vec<Cow<'a, str>>, Cow<'a, str>, Vec<Cow<'a, str>>);

/// Scopes, audience and resources, unless they are too long.
fn key_texts(key: &TokenKey) -> KeyTexts<'_> {
    let selector = key.selector();
    let audience = selector.audience().unwrap_or_default();
    let lists = [selector.scopes(), selector.resources()];
    let length = audience.len() + lists.iter().flat_map(|list| list.iter().map(String::len)).sum::<usize>();
    if length > MAX_KEY_TEXT {
        return KeyTexts::default();
    }
    let [scopes, resources] = lists.map(|list| list.iter().map(|text| Cow::from(text.as_str())).collect());
    (scopes, Cow::from(audience), resources)
}

/// A time as people read it (RFC 3339), to the millisecond.
pub(super) fn rfc3339(at: Timestamp) -> String {
    // The format knows the years 1970 to 9999.
    let millis = u64::try_from(at.as_millis()).unwrap_or(0).min(253_402_300_799_999);
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(millis)).to_string()
}

fn hash(bytes: &[u8]) -> Hash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

/// The hash of a line, without its line break, if the line is whole and its hash is right.
pub(super) fn checked_hash(line: &[u8]) -> Option<Hash> {
    let (body, tail) = line.split_at(line.len().checked_sub(HASH_LEN)?);
    let digits = tail.strip_prefix(HASH_MEMBER.as_bytes())?.strip_suffix(b"\"}")?;
    let told = decode(digits)?;
    (told == hash(body)).then_some(told)
}

/// 64 lower-case hexadecimal digits: one spelling, so that no digit can be changed unnoticed.
pub(super) fn decode(digits: &[u8]) -> Option<Hash> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(digits, &mut bytes).ok()?;
    (!digits.iter().any(u8::is_ascii_uppercase)).then_some(bytes)
}

/// What a line says. It may have any hash.
#[must_use]
pub fn parse(line: &str) -> Option<Line<'static>> {
    let at = line.len().checked_sub(HASH_LEN)?;
    let body = line.get(..at)?;
    line.get(at..)?.strip_prefix(HASH_MEMBER)?;
    // The body lacks its closing brace, which is not worth a copy of the whole.
    let mut text = String::with_capacity(body.len() + 1);
    text.push_str(body);
    text.push('}');
    serde_json::from_str::<Line<'_>>(&text).ok().map(Line::into_owned)
}

impl Line<'_> {
    /// The same with texts of its own.
    fn into_owned(self) -> Line<'static> {
        let own = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        let all = |list: Vec<Cow<'_, str>>| list.into_iter().map(|text| Cow::Owned(text.into_owned())).collect();
        Line {
            v: self.v,
            chain: own(self.chain),
            sequence: self.sequence,
            previous: self.previous.map(own),
            time: own(self.time),
            replica: own(self.replica),
            kind: self.kind,
            rpc: self.rpc,
            subject: own(self.subject),
            peer: own(self.peer),
            credential: own(self.credential),
            key: own(self.key),
            scopes: all(self.scopes),
            audience: own(self.audience),
            resources: all(self.resources),
            generation: self.generation,
            fingerprint: own(self.fingerprint),
            outcome: own(self.outcome),
            reason: self.reason,
            grant: own(self.grant),
            trace: own(self.trace),
            http_status: self.http_status,
            count: self.count,
            version: own(self.version),
            after: self.after.map(own),
        }
    }
}
