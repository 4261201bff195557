//! Redis' protocol, RESP2, as far as `GET` needs it: one request at a time.

use anyhow::{Context as _, Result};

use super::{Talk, Template, Verdict, holds};

/// `GET key:########`, and what the value must be.
#[derive(Debug)]
pub(crate) struct Redis {
    get: Template,
    token: usize,
    asked: Option<(usize, u32)>,
}

impl Redis {
    pub(crate) fn new(token: usize) -> Self {
        Self { get: Template::new(Self::command(&[b"GET", b"########"])), token, asked: None }
    }

    /// A command of these words.
    pub(crate) fn command(words: &[&[u8]]) -> Vec<u8> {
        let mut command = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            command.extend(format!("${}\r\n", word.len()).into_bytes());
            command.extend_from_slice(word);
            command.extend(b"\r\n");
        }
        command
    }
}

impl Talk for Redis {
    fn open(&mut self, _out: &mut Vec<u8>) {}

    fn is_open(&self) -> bool {
        true
    }

    fn ask(&mut self, slot: usize, key: u32, out: &mut Vec<u8>) -> bool {
        if self.asked.is_some() {
            return false;
        }
        self.asked = Some((slot, key));
        self.get.write(key, out);
        true
    }

    fn hear(&mut self, said: &[u8], _out: &mut Vec<u8>, ended: &mut Vec<(usize, Verdict)>) -> Result<usize> {
        let Some(line) = said.windows(2).position(|pair| pair == b"\r\n") else { return Ok(0) };
        let (slot, key) = self.asked.context("an answer that nobody asked for")?;
        let begin = line + 2;
        let (used, verdict) = match said[..line].split_first() {
            Some((b'$', b"-1")) => (begin, Verdict::Wrong),
            Some((b'$', length)) => {
                let length: usize = std::str::from_utf8(length)?.parse()?;
                let Some(value) = said.get(begin..begin + length + 2) else { return Ok(0) };
                let right = holds(&value[..length], key, self.token);
                (begin + length + 2, if right { Verdict::Right(length) } else { Verdict::Wrong })
            }
            _ => (begin, Verdict::Refused(1)),
        };
        self.asked = None;
        ended.push((slot, verdict));
        Ok(used)
    }
}
