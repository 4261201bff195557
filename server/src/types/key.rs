//! The token key: what makes two requests ask for the same token.

use std::{
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
};

use aws_lc_rs::digest;

use super::{CredentialName, Selector};

/// SHA-256 of a key's canonical bytes: its identity in the cache and in the store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyHash([u8; 32]);

impl Hash for KeyHash {
    /// Its bytes alone: all are as long.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.0);
    }
}

impl KeyHash {
    /// From the 32 bytes of a stored hash.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Of no key.
    pub const NONE: Self = Self([0; 32]);

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// (credential, sorted scopes, audience, sorted resources): one cache entry, one row, one line of generations.
///
/// Cheap to clone.
#[derive(Clone)]
pub struct TokenKey(Selector);

impl PartialEq for TokenKey {
    fn eq(&self, other: &Self) -> bool {
        self.hash_ref() == other.hash_ref()
    }
}

impl Eq for TokenKey {}

impl TokenKey {
    /// The key of a selector. A cache look-up by it takes an `Authorized` request besides.
    #[must_use]
    pub fn new(selector: Selector) -> Self {
        Self(selector)
    }

    /// Its hash.
    #[must_use]
    pub fn hash(&self) -> KeyHash {
        *self.hash_ref()
    }

    /// The same, where it is.
    #[must_use]
    pub fn hash_ref(&self) -> &KeyHash {
        self.0.hash_by(hash)
    }

    /// Its credential.
    #[must_use]
    pub fn credential(&self) -> &CredentialName {
        self.0.credential()
    }

    /// The same, as [`Selector::named`].
    #[must_use]
    pub(crate) fn named(&self, name: &CredentialName) -> Self {
        Self(self.0.named(name))
    }

    /// What it is made of.
    #[must_use]
    pub fn selector(&self) -> &Selector {
        &self.0
    }
}

impl Hash for TokenKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.hash_ref().hash(state);
    }
}

impl Ord for TokenKey {
    /// By their hashes.
    fn cmp(&self, other: &Self) -> Ordering {
        self.hash_ref().cmp(other.hash_ref())
    }
}

impl PartialOrd for TokenKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// The bytes of most keys fit.
const USUAL_LEN: usize = 256;

/// Hashes length-prefixed fields, so that no two selectors have the same bytes. They are put together first, for each update of
/// a digest costs something.
fn hash(selector: &Selector) -> KeyHash {
    let mut canonical = Vec::with_capacity(USUAL_LEN);
    let mut field = |bytes: &[u8]| {
        canonical.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
        canonical.extend_from_slice(bytes);
    };
    field(b"tokencache.key.v1");
    field(selector.credential().as_str().as_bytes());
    for list in [selector.scopes(), selector.resources()] {
        field(&(list.len() as u64).to_be_bytes());
        list.iter().for_each(|item| field(item.as_bytes()));
    }
    // An absent audience and an empty one cannot be told apart on the wire.
    field(selector.audience().unwrap_or_default().as_bytes());

    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest::digest(&digest::SHA256, &canonical).as_ref());
    KeyHash(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn selector(scopes: Vec<String>, audience: Option<String>, resources: Vec<String>) -> Selector {
        let credential = CredentialName::parse("c").expect("a valid name");
        Selector::new(credential, scopes, audience, resources)
    }

    #[test]
    fn a_hash_is_the_one_that_stores_have() {
        let key = TokenKey::new(selector(vec!["b".into(), "a".into()], Some("api".into()), vec!["urn:x".into()]));
        let expected = "4e6f4f5db967bfad6e4f3d0aacaf027c60cf678cea5cb154ebb7cc010b9cf806";
        assert_eq!(key.hash().to_string(), expected);
    }

    proptest! {
        #[test]
        fn order_and_repetition_of_scopes_do_not_matter(scopes in proptest::collection::vec("[a-c]{1,3}", 0..6)) {
            let mut shuffled: Vec<_> = scopes.iter().rev().cloned().collect();
            shuffled.extend(scopes.first().cloned());
            let one = TokenKey::new(selector(scopes, None, vec![]));
            let other = TokenKey::new(selector(shuffled, None, vec![]));
            prop_assert_eq!(one.hash(), other.hash());
        }

        #[test]
        fn distinct_selectors_have_distinct_hashes(
            a in ("[ab]{0,2}", proptest::collection::vec("[ab]{1,2}", 0..3), proptest::collection::vec("[ab]{1,2}", 0..3)),
            b in ("[ab]{0,2}", proptest::collection::vec("[ab]{1,2}", 0..3), proptest::collection::vec("[ab]{1,2}", 0..3)),
        ) {
            let make = |(audience, scopes, resources): (String, Vec<String>, Vec<String>)| {
                selector(scopes, (!audience.is_empty()).then_some(audience), resources)
            };
            let (a, b) = (make(a), make(b));
            let same = a == b;
            prop_assert_eq!(TokenKey::new(a).hash() == TokenKey::new(b).hash(), same);
        }
    }
}
