//! A request that is made once and has the key's digits written into it.

use super::{DIGITS, digits};

/// Where the digits go.
const PLACEHOLDER: &[u8] = b"########";

/// Bytes in which a key is filled in, or which are the same for each.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    bytes: Vec<u8>,
    places: Vec<usize>,
}

impl Template {
    /// Of bytes that hold `########` where the key goes.
    pub(crate) fn new(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        let places = bytes.windows(DIGITS).enumerate().filter(|(_, window)| *window == PLACEHOLDER);
        let places = places.map(|(place, _)| place).collect();
        Self { bytes, places }
    }

    /// The same for all keys.
    pub(crate) fn is_static(&self) -> bool {
        self.places.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Appends the request for a key.
    pub(crate) fn write(&self, key: u32, out: &mut Vec<u8>) {
        let begin = out.len();
        out.extend_from_slice(&self.bytes);
        for place in &self.places {
            out[begin + place..begin + place + DIGITS].copy_from_slice(&digits(key));
        }
    }
}
