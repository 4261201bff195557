//! The keys that secrets are sealed with: one is active, all open.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey},
    rand,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use thiserror::Error;
use tracing::error;
use zeroize::Zeroizing;

use crate::types::Secret;

/// The length of a key, in bytes.
const KEY_LEN: usize = 32;

/// The length of a key's text: padded base64.
const TEXT_LEN: usize = KEY_LEN.div_ceil(3) * 4;

/// How many messages may be sealed with one key whose nonces of 96 bits are drawn at random, by all processes together: then
/// the chance that two share a nonce is still below 2^-32 (NIST SP 800-38D section 8.3). A token is two messages, a refresh
/// token two or three: 100 of them a second reach this after five months. Nobody counts them in the fleet, so a process that
/// has sealed its share says so.
const MESSAGES_PER_KEY: u64 = 1 << 32;

/// What one process may seal with a key before it says that the key is to be replaced: there may be as many as 64.
const SHARE: u64 = MESSAGES_PER_KEY / 64;

/// The name of a key: `[a-z0-9][a-z0-9._-]{0,31}`. It stands beside what the key has sealed.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(Arc<str>);

impl KeyId {
    /// The longest name, in bytes.
    pub const MAX_LEN: usize = 32;

    /// Validates a name. `None`: it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let plain = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let valid = text.len() <= Self::MAX_LEN
            && text.as_bytes().first().is_some_and(plain)
            && text.bytes().all(|b| plain(&b) || b"._-".contains(&b));
        valid.then(|| Self(text.into()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// The bytes of a key, in a buffer that does not grow and is wiped (zeroize#179).
pub struct KeyMaterial(Zeroizing<[u8; KEY_LEN]>);

/// Why a text is no key, or there is none. It tells nothing of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadKey {
    /// It is not a key's text.
    #[error("a key is 32 bytes as base64, 44 characters: `tokencached key generate` prints one")]
    Text,
    /// The system gives no randomness, or the library refuses the key.
    #[error("the cryptographic library fails")]
    Library,
}

impl KeyMaterial {
    /// A new one, from the randomness of the cryptographic library.
    ///
    /// # Errors
    ///
    /// If the system gives none.
    pub fn generate() -> Result<Self, BadKey> {
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        rand::fill(&mut *bytes).map_err(|_| BadKey::Library)?;
        Ok(Self(bytes))
    }

    /// Reads what [`KeyMaterial::to_text`] wrote.
    ///
    /// # Errors
    ///
    /// If it is anything else.
    pub fn parse(text: &Secret) -> Result<Self, BadKey> {
        let text = text.expose().as_bytes();
        // Room for what the decoder takes a text of this length for, before it has seen the padding.
        let mut room = Zeroizing::new([0; TEXT_LEN / 4 * 3]);
        if text.len() != TEXT_LEN || STANDARD.decode_slice(text, &mut *room) != Ok(KEY_LEN) {
            return Err(BadKey::Text);
        }
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        bytes.copy_from_slice(&room[..KEY_LEN]);
        Ok(Self(bytes))
    }

    /// Its text, for the file or variable that it is read from.
    #[must_use]
    pub fn to_text(&self) -> Secret {
        Secret::new(STANDARD.encode(*self.0))
    }
}

impl fmt::Debug for KeyMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// A key in use.
#[derive(Debug)]
pub(super) struct RingKey {
    pub(super) id: KeyId,
    aead: RandomizedNonceKey,
    sealed: AtomicU64,
}

impl RingKey {
    /// Seals in place and appends the tag; the nonce. It is drawn by the library alone: one that a caller chose, or a seed
    /// repeated, would give the key away.
    pub(super) fn seal(&self, associated: &[u8], text: &mut Vec<u8>) -> Option<Nonce> {
        let nonce = self.aead.seal_in_place_append_tag(Aad::from(associated), text).ok()?;
        if self.sealed.fetch_add(1, Ordering::Relaxed) == SHARE {
            error!(key = %self.id, sealed = SHARE, "this key has sealed enough: make another one active, and rotate");
        }
        Some(nonce)
    }

    /// Opens in place. `None`: it was not sealed with this key and this associated data.
    pub(super) fn open<'t>(&self, nonce: Nonce, associated: &[u8], sealed: &'t mut [u8]) -> Option<&'t [u8]> {
        self.aead.open_in_place(nonce, Aad::from(associated), sealed).ok().map(|text| &*text)
    }
}

/// All keys.
#[derive(Debug)]
pub struct KeyRing {
    active: RingKey,
    others: BTreeMap<KeyId, RingKey>,
    allowed_missing: BTreeSet<KeyId>,
}

impl KeyRing {
    /// A ring of one key.
    ///
    /// # Errors
    ///
    /// If the library refuses it.
    pub fn new(active: KeyId, key: &KeyMaterial) -> Result<Self, BadKey> {
        let active = ring_key(active, key)?;
        Ok(Self { active, others: BTreeMap::new(), allowed_missing: BTreeSet::new() })
    }

    /// With one more that opens what it has sealed.
    ///
    /// # Errors
    ///
    /// If the library refuses it.
    pub fn with(mut self, id: KeyId, key: &KeyMaterial) -> Result<Self, BadKey> {
        self.others.insert(id.clone(), ring_key(id, key)?);
        Ok(self)
    }

    /// With keys that may be missing although they are still in use.
    #[must_use]
    pub fn allowing_missing(mut self, ids: impl IntoIterator<Item = KeyId>) -> Self {
        self.allowed_missing.extend(ids);
        self
    }

    /// The name of the key that new secrets are sealed with.
    #[must_use]
    pub fn active(&self) -> &KeyId {
        &self.active.id
    }

    pub(super) fn active_key(&self) -> &RingKey {
        &self.active
    }

    pub(super) fn get(&self, id: &KeyId) -> Option<&RingKey> {
        if *id == self.active.id { Some(&self.active) } else { self.others.get(id) }
    }

    pub(super) fn may_miss(&self, id: &KeyId) -> bool {
        self.get(id).is_some() || self.allowed_missing.contains(id)
    }
}

fn ring_key(id: KeyId, key: &KeyMaterial) -> Result<RingKey, BadKey> {
    let aead = RandomizedNonceKey::new(&AES_256_GCM, &*key.0).map_err(|_| BadKey::Library)?;
    Ok(RingKey { id, aead, sealed: AtomicU64::new(0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_written_and_no_two_are_equal() {
        let (one, other) = (KeyMaterial::generate().unwrap(), KeyMaterial::generate().unwrap());
        assert_ne!(one.to_text(), other.to_text());
        assert_eq!(one.to_text().expose().len(), TEXT_LEN);
        assert_eq!(KeyMaterial::parse(&one.to_text()).unwrap().to_text(), one.to_text());
    }

    #[test]
    fn what_is_no_key_is_refused_and_not_repeated() {
        let key = KeyMaterial::generate().unwrap().to_text().expose().clone();
        for text in [&key[1..], &format!("{key}\n"), "s3cr3t", "", &"=".repeat(44), &"A".repeat(44), &"!".repeat(44)] {
            let error = KeyMaterial::parse(&text.into()).expect_err("no key");
            assert!(error == BadKey::Text && !error.to_string().contains("s3cr3t"));
        }
        assert_eq!(format!("{:?}", KeyMaterial::generate().unwrap()), "[redacted]");
    }

    #[test]
    fn names_of_keys_have_rules() {
        for valid in ["a", "2026-11", "k.1_x-y", &"x".repeat(32)] {
            assert_eq!(KeyId::parse(valid).expect(valid).as_str(), valid);
        }
        for invalid in ["", "A", "-a", ".a", "a b", "a/b", "é", &"x".repeat(33)] {
            assert_eq!(KeyId::parse(invalid), None, "{invalid}");
        }
    }
}
