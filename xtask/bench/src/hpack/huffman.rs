//! The Huffman code of HPACK (RFC 7541, appendix B).
//!
//! The code is canonical: codes of one length are consecutive, in the order of their symbols. So the lengths say it all.

/// How many bits each byte takes, and at last the end of a string, which never appears.
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, //
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, //
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, //
    7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, //
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, //
    7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, //
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21, //
    23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, //
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, //
    21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, //
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30, //
];

const LONGEST: usize = 30;

/// Decodes strings.
#[derive(Debug)]
pub(super) struct Huffman {
    /// Of each length: the first code, and where its symbol is in `symbols`.
    first: [(u32, usize); LONGEST + 1],
    /// How many codes there are of each length.
    count: [u32; LONGEST + 1],
    /// All symbols by length, then by value.
    symbols: Vec<u16>,
}

impl Huffman {
    pub(super) fn new() -> Self {
        let mut symbols: Vec<u16> = (0..257).collect();
        symbols.sort_by_key(|symbol| (LENGTHS[usize::from(*symbol)], *symbol));
        let mut count = [0; LONGEST + 1];
        for length in LENGTHS {
            count[usize::from(length)] += 1;
        }
        let (mut first, mut code, mut place) = ([(0, 0); LONGEST + 1], 0_u32, 0_usize);
        for length in 1..=LONGEST {
            code <<= 1;
            first[length] = (code, place);
            code += count[length];
            place += count[length] as usize;
        }
        Self { first, count, symbols }
    }

    /// Appends what is encoded; `None` if it is no code.
    pub(super) fn decode(&self, encoded: &[u8], decoded: &mut Vec<u8>) -> Option<()> {
        let (mut code, mut length) = (0_u32, 0_usize);
        for byte in encoded {
            for bit in (0..8).rev() {
                code = code << 1 | u32::from(byte >> bit & 1);
                length += 1;
                let (first, place) = *self.first.get(length)?;
                if let Some(nth) = code.checked_sub(first).filter(|nth| *nth < self.count[length]) {
                    decoded.push(u8::try_from(self.symbols[place + nth as usize]).ok()?);
                    (code, length) = (0, 0);
                }
            }
        }
        // The rest is the beginning of the end: all ones, less than a byte.
        (length < 8 && code == (1 << length) - 1).then_some(())
    }
}
