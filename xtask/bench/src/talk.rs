//! How a server is talked to: bytes in, bytes out, and what came of each request. No IO.

pub(crate) mod http2;
mod postgres;
mod redis;
mod template;

pub(crate) use self::{http2::Http2, postgres::Postgres, redis::Redis, template::Template};

use std::fmt;

use anyhow::Result;

/// The digits of a key, with which every token begins.
pub(crate) const DIGITS: usize = 8;

/// How far into an answer the token is looked for.
const REACH: usize = 128;

/// One conversation over one connection.
pub(crate) trait Talk {
    /// What the client says first.
    fn open(&mut self, out: &mut Vec<u8>);

    /// Whether requests may be made.
    fn is_open(&self) -> bool;

    /// Makes a request for a key. False: not now, the server has not taken enough of what was sent.
    fn ask(&mut self, slot: usize, key: u32, out: &mut Vec<u8>) -> bool;

    /// Takes in what the server said, and tells how much of it: the rest is an unfinished piece. What ends here is
    /// appended to `ended`.
    ///
    /// # Errors
    ///
    /// If the server does not keep to the protocol.
    fn hear(&mut self, said: &[u8], out: &mut Vec<u8>, ended: &mut Vec<(usize, Verdict)>) -> Result<usize>;
}

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    /// The token that was asked for, in an answer of so many bytes.
    Right(usize),
    /// An answer without the token that was asked for.
    Wrong,
    /// Another status than success: of gRPC, HTTP or the protocol's own.
    Refused(u32),
    /// The server ended the stream without an answer.
    Reset,
    /// The connection went away.
    Lost,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Right(_) => write!(f, "right"),
            Self::Wrong => write!(f, "wrong bytes"),
            Self::Refused(status) => write!(f, "status {status}"),
            Self::Reset => write!(f, "stream reset"),
            Self::Lost => write!(f, "connection lost"),
        }
    }
}

/// Whether an answer holds the token of a key: it begins with the key's digits.
fn holds(answer: &[u8], key: u32, length: usize) -> bool {
    let digits = digits(key);
    let reach = answer.len().min(REACH);
    answer[..reach]
        .windows(DIGITS)
        .position(|window| window == digits)
        .is_some_and(|begin| answer.len() - begin >= length)
}

/// A key in decimal digits.
pub(crate) fn digits(mut key: u32) -> [u8; DIGITS] {
    let mut digits = [b'0'; DIGITS];
    for digit in digits.iter_mut().rev() {
        *digit += u8::try_from(key % 10).unwrap_or_default();
        key /= 10;
    }
    digits
}
