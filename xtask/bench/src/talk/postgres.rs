//! Postgres' protocol, version 3, as far as one prepared `SELECT` needs it: one request at a time.

use anyhow::{Result, bail};

use super::{Talk, Template, Verdict, holds};

/// The name of the prepared statement.
const NAME: &str = "token";

/// A prepared statement with one text parameter, the key, and one column, the token.
#[derive(Debug)]
pub(crate) struct Postgres {
    user: String,
    database: String,
    statement: String,
    select: Template,
    token: usize,
    ready: bool,
    prepared: bool,
    asked: Option<(usize, u32)>,
    /// What came of the request so far.
    verdict: Verdict,
}

impl Postgres {
    /// A conversation with a server that trusts `user`.
    pub(crate) fn new(user: &str, database: &str, statement: &str, token: usize) -> Self {
        Self {
            user: user.to_owned(),
            database: database.to_owned(),
            statement: statement.to_owned(),
            select: Template::new(select()),
            token,
            ready: false,
            prepared: false,
            asked: None,
            verdict: Verdict::Wrong,
        }
    }

    fn message(
        &mut self,
        kind: u8,
        payload: &[u8],
        out: &mut Vec<u8>,
        ended: &mut Vec<(usize, Verdict)>,
    ) -> Result<()> {
        match kind {
            b'R' if payload != [0; 4] => bail!("the server wants to know who this is"),
            b'E' if !self.prepared => bail!("the server refuses: {}", String::from_utf8_lossy(payload)),
            b'E' => self.verdict = Verdict::Refused(1),
            // One row of one column: two bytes of count, four of length.
            b'D' => {
                if let (Some((_, key)), Some(value)) = (self.asked, payload.get(6..)) {
                    let right = holds(value, key, self.token);
                    self.verdict = if right { Verdict::Right(value.len()) } else { Verdict::Wrong };
                }
            }
            b'Z' if !self.ready => {
                self.ready = true;
                message(out, b'P', &[NAME.as_bytes(), b"\0", self.statement.as_bytes(), b"\0", &[0, 0]].concat());
                message(out, b'S', &[]);
            }
            b'Z' if !self.prepared => self.prepared = true,
            b'Z' => {
                if let Some((slot, _)) = self.asked.take() {
                    ended.push((slot, self.verdict));
                }
                self.verdict = Verdict::Wrong;
            }
            _ => {}
        }
        Ok(())
    }
}

impl Talk for Postgres {
    fn open(&mut self, out: &mut Vec<u8>) {
        let mut startup = 196_608_u32.to_be_bytes().to_vec();
        for text in ["user", &self.user, "database", &self.database, ""] {
            startup.extend(text.as_bytes());
            startup.push(0);
        }
        out.extend(u32::try_from(startup.len() + 4).unwrap_or_default().to_be_bytes());
        out.extend(startup);
    }

    fn is_open(&self) -> bool {
        self.prepared
    }

    fn ask(&mut self, slot: usize, key: u32, out: &mut Vec<u8>) -> bool {
        if self.asked.is_some() {
            return false;
        }
        self.asked = Some((slot, key));
        self.select.write(key, out);
        true
    }

    fn hear(&mut self, said: &[u8], out: &mut Vec<u8>, ended: &mut Vec<(usize, Verdict)>) -> Result<usize> {
        let mut used = 0;
        while let Some([kind, length @ ..]) = said.get(used..).and_then(|rest| rest.first_chunk::<5>()) {
            let length = u32::from_be_bytes(*length) as usize;
            let Some(payload) = said.get(used + 5..used + 1 + length) else { break };
            self.message(*kind, payload, out, ended)?;
            used += 1 + length;
        }
        Ok(used)
    }
}

/// Bind, Execute and Sync, as one piece.
fn select() -> Vec<u8> {
    let mut select = vec![];
    // Portal, statement, formats (text), one parameter, its length and value, result formats (text).
    let key: &[u8] = &[&[0, 1, 0, 0, 0, 8], b"########".as_slice()].concat();
    message(&mut select, b'B', &[b"\0", NAME.as_bytes(), b"\0", &[0, 0], key, &[0, 0]].concat());
    message(&mut select, b'E', &[0, 0, 0, 0, 0]);
    message(&mut select, b'S', &[]);
    select
}

fn message(out: &mut Vec<u8>, kind: u8, payload: &[u8]) {
    out.push(kind);
    out.extend(u32::try_from(payload.len() + 4).unwrap_or_default().to_be_bytes());
    out.extend_from_slice(payload);
}
