//! A sealed secret as text: `§tcs1.` and base64url of version, length and name of the key, nonce, ciphertext and tag.

use aws_lc_rs::aead::{NONCE_LEN, Nonce};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

use super::{
    place::Place,
    ring::{KeyId, KeyRing, RingKey},
};
use crate::types::Secret;

/// How a sealed secret begins. The paragraph sign is in no access or refresh token (RFC 6749 appendix A.12 and A.17). It
/// only tells apart what was kept before there was a key: a secret that looks like this is sealed like any other.
const PREFIX: &str = "\u{a7}tcs1.";

/// The version of what follows.
const VERSION: u8 = 1;

/// So many characters hold version, length and name of a key, whatever its length: 36 bytes of 34.
const HEAD_LEN: usize = 48;

/// The length of the tag, in bytes.
const TAG_LEN: usize = 16;

/// Why a text cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unopened {
    /// It is in the clear.
    Plaintext,
    /// It begins like a sealed one and is none.
    Malformed,
    /// The key is not in the ring.
    KeyMissing(KeyId),
    /// The key did not seal it for this place.
    Refused,
}

/// The parts of a sealed text.
struct Blob {
    key: KeyId,
    nonce: [u8; NONCE_LEN],
    sealed: Zeroizing<Vec<u8>>,
}

/// Seals a text for a place. `None`: the library fails.
pub(super) fn seal(key: &RingKey, place: &Place, clear: &str) -> Option<Secret> {
    // It does not grow, so that no copy of the text is left behind (zeroize#179).
    let mut text = Zeroizing::new(Vec::with_capacity(clear.len() + TAG_LEN));
    text.extend_from_slice(clear.as_bytes());
    let nonce = key.seal(&place.associated_data(), &mut text)?;
    let id = key.id.as_str().as_bytes();
    let mut bytes = Vec::with_capacity(2 + id.len() + NONCE_LEN + text.len());
    bytes.extend_from_slice(&[VERSION, u8::try_from(id.len()).ok()?]);
    bytes.extend_from_slice(id);
    bytes.extend_from_slice(nonce.as_ref());
    bytes.extend_from_slice(&text);
    Some(Secret::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))))
}

/// Opens what was sealed for a place.
pub(super) fn open(ring: &KeyRing, place: &Place, text: &Secret) -> Result<Secret, Unopened> {
    let mut blob = Blob::parse(text.expose())?;
    let key = ring.get(&blob.key).ok_or_else(|| Unopened::KeyMissing(blob.key.clone()))?;
    let nonce = Nonce::assume_unique_for_key(blob.nonce);
    let clear = key.open(nonce, &place.associated_data(), &mut blob.sealed).ok_or(Unopened::Refused)?;
    // Whoever holds the key sealed a text.
    std::str::from_utf8(clear).map(Secret::from).map_err(|_| Unopened::Malformed)
}

/// The name of the key that a text is sealed with.
pub(super) fn key_of(text: &Secret) -> Result<KeyId, Unopened> {
    let text = text.expose().strip_prefix(PREFIX).ok_or(Unopened::Plaintext)?;
    // As much as holds the longest name: whole rows are looked through at the start.
    let head = text.get(..HEAD_LEN).unwrap_or(text);
    let bytes = URL_SAFE_NO_PAD.decode(head).map_err(|_| Unopened::Malformed)?;
    let (&[version, length], rest) = bytes.split_first_chunk::<2>().ok_or(Unopened::Malformed)?;
    let id = rest.get(..usize::from(length)).filter(|_| version == VERSION);
    let id = id.and_then(|id| std::str::from_utf8(id).ok()).and_then(KeyId::parse);
    id.ok_or(Unopened::Malformed)
}

impl Blob {
    fn parse(text: &str) -> Result<Self, Unopened> {
        let text = text.strip_prefix(PREFIX).ok_or(Unopened::Plaintext)?;
        let bytes = URL_SAFE_NO_PAD.decode(text).map(Zeroizing::new).map_err(|_| Unopened::Malformed)?;
        Self::of(&bytes).ok_or(Unopened::Malformed)
    }

    fn of(bytes: &[u8]) -> Option<Self> {
        let (&[version, length], rest) = bytes.split_first_chunk::<2>()?;
        let (id, rest) = rest.split_at_checked(usize::from(length))?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let key = KeyId::parse(std::str::from_utf8(id).ok()?)?;
        let whole = version == VERSION && sealed.len() >= TAG_LEN;
        whole.then(|| Self { key, nonce: *nonce, sealed: Zeroizing::new(sealed.to_vec()) })
    }
}
