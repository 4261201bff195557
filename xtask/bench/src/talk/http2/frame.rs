//! Frames of HTTP/2: their kinds, their flags, and how they are written.

use anyhow::{Context as _, Result};

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 1;
pub(super) const ACK: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
pub(super) const PADDED: u8 = 8;
pub(super) const PRIORITY: u8 = 0x20;

pub(super) const HEADER_TABLE_SIZE: u16 = 1;
pub(super) const ENABLE_PUSH: u16 = 2;
pub(super) const INITIAL_WINDOW_SIZE: u16 = 4;

/// What a frame begins with.
pub(super) const FRAME: usize = 9;

/// The header block that fills the server's table, and the one that refers to it.
pub(super) fn blocks(headers: &[(&'static str, String)]) -> (Vec<u8>, Vec<u8>) {
    let (mut first, mut later) = (vec![], vec![]);
    for (nth, (name, value)) in headers.iter().enumerate() {
        first.push(0x40);
        for text in [name, value.as_str()] {
            // Short enough for an integer of seven bits.
            first.push(u8::try_from(text.len()).unwrap_or_default() & 0x7f);
            first.extend_from_slice(text.as_bytes());
        }
        // The table's newest entry comes first.
        later.push(0x80 | u8::try_from(61 + headers.len() - nth).unwrap_or_default());
    }
    (first, later)
}

pub(super) fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, id: u32, payload: &[u8]) {
    frame_head(out, payload.len(), kind, flags, id);
    out.extend_from_slice(payload);
}

pub(super) fn frame_head(out: &mut Vec<u8>, length: usize, kind: u8, flags: u8, id: u32) {
    let [_, high, middle, low] = u32::try_from(length).unwrap_or_default().to_be_bytes();
    let [a, b, c, d] = id.to_be_bytes();
    out.extend_from_slice(&[high, middle, low, kind, flags, a, b, c, d]);
}

pub(super) fn unpadded(flags: u8, payload: &[u8]) -> Result<&[u8]> {
    if flags & PADDED == 0 {
        return Ok(payload);
    }
    let (padding, rest) = payload.split_first().context("padding that ends early")?;
    rest.get(..rest.len().saturating_sub((*padding).into())).context("padding that ends early")
}

pub(super) fn word(bytes: &[u8]) -> Result<u32> {
    Ok(u32::from_be_bytes(*bytes.first_chunk().context("a number that ends early")?))
}
