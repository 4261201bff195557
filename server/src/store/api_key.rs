//! API keys as a store keeps them: their hashes, never the keys.

use std::fmt;

use crate::time::Timestamp;

/// An API key that was given out.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Names it to people: 16 hexadecimal digits, which stand in the key as well.
    pub id: String,
    /// Whose it is: its holder is known as `key:NAME`. Several keys may have one name, so that one can replace another.
    pub name: String,
    /// SHA-256 of the whole key.
    pub hash: [u8; 32],
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends. `None`: when it is revoked.
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// When it was last used, a minute or so ago at the earliest.
    pub last_used_at: Option<Timestamp>,
}

impl fmt::Debug for ApiKey {
    /// Without the hash, which is of no use to a reader.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.id, self.name)
    }
}
