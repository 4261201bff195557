//! Rows with secrets, as they are kept.

use sqlx::FromRow;

use super::rows::{BadRow, credential, fingerprint, print, secret, unsigned};
use crate::{
    store::{SecretCursor, SecretPage, StoredSecrets},
    types::{Generation, KeyHash},
};

/// A row of `tokens` with a token.
#[derive(FromRow)]
pub(in crate::store) struct TokenSecretColumns {
    key_hash: Vec<u8>,
    generation: i64,
    config: String,
    access_token: Vec<u8>,
    attributes: Option<Vec<u8>>,
}

/// A row of `grants`.
#[derive(FromRow)]
pub(in crate::store) struct GrantSecretColumns {
    credential: String,
    version: i64,
    refresh_token: Vec<u8>,
    fingerprint: Option<String>,
    previous: Option<Vec<u8>>,
    previous_fingerprint: Option<String>,
    previous_version: i64,
}

/// A row of `grant_candidates`.
#[derive(FromRow)]
pub(in crate::store) struct CandidateSecretColumns {
    id: i64,
    credential: String,
    base_version: i64,
    refresh_token: Vec<u8>,
    fingerprint: Option<String>,
}

/// A row with secrets, and its place in its table.
pub(in crate::store) trait SecretColumns: TryInto<StoredSecrets, Error = BadRow> {
    fn cursor(&self) -> SecretCursor;
}

impl SecretColumns for TokenSecretColumns {
    fn cursor(&self) -> SecretCursor {
        SecretCursor::Tokens(self.key_hash.clone())
    }
}

impl SecretColumns for GrantSecretColumns {
    fn cursor(&self) -> SecretCursor {
        SecretCursor::Grants(self.credential.clone())
    }
}

impl SecretColumns for CandidateSecretColumns {
    fn cursor(&self) -> SecretCursor {
        SecretCursor::Candidates(u64::try_from(self.id).unwrap_or(0))
    }
}

impl TryFrom<TokenSecretColumns> for StoredSecrets {
    type Error = BadRow;

    fn try_from(row: TokenSecretColumns) -> Result<Self, BadRow> {
        Ok(Self::Token {
            key: KeyHash::from_bytes(row.key_hash.try_into().map_err(|_| BadRow("key_hash"))?),
            generation: Generation::new(unsigned(row.generation, "generation")?),
            config: fingerprint(&row.config, "config")?,
            access_token: secret(row.access_token, "access_token")?,
            attributes: secret(row.attributes.ok_or(BadRow("attributes"))?, "attributes")?,
        })
    }
}

impl TryFrom<GrantSecretColumns> for StoredSecrets {
    type Error = BadRow;

    fn try_from(row: GrantSecretColumns) -> Result<Self, BadRow> {
        Ok(Self::Grant {
            credential: credential(&row.credential)?,
            version: unsigned(row.version, "version")?,
            refresh_token: secret(row.refresh_token, "refresh_token")?,
            fingerprint: print(row.fingerprint, "fingerprint")?,
            previous: row.previous.map(|bytes| secret(bytes, "previous")).transpose()?,
            previous_fingerprint: print(row.previous_fingerprint, "previous_fingerprint")?,
            previous_since: unsigned(row.previous_version, "previous_version")?,
        })
    }
}

impl TryFrom<CandidateSecretColumns> for StoredSecrets {
    type Error = BadRow;

    fn try_from(row: CandidateSecretColumns) -> Result<Self, BadRow> {
        Ok(Self::Candidate {
            id: unsigned(row.id, "id")?,
            credential: credential(&row.credential)?,
            base_version: unsigned(row.base_version, "base_version")?,
            refresh_token: secret(row.refresh_token, "refresh_token")?,
            fingerprint: print(row.fingerprint, "fingerprint")?,
        })
    }
}

/// A page of these rows, which were asked for from there, at most `limit`.
pub(in crate::store) fn page<R: SecretColumns>(rows: Vec<R>, from: &SecretCursor, limit: u32) -> SecretPage {
    let last = rows.last().filter(|_| rows.len() >= limit as usize).map(SecretColumns::cursor);
    let all = rows.len();
    let rows: Vec<StoredSecrets> = rows.into_iter().filter_map(|row| row.try_into().ok()).collect();
    SecretPage { unreadable: (all - rows.len()) as u64, rows, next: last.or_else(|| from.next_table()) }
}
