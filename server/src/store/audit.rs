//! Audit events as a store keeps them: the line as it was written, and what it can be found by.

use crate::time::Timestamp;

/// An audit event at rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRow {
    /// Its place in the order of arrival; 0 until a store has taken it.
    pub id: u64,
    /// The chain that it belongs to: 32 hexadecimal digits.
    pub chain: String,
    /// Its place in the chain.
    pub sequence: u64,
    /// When it happened, by the clock of its replica.
    pub at: Timestamp,
    /// What happened.
    pub kind: String,
    /// Who did it; empty: nobody from outside.
    pub subject: String,
    /// Which credential it was about; empty: none.
    pub credential: String,
    /// The whole event, a JSON object, without a line break.
    pub line: String,
}

/// Which audit events are wanted. An empty text matches all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditFilter {
    /// Not before this time.
    pub from: Timestamp,
    /// Before this time.
    pub until: Timestamp,
    /// Of this subject.
    pub subject: String,
    /// About this credential.
    pub credential: String,
    /// Of this kind.
    pub kind: String,
}

impl Default for AuditFilter {
    fn default() -> Self {
        let any = String::new;
        Self { from: Timestamp::MIN, until: Timestamp::MAX, subject: any(), credential: any(), kind: any() }
    }
}

impl AuditFilter {
    /// Whether an event is wanted.
    #[must_use]
    pub fn admits(&self, row: &AuditRow) -> bool {
        let is = |wanted: &str, text: &str| wanted.is_empty() || wanted == text;
        (self.from..self.until).contains(&row.at)
            && is(&self.subject, &row.subject)
            && is(&self.credential, &row.credential)
            && is(&self.kind, &row.kind)
    }
}
