//! Names and numbers that identify things.

use std::{fmt, sync::Arc};

use aws_lc_rs::digest;
use thiserror::Error;

use super::Secret;

/// The name of a credential: `[a-z0-9][a-z0-9._/-]{0,127}`, without empty, `.` or `..` segments.
///
/// Validated, never normalised: two names are the same credential only if they are the same bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CredentialName(Arc<str>);

/// Why a text is not the name of a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadName {
    /// It is empty.
    #[error("a credential's name must not be empty")]
    Empty,
    /// It has more than 128 bytes.
    #[error("a credential's name has at most 128 bytes")]
    TooLong,
    /// It has a character outside the allowed set.
    #[error("a credential's name consists of a-z, 0-9, '.', '_', '/' and '-', and begins with a-z or 0-9")]
    Character,
    /// It has a segment that is empty, `.` or `..`.
    #[error("the segments of a credential's name, between slashes, must not be empty, '.' or '..'")]
    Segment,
}

impl CredentialName {
    /// The longest name, in bytes.
    pub const MAX_LEN: usize = 128;

    /// Validates a name.
    ///
    /// # Errors
    ///
    /// The first rule that the text breaks.
    pub fn parse(name: &str) -> Result<Self, BadName> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let first = *name.as_bytes().first().ok_or(BadName::Empty)?;
        if name.len() > Self::MAX_LEN {
            return Err(BadName::TooLong);
        }
        if !allowed(first) || !name.bytes().all(|b| allowed(b) || b"._/-".contains(&b)) {
            return Err(BadName::Character);
        }
        if name.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
            return Err(BadName::Segment);
        }
        Ok(Self(name.into()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it takes no room beside this one.
    pub(super) fn is_held_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Display for CredentialName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for CredentialName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Counts the tokens minted for a key. It never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(u64);

impl Generation {
    /// Before the first token.
    pub const NONE: Self = Self(0);

    /// From its number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The one after it.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The first 16 hexadecimal digits of a SHA-256: the only form in which a token appears outside an answer.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 8]);

impl Fingerprint {
    /// The fingerprint of a secret.
    #[must_use]
    pub fn of(secret: &Secret) -> Self {
        Self::of_bytes(secret.expose().as_bytes())
    }

    /// The fingerprint of bytes.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Self {
        let hash = digest::digest(&digest::SHA256, bytes);
        let mut first = [0; 8];
        first.copy_from_slice(&hash.as_ref()[..8]);
        Self(first)
    }

    /// The 8 bytes that the digits stand for.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }

    /// Reads 16 hexadecimal digits; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 8];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The identifier of a running `tokencached`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReplicaId(Arc<str>);

impl ReplicaId {
    /// From its text: printable ASCII, for it is sent as a header.
    #[must_use]
    pub fn new(id: &str) -> Self {
        Self(id.chars().filter(char::is_ascii_graphic).collect::<String>().into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_names_are_accepted_as_they_are() {
        for name in ["a", "github-ci", "crm/prod", "a.b_c-d/e.f", "0", &"x".repeat(128), "a..b", "a/.b"] {
            assert_eq!(CredentialName::parse(name).map(|n| n.as_str().to_owned()), Ok(name.to_owned()));
        }
    }

    #[test]
    fn each_rule_for_names_has_its_own_error() {
        assert_eq!(CredentialName::parse(""), Err(BadName::Empty));
        assert_eq!(CredentialName::parse(&"x".repeat(129)), Err(BadName::TooLong));
        for name in ["A", ".a", "-a", "/a", "a b", "a\n", "é", "a\u{202e}", "a\0", "a%2e", "a\\b"] {
            assert_eq!(CredentialName::parse(name), Err(BadName::Character), "{name:?}");
        }
        for name in ["a/", "a//b", "a/./b", "a/..", "a/../b"] {
            assert_eq!(CredentialName::parse(name), Err(BadName::Segment), "{name:?}");
        }
    }

    #[test]
    fn a_fingerprint_is_the_start_of_the_sha_256() {
        let fingerprint = Fingerprint::of(&Secret::from("abc"));
        assert_eq!(fingerprint.to_string(), "ba7816bf8f01cfea");
        assert_eq!(Fingerprint::parse("ba7816bf8f01cfea"), Some(fingerprint));
        assert_eq!(Fingerprint::parse("ba7816bf8f01cfe"), None);
        assert_eq!(Fingerprint::parse("ba7816bf8f01cfeg"), None);
    }
}
