//! Where a secret is kept: sealed with it, so that it opens nowhere else.

use crate::types::{CredentialName, Fingerprint, Generation, KeyHash};

/// Tells our messages from those that somebody else may seal with the same key.
const DOMAIN: &[u8] = b"tokencache sealed secret 1";

/// A place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    table: &'static str,
    row: String,
    column: &'static str,
    generation: u64,
    config: Fingerprint,
}

/// A column of `tokens`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenColumn {
    AccessToken,
    Attributes,
}

/// A column of `grants`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GrantColumn {
    RefreshToken,
    Previous,
}

impl Place {
    /// Of a token that was minted with this configuration.
    pub(super) fn of_token(key: KeyHash, column: TokenColumn, generation: Generation, config: Fingerprint) -> Self {
        let column = match column {
            TokenColumn::AccessToken => "access_token",
            TokenColumn::Attributes => "attributes",
        };
        Self { table: "tokens", row: key.to_string(), column, generation: generation.get(), config }
    }

    /// Of a refresh token of a grant, whose credential has this configuration, since this version.
    pub(super) fn of_grant(
        credential: &CredentialName,
        column: GrantColumn,
        version: u64,
        config: Fingerprint,
    ) -> Self {
        let column = match column {
            GrantColumn::RefreshToken => "refresh_token",
            GrantColumn::Previous => "previous",
        };
        Self { table: "grants", row: credential.to_string(), column, generation: version, config }
    }

    /// Of a refresh token that came late. Its row has no number before it is written, but a fingerprint.
    pub(super) fn of_candidate(
        credential: &CredentialName,
        fingerprint: Fingerprint,
        base_version: u64,
        config: Fingerprint,
    ) -> Self {
        let row = format!("{credential} {fingerprint}");
        Self { table: "grant_candidates", row, column: "refresh_token", generation: base_version, config }
    }

    /// Of a write in a file of spilled ones, by the name of the file and its number in there.
    pub(in crate::store) fn of_spilled(
        file: &str,
        credential: &CredentialName,
        number: u64,
        config: Fingerprint,
    ) -> Self {
        Self { table: "spill", row: format!("{file} {credential}"), column: "write", generation: number, config }
    }

    /// As associated data: each part with its length before it, so that no two places look the same.
    pub(super) fn associated_data(&self) -> Vec<u8> {
        // Columns of numbers are signed: what is greater is kept as the greatest, and counts as that here.
        let generation = self.generation.min(i64::MAX.unsigned_abs()).to_be_bytes();
        let config = self.config.to_string();
        let parts: [&[u8]; 6] = [
            DOMAIN,
            self.table.as_bytes(),
            self.row.as_bytes(),
            self.column.as_bytes(),
            &generation,
            config.as_bytes(),
        ];
        let mut data = Vec::with_capacity(192);
        for part in parts {
            data.extend_from_slice(&(part.len() as u64).to_be_bytes());
            data.extend_from_slice(part);
        }
        data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_places_have_the_same_associated_data() {
        let place = |table, row: &str, column| Place {
            table,
            row: row.into(),
            column,
            generation: 1,
            config: Fingerprint::of_bytes(b"c"),
        };
        let one = place("ab", "c", "d").associated_data();
        for other in [place("a", "bc", "d"), place("ab", "cd", ""), place("abc", "", "d"), place("ab", "c", "e")] {
            assert_ne!(one, other.associated_data(), "{other:?}");
        }
    }
}
