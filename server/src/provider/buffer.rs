//! A buffer for bytes that hold a secret, of a request or of an answer.

use std::{io, mem};

use zeroize::Zeroizing;

/// Bytes that are wiped when they are dropped, and whenever they move because they need more room: a `Vec` that grows
/// by itself leaves copies behind.
#[derive(Default)]
pub(crate) struct SecretBuffer(Zeroizing<Vec<u8>>);

impl SecretBuffer {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let needed = self.0.len() + bytes.len();
        if needed > self.0.capacity() {
            let mut larger = Zeroizing::new(Vec::with_capacity(needed.max(2 * self.0.capacity()).max(256)));
            larger.extend_from_slice(&self.0);
            // The smaller one is wiped here.
            drop(mem::replace(&mut self.0, larger));
        }
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn into_bytes(self) -> Zeroizing<Vec<u8>> {
        self.0
    }
}

impl io::Write for SecretBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_pushed_is_there_however_often_it_moved() {
        let mut buffer = SecretBuffer::default();
        assert!(buffer.is_empty());
        let expected: Vec<u8> = (0..=255).cycle().take(10_000).collect();
        for part in expected.chunks(7) {
            buffer.push(part);
        }
        assert_eq!(*buffer.into_bytes(), expected);
    }

    #[test]
    fn it_never_grows_in_place_of_being_wiped() {
        let mut buffer = SecretBuffer::default();
        for _ in 0..5_000 {
            let before = (buffer.0.as_ptr(), buffer.0.capacity());
            buffer.push(b"s3cr3t");
            // Either it is where it was with the room that it had, or another one: `Vec` itself was never asked for room.
            let after = (buffer.0.as_ptr(), buffer.0.capacity());
            assert!(after == before || after.1 >= 2 * before.1, "{before:?} {after:?}");
        }
    }
}
