//! Rows of the SQL stores as the words of the service, and back.

use std::{collections::BTreeMap, time::Duration};

use sqlx::FromRow;
use thiserror::Error;
use tracing::error;

use crate::{
    error::ErrorKind,
    store::{
        AuditRow, Event, EventKind, Failures, Grant, GrantCandidate, Holder, MAX_LEASE, OpenIntent, StrayCall, TokenRow,
    },
    time::Timestamp,
    types::{CredentialName, Fingerprint, Generation, KeyHash, Secret, Selector, Terms, Token, TokenKey},
};

/// A row that this program cannot have written. It names the column, never the value.
#[derive(Debug, Error)]
#[error("a row has an invalid {0}")]
pub(in crate::store) struct BadRow(pub(super) &'static str);

impl BadRow {
    /// A row with an invalid value in this column.
    pub(super) fn of(column: &'static str) -> Self {
        Self(column)
    }
}

/// A number as the signed one of a column. What is out of range becomes the greatest, which no count ever reaches: so
/// it equals no stored number, and never wraps.
pub(in crate::store) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A lease's time to live, bounded.
pub(in crate::store) fn lease_millis(ttl: Duration) -> i64 {
    i64::try_from(ttl.min(MAX_LEASE).as_millis()).unwrap_or(i64::MAX)
}

/// A list of texts in a column.
pub(in crate::store) fn json(list: &[String]) -> String {
    serde_json::Value::from(list).to_string()
}

/// The attributes of a token in a column.
pub(in crate::store) fn json_of(attributes: &BTreeMap<String, String>) -> Vec<u8> {
    let object = attributes.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
    serde_json::Value::Object(object).to_string().into_bytes()
}

fn list(json: &str, column: &'static str) -> Result<Vec<String>, BadRow> {
    serde_json::from_str(json).map_err(|_| BadRow(column))
}

pub(super) fn unsigned(number: i64, column: &'static str) -> Result<u64, BadRow> {
    u64::try_from(number).map_err(|_| BadRow(column))
}

pub(super) fn secret(bytes: Vec<u8>, column: &'static str) -> Result<Secret, BadRow> {
    String::from_utf8(bytes).map(Secret::new).map_err(|_| BadRow(column))
}

pub(super) fn fingerprint(text: &str, column: &'static str) -> Result<Fingerprint, BadRow> {
    Fingerprint::parse(text).ok_or(BadRow(column))
}

pub(super) fn credential(name: &str) -> Result<CredentialName, BadRow> {
    CredentialName::parse(name).map_err(|_| BadRow("credential"))
}

/// A row of `tokens`.
#[derive(FromRow)]
pub(in crate::store) struct TokenColumns {
    pub(in crate::store) key_hash: Vec<u8>,
    credential: String,
    scopes: String,
    audience: Option<String>,
    resources: String,
    generation: i64,
    min_generation: i64,
    access_token: Option<Vec<u8>>,
    token_type: Option<String>,
    issued_at: Option<i64>,
    expires_at: Option<i64>,
    refresh_at: Option<i64>,
    granted_scopes: Option<String>,
    attributes: Option<Vec<u8>>,
    fingerprint: Option<String>,
    config: String,
    failure_count: Option<i64>,
    failure_kind: Option<String>,
    failure_message: Option<String>,
    failed_at: Option<i64>,
    next_attempt_at: Option<i64>,
    failure_config: Option<String>,
    last_used_at: i64,
}

impl TryFrom<TokenColumns> for TokenRow {
    type Error = BadRow;

    fn try_from(mut row: TokenColumns) -> Result<Self, BadRow> {
        let scopes = list(&row.scopes, "scopes")?;
        let resources = list(&row.resources, "resources")?;
        let key = TokenKey::new(Selector::new(credential(&row.credential)?, scopes, row.audience.take(), resources));
        // A row under another key's hash was tampered with, or the hash's definition changed.
        if row.key_hash != key.hash().as_bytes() {
            return Err(BadRow("key_hash"));
        }
        let generation = Generation::new(unsigned(row.generation, "generation")?);
        Ok(Self {
            key,
            generation,
            min_generation: Generation::new(unsigned(row.min_generation, "min_generation")?),
            config: fingerprint(&row.config, "config")?,
            failures: row.failures()?,
            last_used_at: Timestamp::from_millis(row.last_used_at),
            token: row.token(generation)?,
        })
    }
}

impl TokenColumns {
    fn failures(&mut self) -> Result<Option<Failures>, BadRow> {
        let Some(count) = self.failure_count else { return Ok(None) };
        let kind = self.failure_kind.as_deref().and_then(ErrorKind::from_reason);
        Ok(Some(Failures {
            count: u32::try_from(count).map_err(|_| BadRow("failure_count"))?,
            kind: kind.ok_or(BadRow("failure_kind"))?,
            message: self.failure_message.take().ok_or(BadRow("failure_message"))?,
            at: timestamp(self.failed_at, "failed_at")?,
            next_attempt_at: timestamp(self.next_attempt_at, "next_attempt_at")?,
            config: fingerprint(self.failure_config.as_deref().unwrap_or_default(), "failure_config")?,
        }))
    }

    fn token(self, generation: Generation) -> Result<Option<Token>, BadRow> {
        let Some(access_token) = self.access_token else { return Ok(None) };
        let attributes = self.attributes.ok_or(BadRow("attributes"))?;
        Ok(Some(Token {
            access_token: secret(access_token, "access_token")?,
            terms: Terms::new(
                self.token_type.ok_or(BadRow("token_type"))?,
                list(&self.granted_scopes.unwrap_or_default(), "granted_scopes")?,
                serde_json::from_slice(&attributes).map_err(|_| BadRow("attributes"))?,
            ),
            issued_at: timestamp(self.issued_at, "issued_at")?,
            expires_at: timestamp(self.expires_at, "expires_at")?,
            refresh_at: timestamp(self.refresh_at, "refresh_at")?,
            generation,
            fingerprint: fingerprint(&self.fingerprint.unwrap_or_default(), "fingerprint")?,
        }))
    }
}

fn timestamp(millis: Option<i64>, column: &'static str) -> Result<Timestamp, BadRow> {
    millis.map(Timestamp::from_millis).ok_or(BadRow(column))
}

/// A row of `grants`, with the ages of its calls by the database's clock.
#[derive(FromRow)]
pub(in crate::store) struct GrantColumns {
    credential: String,
    version: i64,
    refresh_token: Vec<u8>,
    previous: Option<Vec<u8>>,
    previous_version: i64,
    seed: String,
    planted: i64,
    journal: i64,
    intent_owner: Option<String>,
    intent_token: Option<String>,
    intent_age: Option<i64>,
    stray_token: Option<String>,
    stray_age: Option<i64>,
    needs_reauth: Option<String>,
    retry: bool,
    updated_at: i64,
}

impl TryFrom<GrantColumns> for Grant {
    type Error = BadRow;

    fn try_from(mut row: GrantColumns) -> Result<Self, BadRow> {
        let stray_token = print(row.stray_token.take(), "stray_token")?;
        Ok(Self {
            credential: credential(&row.credential)?,
            version: unsigned(row.version, "version")?,
            intent: row.intent()?,
            stray: row.stray_age.map(|millis| StrayCall { token: stray_token, age: age(millis) }),
            refresh_token: secret(row.refresh_token, "refresh_token")?,
            previous: row.previous.map(|bytes| secret(bytes, "previous")).transpose()?,
            previous_since: unsigned(row.previous_version, "previous_version")?,
            seed: fingerprint(&row.seed, "seed")?,
            planted: unsigned(row.planted, "planted")?,
            journal: unsigned(row.journal, "journal")?,
            needs_reauth: row.needs_reauth,
            retry: row.retry,
            updated_at: Timestamp::from_millis(row.updated_at),
        })
    }
}

impl GrantColumns {
    fn intent(&mut self) -> Result<Option<OpenIntent>, BadRow> {
        let Some(owner) = self.intent_owner.take() else { return Ok(None) };
        let token = print(self.intent_token.take(), "intent_token")?;
        Ok(Some(OpenIntent { owner, token, age: age(self.intent_age.ok_or(BadRow("intent_at"))?) }))
    }
}

pub(super) fn print(text: Option<String>, column: &'static str) -> Result<Option<Fingerprint>, BadRow> {
    text.map(|text| fingerprint(&text, column)).transpose()
}

/// A clock that was set back makes nothing negative.
fn age(millis: i64) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

/// A row of `grant_candidates`.
#[derive(FromRow)]
pub(in crate::store) struct CandidateColumns {
    base_version: i64,
    refresh_token: Vec<u8>,
    fingerprint: Option<String>,
    received_at: i64,
}

impl TryFrom<CandidateColumns> for GrantCandidate {
    type Error = BadRow;

    fn try_from(row: CandidateColumns) -> Result<Self, BadRow> {
        Ok(Self {
            base_version: unsigned(row.base_version, "base_version")?,
            refresh_token: secret(row.refresh_token, "refresh_token")?,
            fingerprint: print(row.fingerprint, "fingerprint")?,
            at: Timestamp::from_millis(row.received_at),
        })
    }
}

/// A row of `leases`, with what is left of it by the database's clock.
#[derive(FromRow)]
pub(in crate::store) struct HolderColumns {
    owner: String,
    remaining: i64,
}

impl From<HolderColumns> for Holder {
    fn from(row: HolderColumns) -> Self {
        let remaining = Duration::from_millis(u64::try_from(row.remaining).unwrap_or(0));
        Self { owner: row.owner, remaining }
    }
}

/// A row of `events`, with its time in milliseconds.
#[derive(FromRow)]
pub(in crate::store) struct EventColumns {
    id: i64,
    kind: String,
    key_hash: Vec<u8>,
    credential: String,
    generation: i64,
    min_generation: i64,
    at: i64,
}

impl TryFrom<EventColumns> for Event {
    type Error = BadRow;

    fn try_from(row: EventColumns) -> Result<Self, BadRow> {
        Ok(Self {
            id: unsigned(row.id, "id")?,
            kind: EventKind::from_text(&row.kind),
            key: KeyHash::from_bytes(row.key_hash.try_into().map_err(|_| BadRow("key_hash"))?),
            credential: credential(&row.credential)?,
            generation: Generation::new(unsigned(row.generation, "generation")?),
            min_generation: Generation::new(unsigned(row.min_generation, "min_generation")?),
            at: Timestamp::from_millis(row.at),
        })
    }
}

/// A row of `audit_events`.
#[derive(FromRow)]
pub(in crate::store) struct AuditColumns {
    id: i64,
    chain: String,
    sequence: i64,
    at: i64,
    kind: String,
    subject: String,
    credential: String,
    line: String,
}

impl TryFrom<AuditColumns> for AuditRow {
    type Error = BadRow;

    fn try_from(row: AuditColumns) -> Result<Self, BadRow> {
        Ok(Self {
            id: unsigned(row.id, "id")?,
            chain: row.chain,
            sequence: unsigned(row.sequence, "sequence")?,
            at: Timestamp::from_millis(row.at),
            kind: row.kind,
            subject: row.subject,
            credential: row.credential,
            line: row.line,
        })
    }
}

/// Those rows that this program can have written. The others are told of and left where they are: one bad row is no reason
/// to do without all the others.
pub(in crate::store) fn readable<R, T: TryFrom<R, Error = BadRow>>(rows: Vec<R>) -> Vec<T> {
    let told = |bad: &BadRow| error!(%bad, "a row of the store is left out");
    rows.into_iter().filter_map(|row| T::try_from(row).inspect_err(told).ok()).collect()
}

/// Converts all rows, or none.
pub(in crate::store) fn all<R, T: TryFrom<R, Error = BadRow>>(rows: Vec<R>) -> Result<Vec<T>, BadRow> {
    rows.into_iter().map(T::try_from).collect()
}
