//! What a peer may say for what it is answered: HTTP/2 frames have a price, answers pay for it.
//!
//! A flood of pings, settings, resets or header fragments costs this process more than its sender. Each frame that a peer
//! sends is charged, each byte that it is answered with earns credit, and so does time. A peer in debt is not read from
//! until it is out of it: its flood then fills its own socket and stops. It is not thrown out, so that a busy client which
//! is taken for a flood gets slower and nothing worse.

use std::time::Duration;

use tokio::time::Instant;

/// What a peer may say before anything was answered, and the most that it can save. It is about what a client sends that
/// opens all of its streams at once and cancels them.
const BURST: i64 = 1000;

/// What a second earns.
const PER_SECOND: i64 = 100;

/// How many bytes of answers earn as much as a frame costs: the smallest answer to a call, of about 130 bytes, pays for
/// what its call may consist of, and an answered ping of 17 bytes does not pay for the ping.
const BYTES_PER_CREDIT: i64 = 16;

/// The bytes of headers that cost as much as a frame.
const HEADER_BYTES_PER_CREDIT: i64 = 1024;

/// A DATA frame that ends nothing and has less than this is one of too many.
const SMALL: u32 = 64;

/// What a peer in disgrace begins with: two seconds of silence.
const DISGRACE: i64 = -2 * PER_SECOND;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The types and flags of RFC 9113 section 6.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const FRAME_HEADER: usize = 9;

/// Where in what the peer sends the reading is.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// So many bytes of the preface have been seen.
    Preface(usize),
    /// In the header of a frame.
    Header([u8; FRAME_HEADER], usize),
    /// So many bytes of a frame are left.
    Payload(u32),
    /// It is not HTTP/2, and is not charged.
    Other,
}

/// The account of a connection.
#[derive(Debug)]
pub(super) struct Meter {
    place: Place,
    credit: i64,
    /// Bytes of answers that are less than a credit.
    change: i64,
    counted_until: Instant,
}

impl Meter {
    /// Of a new connection; of a peer in disgrace it begins in debt.
    pub(super) fn new(disgrace: bool) -> Self {
        let credit = if disgrace { DISGRACE } else { BURST };
        Self { place: Place::Preface(0), credit, change: 0, counted_until: Instant::now() }
    }

    /// Charges for what the peer has sent.
    pub(super) fn read(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match &mut self.place {
                Place::Preface(seen) => {
                    let count = bytes.len().min(PREFACE.len() - *seen);
                    let (head, rest) = bytes.split_at(count);
                    if head != &PREFACE[*seen..*seen + count] {
                        self.place = Place::Other;
                        return;
                    }
                    *seen += count;
                    if *seen == PREFACE.len() {
                        self.place = Place::Header([0; FRAME_HEADER], 0);
                    }
                    bytes = rest;
                }
                Place::Header(header, seen) => {
                    let count = bytes.len().min(FRAME_HEADER - *seen);
                    let (head, rest) = bytes.split_at(count);
                    header[*seen..*seen + count].copy_from_slice(head);
                    *seen += count;
                    if *seen == FRAME_HEADER {
                        let header = *header;
                        self.charge(header);
                    }
                    bytes = rest;
                }
                Place::Payload(left) => {
                    let count = bytes.len().min(*left as usize);
                    // At most `left`, which is an u32.
                    *left -= u32::try_from(count).unwrap_or(*left);
                    if *left == 0 {
                        self.place = Place::Header([0; FRAME_HEADER], 0);
                    }
                    bytes = &bytes[count..];
                }
                Place::Other => return,
            }
        }
    }

    fn charge(&mut self, header: [u8; FRAME_HEADER]) {
        let [high, middle, low, kind, flags, ..] = header;
        let length = u32::from_be_bytes([0, high, middle, low]);
        self.credit -= match kind {
            DATA if flags & END_STREAM != 0 || length >= SMALL => 0,
            HEADERS | CONTINUATION => 2 + i64::from(length) / HEADER_BYTES_PER_CREDIT,
            SETTINGS | PING => 2,
            _ => 1,
        };
        self.place = if length == 0 { Place::Header([0; FRAME_HEADER], 0) } else { Place::Payload(length) };
    }

    /// Credits what the peer is answered with.
    pub(super) fn wrote(&mut self, bytes: usize) {
        self.change += i64::try_from(bytes).unwrap_or(i64::MAX / 2);
        self.credit = (self.credit + self.change / BYTES_PER_CREDIT).min(BURST);
        self.change %= BYTES_PER_CREDIT;
    }

    /// How long the peer is not to be read from. `None`: it has credit.
    pub(super) fn debt(&mut self) -> Option<Duration> {
        if self.credit >= 0 {
            return None;
        }
        let now = Instant::now();
        let millis = i64::try_from((now - self.counted_until).as_millis()).unwrap_or(i64::MAX / PER_SECOND);
        self.credit = self.credit.saturating_add(millis * PER_SECOND / 1000).min(BURST);
        self.counted_until = now;
        let owed = u64::try_from(-self.credit).unwrap_or(0);
        (owed > 0).then(|| Duration::from_millis(owed * 1000 / PER_SECOND.unsigned_abs()))
    }

    /// Whether the peer has said more than it was entitled to.
    pub(super) fn is_in_debt(&self) -> bool {
        self.credit < 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
        [&[length[1], length[2], length[3], kind, flags, 0, 0, 0, 1], payload].concat()
    }

    /// How many of these frames a peer may send before it is in debt; each is answered with so many bytes. `None`: a
    /// hundred thousand and more.
    fn allowed(frames: &[u8], answered: usize) -> Option<usize> {
        let mut meter = Meter::new(false);
        meter.read(PREFACE);
        (0..100_000).find(|_| {
            meter.read(frames);
            meter.wrote(answered);
            meter.is_in_debt()
        })
    }

    #[tokio::test(start_paused = true)]
    async fn floods_are_in_debt_soon() {
        assert!(allowed(&frame(PING, 0, b"12345678"), 17).is_some_and(|count| count < 1200), "pings");
        assert!(allowed(&frame(SETTINGS, 0, &[0, 4, 0, 0, 1, 0]), 9).is_some_and(|count| count < 1200), "settings");
        let reset = [frame(HEADERS, 4, &[0x83; 40]), frame(3, 0, &[0, 0, 0, 8])].concat();
        assert!(allowed(&reset, 0).is_some_and(|count| count < 500), "streams that are reset");
        assert!(allowed(&frame(CONTINUATION, 0, &[0; 12_000]), 0).is_some_and(|count| count < 200), "headers");
        assert!(allowed(&frame(DATA, 0, b"x"), 0).is_some_and(|count| count <= 1000), "a message byte by byte");
        let refused = frame(HEADERS, 5, &[0x83; 40]);
        assert!(allowed(&refused, 13).is_some_and(|count| count < 1200), "streams that are too many");
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_are_answered_pay_for_themselves() {
        // The headers, the message, a separate end; a window update for each answer, and a ping now and then.
        let call = [frame(HEADERS, 4, &[0x83; 60]), frame(DATA, 0, b"\0\0\0\0\x08\x0a\x06static"), frame(DATA, 1, b"")];
        let chatty = [&call.concat()[..], &frame(8, 0, &[0, 0, 1, 0]), &frame(PING, 0, b"12345678")].concat();
        assert_eq!(allowed(&chatty, 130), None);
        let message = [frame(HEADERS, 4, &[0x83; 60]), frame(DATA, 1, &[0; 2000])].concat();
        assert_eq!(allowed(&message, 130), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_debt_is_paid_by_time_and_nothing_is_saved_beyond_the_burst() {
        let mut meter = Meter::new(true);
        assert_eq!(meter.debt(), Some(Duration::from_secs(2)));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(meter.debt(), Some(Duration::from_secs(1)));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(meter.debt(), None);
        meter.wrote(usize::MAX / 4);
        assert_eq!(meter.credit, BURST);
    }

    #[tokio::test(start_paused = true)]
    async fn frames_are_told_apart_however_they_arrive_and_other_protocols_are_let_be() {
        let mut whole = Meter::new(false);
        let sent = [PREFACE, &frame(PING, 0, b"12345678"), &frame(DATA, 0, &[0; 300]), &frame(3, 0, &[0; 4])].concat();
        whole.read(&sent);
        assert_eq!(whole.credit, BURST - 3);
        let mut pieces = Meter::new(false);
        sent.chunks(1).for_each(|byte| pieces.read(byte));
        assert_eq!(pieces.credit, whole.credit);
        let mut other = Meter::new(false);
        other.read(b"GET /metrics HTTP/1.1\r\n\r\n");
        other.read(&sent);
        assert_eq!(other.credit, BURST);
    }
}
