//! Reading compressed header blocks (RFC 7541), as far as a generator of load cares: `:status` and `grpc-status`.
//!
//! The rest is decoded all the same, since it moves the table that later blocks refer to.

mod huffman;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use anyhow::{Context as _, Result, bail};

use self::huffman::Huffman;

/// What the sender may keep, in the default settings.
const TABLE: usize = 4096;

/// What an entry costs besides its text (RFC 7541, section 4.1).
const ENTRY: usize = 32;

/// The names of the static table. Of their values only those of `:status` matter here.
const NAMES: [&str; 61] = [
    ":authority",
    ":method",
    ":method",
    ":path",
    ":path",
    ":scheme",
    ":scheme",
    ":status",
    ":status",
    ":status",
    ":status",
    ":status",
    ":status",
    ":status",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "accept",
    "access-control-allow-origin",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "link",
    "location",
    "max-forwards",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "refresh",
    "retry-after",
    "server",
    "set-cookie",
    "strict-transport-security",
    "transfer-encoding",
    "user-agent",
    "vary",
    "via",
    "www-authenticate",
];

const FIRST_STATUS: usize = 8;
const STATUSES: [u32; 7] = [200, 204, 206, 304, 400, 404, 500];

/// What a header block says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Head {
    /// The HTTP status.
    pub(crate) status: Option<u32>,
    /// `grpc-status`. One that is no number is the highest there is.
    pub(crate) grpc_status: Option<u32>,
}

/// What one field says.
#[derive(Clone, Copy, Debug)]
enum Meaning {
    Status(u32),
    GrpcStatus(u32),
    Nothing,
}

#[derive(Debug)]
struct Entry {
    name: Vec<u8>,
    meaning: Meaning,
    size: usize,
}

/// Reads the blocks of one connection, in order.
#[derive(Debug)]
pub(crate) struct Decoder {
    huffman: Huffman,
    entries: VecDeque<Entry>,
    size: usize,
    limit: usize,
    scratch: Vec<u8>,
}

impl Decoder {
    pub(crate) fn new() -> Self {
        Self { huffman: Huffman::new(), entries: VecDeque::new(), size: 0, limit: TABLE, scratch: vec![] }
    }

    /// Reads a whole block.
    pub(crate) fn decode(&mut self, mut block: &[u8]) -> Result<Head> {
        let mut head = Head::default();
        while let Some(first) = block.first() {
            let meaning = match first {
                0x80.. => {
                    let index = integer(&mut block, 7)?;
                    self.meaning(index)?
                }
                0x40.. => self.literal(&mut block, 6, true)?,
                0x20.. => {
                    self.limit = integer(&mut block, 5)?.min(TABLE);
                    self.evict();
                    continue;
                }
                _ => self.literal(&mut block, 4, false)?,
            };
            match meaning {
                Meaning::Status(status) => head.status = Some(status),
                Meaning::GrpcStatus(status) => head.grpc_status = Some(status),
                Meaning::Nothing => {}
            }
        }
        Ok(head)
    }

    fn literal(&mut self, block: &mut &[u8], prefix: u32, keep: bool) -> Result<Meaning> {
        let name = match integer(block, prefix)? {
            0 => {
                self.string(block)?;
                self.scratch.clone()
            }
            index => self.name(index)?.to_vec(),
        };
        self.string(block)?;
        let value = self.scratch.as_slice();
        let meaning = match name.as_slice() {
            b":status" => Meaning::Status(number(value)),
            b"grpc-status" => Meaning::GrpcStatus(number(value)),
            _ => Meaning::Nothing,
        };
        if keep {
            let size = name.len() + value.len() + ENTRY;
            self.size += size;
            self.entries.push_front(Entry { name, meaning, size });
            self.evict();
        }
        Ok(meaning)
    }

    fn evict(&mut self) {
        while self.size > self.limit {
            let Some(oldest) = self.entries.pop_back() else { break };
            self.size -= oldest.size;
        }
    }

    /// Reads a string into `scratch`.
    fn string(&mut self, block: &mut &[u8]) -> Result<()> {
        let encoded = block.first().context("a string without a length")? & 0x80 != 0;
        let length = integer(block, 7)?;
        let (text, rest) = block.split_at_checked(length).context("a string that ends early")?;
        *block = rest;
        self.scratch.clear();
        if encoded {
            self.huffman.decode(text, &mut self.scratch).context("a string that is no Huffman code")?;
        } else {
            self.scratch.extend_from_slice(text);
        }
        Ok(())
    }

    fn meaning(&self, index: usize) -> Result<Meaning> {
        if let Some(status) = index.checked_sub(FIRST_STATUS).and_then(|nth| STATUSES.get(nth)) {
            return Ok(Meaning::Status(*status));
        }
        if (1..=NAMES.len()).contains(&index) {
            return Ok(Meaning::Nothing);
        }
        Ok(self.entry(index)?.meaning)
    }

    fn name(&self, index: usize) -> Result<&[u8]> {
        match index.checked_sub(1).and_then(|nth| NAMES.get(nth)) {
            Some(name) => Ok(name.as_bytes()),
            None => Ok(&self.entry(index)?.name),
        }
    }

    fn entry(&self, index: usize) -> Result<&Entry> {
        let nth = index.checked_sub(NAMES.len() + 1).context("an index of zero")?;
        self.entries.get(nth).with_context(|| format!("the index {index} of {} entries", self.entries.len()))
    }
}

/// Reads an integer whose first byte has `prefix` bits of it.
fn integer(block: &mut &[u8], prefix: u32) -> Result<usize> {
    let mask = (1_usize << prefix) - 1;
    let (first, mut rest) = block.split_first().context("an integer that ends early")?;
    let mut value = usize::from(*first) & mask;
    if value == mask {
        let mut shift = 0;
        loop {
            let (byte, after) = rest.split_first().context("an integer that ends early")?;
            rest = after;
            if shift > 21 {
                bail!("an integer that is too long");
            }
            value += (usize::from(*byte) & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
    }
    *block = rest;
    Ok(value)
}

fn number(text: &[u8]) -> u32 {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).unwrap_or(u32::MAX)
}
