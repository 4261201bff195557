//! HTTP/2 (RFC 9113) as far as a client needs it that sends the same kind of request again and again.
//!
//! Written by hand, since a generator must be faster than what it measures: a request costs two copies.

mod frame;

use anyhow::{Context as _, Result, bail};

use self::frame::{
    ACK, CONTINUATION, DATA, ENABLE_PUSH, END_HEADERS, END_STREAM, FRAME, GOAWAY, HEADER_TABLE_SIZE, HEADERS,
    INITIAL_WINDOW_SIZE, PING, PREFACE, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE, blocks, frame, frame_head,
    unpadded, word,
};
use super::{Talk, Template, Verdict, holds};
use crate::hpack::{Decoder, Head};

/// What a gRPC message begins with.
const PREFIX: usize = 5;

/// What the server may send of one stream, and of all.
const STREAM_WINDOW: u32 = 1 << 24;
const WINDOW: u32 = 1 << 30;

/// What either side may send before it is told more.
const DEFAULT_WINDOW: i64 = 65_535;

/// What the calls of a conversation have in common.
#[derive(Clone, Debug)]
pub(crate) struct Calls {
    headers: Vec<(&'static str, String)>,
    /// Of gRPC: the message with its prefix.
    message: Option<Template>,
    /// How long a token is; `None`: any answer will do.
    token: Option<usize>,
    /// Every message counts by itself, and the end of a stream is none.
    streaming: bool,
}

impl Calls {
    /// Calls of a gRPC method with a message that is the same but for the key.
    pub(crate) fn grpc(scheme: &str, path: &str, message: &[u8], token: Option<usize>) -> Self {
        let mut framed = vec![0];
        framed.extend(u32::try_from(message.len()).unwrap_or_default().to_be_bytes());
        framed.extend(message);
        let mut headers = vec![(":method", "POST".to_owned())];
        headers.extend(common(scheme, path));
        headers.extend([("te", "trailers".into()), ("content-type", "application/grpc".into())]);
        Self { headers, message: Some(Template::new(framed)), token, streaming: false }
    }

    /// Calls whose every message is reported as it comes, whatever is in it. Their end is a refusal or a reset.
    pub(crate) fn streaming(self) -> Self {
        Self { streaming: true, ..self.unchecked() }
    }

    /// The same, with whatever answer.
    pub(crate) fn unchecked(self) -> Self {
        Self { token: None, ..self }
    }

    /// Requests for one path.
    pub(crate) fn get(scheme: &str, path: &str, token: Option<usize>) -> Self {
        let mut headers = vec![(":method", "GET".to_owned())];
        headers.extend(common(scheme, path));
        Self { headers, message: None, token, streaming: false }
    }
}

fn common(scheme: &str, path: &str) -> [(&'static str, String); 4] {
    [
        (":scheme", scheme.to_owned()),
        (":path", path.to_owned()),
        (":authority", "localhost".to_owned()),
        ("user-agent", "tokencache-bench".to_owned()),
    ]
}

/// The stream of a slot that has none.
const IDLE: u32 = u32::MAX;

/// A stream under way.
#[derive(Debug, Default)]
struct Stream {
    key: u32,
    head: Head,
    body: Vec<u8>,
}

/// The client's side of a connection.
#[derive(Debug)]
pub(crate) struct Http2 {
    calls: Calls,
    decoder: Decoder,
    /// The header block as it is while the server's table is empty, and from then on.
    first_block: Vec<u8>,
    block: Vec<u8>,
    asked: bool,
    settled: bool,
    next: u32,
    /// By slot, and apart from the rest: they are searched for every frame.
    ids: Vec<u32>,
    streams: Vec<Stream>,
    /// What may be sent.
    window: i64,
    /// What was received since the server was last told that it may send more.
    received: u32,
    /// A header block that goes on in further frames: its stream, its flags, what is there of it.
    unfinished: Option<(u32, u8, Vec<u8>)>,
}

impl Http2 {
    pub(crate) fn new(calls: &Calls, slots: usize) -> Self {
        let (first_block, block) = blocks(&calls.headers);
        Self {
            calls: calls.clone(),
            decoder: Decoder::new(),
            first_block,
            block,
            asked: false,
            settled: false,
            next: 1,
            ids: vec![IDLE; slots],
            streams: std::iter::repeat_with(Stream::default).take(slots).collect(),
            window: DEFAULT_WINDOW,
            received: 0,
            unfinished: None,
        }
    }

    fn slot(&self, id: u32) -> Option<usize> {
        self.ids.iter().position(|known| *known == id)
    }

    fn frame(
        &mut self,
        (kind, flags, id): (u8, u8, u32),
        payload: &[u8],
        out: &mut Vec<u8>,
        ended: &mut Vec<(usize, Verdict)>,
    ) -> Result<()> {
        match kind {
            DATA => {
                self.account(payload.len(), out)?;
                if let Some(slot) = self.slot(id) {
                    let data = unpadded(flags, payload)?;
                    self.streams[slot].body.extend_from_slice(data);
                    if self.calls.streaming {
                        messages(slot, &mut self.streams[slot].body, ended);
                        grant(payload.len(), id, out);
                    }
                    self.end(slot, flags, ended);
                }
            }
            HEADERS => {
                let mut block = unpadded(flags, payload)?;
                if flags & PRIORITY != 0 {
                    block = block.get(5..).context("a priority that ends early")?;
                }
                self.headers(id, flags, block.to_vec(), ended)?;
            }
            CONTINUATION => {
                let (begun, first, mut block) = self.unfinished.take().context("a continuation of nothing")?;
                if begun != id {
                    bail!("a continuation of another stream");
                }
                block.extend_from_slice(payload);
                self.headers(id, first | flags & END_HEADERS, block, ended)?;
            }
            RST_STREAM => {
                if let Some(slot) = self.slot(id) {
                    self.ids[slot] = IDLE;
                    ended.push((slot, Verdict::Reset));
                }
            }
            SETTINGS if flags & ACK == 0 => self.settings(payload, out)?,
            PING if flags & ACK == 0 => frame(out, PING, ACK, 0, payload),
            GOAWAY => bail!("the server says good-bye"),
            WINDOW_UPDATE if id == 0 => self.window += i64::from(word(payload)?),
            _ => {}
        }
        Ok(())
    }

    fn headers(&mut self, id: u32, flags: u8, block: Vec<u8>, ended: &mut Vec<(usize, Verdict)>) -> Result<()> {
        if flags & END_HEADERS == 0 {
            self.unfinished = Some((id, flags, block));
            return Ok(());
        }
        let head = self.decoder.decode(&block)?;
        if let Some(slot) = self.slot(id) {
            let known = &mut self.streams[slot].head;
            known.status = head.status.or(known.status);
            known.grpc_status = head.grpc_status.or(known.grpc_status);
            self.end(slot, flags, ended);
        }
        Ok(())
    }

    /// Settles a stream, if this frame is its last.
    fn end(&mut self, slot: usize, flags: u8, ended: &mut Vec<(usize, Verdict)>) {
        if flags & END_STREAM == 0 {
            return;
        }
        self.ids[slot] = IDLE;
        if self.calls.streaming {
            ended.push((slot, Verdict::Refused(self.streams[slot].head.grpc_status.unwrap_or_default())));
            return;
        }
        ended.push((slot, judge(&self.streams[slot], &self.calls)));
    }

    fn settings(&mut self, payload: &[u8], out: &mut Vec<u8>) -> Result<()> {
        for setting in payload.chunks_exact(6) {
            let (id, value) = (u16::from_be_bytes([setting[0], setting[1]]), word(&setting[2..])?);
            if id == HEADER_TABLE_SIZE && value < 4096 {
                bail!("a server that keeps no table of headers would be sent what it cannot read");
            }
        }
        self.settled = true;
        frame(out, SETTINGS, ACK, 0, &[]);
        Ok(())
    }

    /// Lets the server send more in time.
    fn account(&mut self, length: usize, out: &mut Vec<u8>) -> Result<()> {
        self.received += u32::try_from(length)?;
        if self.received > WINDOW / 2 {
            frame(out, WINDOW_UPDATE, 0, 0, &self.received.to_be_bytes());
            self.received = 0;
        }
        Ok(())
    }
}

impl Talk for Http2 {
    fn open(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(PREFACE);
        let mut settings = vec![];
        for (id, value) in [(ENABLE_PUSH, 0), (INITIAL_WINDOW_SIZE, STREAM_WINDOW)] {
            settings.extend(id.to_be_bytes());
            settings.extend(value.to_be_bytes());
        }
        frame(out, SETTINGS, 0, 0, &settings);
        frame(out, WINDOW_UPDATE, 0, 0, &WINDOW.to_be_bytes());
    }

    fn is_open(&self) -> bool {
        self.settled
    }

    fn ask(&mut self, slot: usize, key: u32, out: &mut Vec<u8>) -> bool {
        let message = self.calls.message.as_ref();
        let length = i64::try_from(message.map_or(0, Template::len)).unwrap_or(i64::MAX);
        if length > self.window {
            return false;
        }
        self.window -= length;
        let id = self.next;
        self.ids[slot] = id;
        let stream = &mut self.streams[slot];
        stream.key = if message.is_some_and(|message| !message.is_static()) { key } else { 0 };
        stream.head = Head::default();
        stream.body.clear();
        self.next += 2;
        let block = if self.asked { &self.block } else { &self.first_block };
        self.asked = true;
        let last = if message.is_some() { 0 } else { END_STREAM };
        frame(out, HEADERS, END_HEADERS | last, id, block);
        if let Some(message) = message {
            frame_head(out, message.len(), DATA, END_STREAM, id);
            message.write(key, out);
        }
        true
    }

    fn hear(&mut self, said: &[u8], out: &mut Vec<u8>, ended: &mut Vec<(usize, Verdict)>) -> Result<usize> {
        let mut used = 0;
        while let Some(head) = said.get(used..used + FRAME) {
            let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            let Some(payload) = said.get(used + FRAME..used + FRAME + length) else { break };
            let id = word(&head[5..])? & 0x7fff_ffff;
            self.frame((head[3], head[4], id), payload, out, ended)?;
            used += FRAME + length;
        }
        Ok(used)
    }
}

/// Takes the whole messages out of what a stream has brought.
fn messages(slot: usize, body: &mut Vec<u8>, ended: &mut Vec<(usize, Verdict)>) {
    let mut used = 0;
    while let Some(length) = body.get(used + 1..).and_then(|rest| word(rest).ok()) {
        let whole = PREFIX + length as usize;
        if body.len() < used + whole {
            break;
        }
        ended.push((slot, Verdict::Right(whole)));
        used += whole;
    }
    body.drain(..used);
}

/// Lets the server send as much again on a stream that stays open.
fn grant(length: usize, id: u32, out: &mut Vec<u8>) {
    if let Some(length) = u32::try_from(length).ok().filter(|length| *length > 0) {
        frame(out, WINDOW_UPDATE, 0, id, &length.to_be_bytes());
    }
}

/// Whether the answer is the one that was asked for.
fn judge(stream: &Stream, calls: &Calls) -> Verdict {
    if stream.head.status != Some(200) {
        return Verdict::Refused(stream.head.status.unwrap_or_default());
    }
    let Some(message) = calls.message.as_ref().map(|_| stream.body.get(PREFIX..)) else {
        return right(has_token(&stream.body, stream.key, calls), &stream.body);
    };
    match stream.head.grpc_status {
        // A call without a status has not succeeded, whatever came with it.
        None => return Verdict::Wrong,
        Some(0) => {}
        Some(status) => return Verdict::Refused(status),
    }
    let whole =
        message.filter(|message| stream.body[0] == 0 && word(&stream.body[1..]).ok() == message.len().try_into().ok());
    right(whole.is_some_and(|message| has_token(message, stream.key, calls)), &stream.body)
}

fn has_token(message: &[u8], key: u32, calls: &Calls) -> bool {
    calls.token.is_none_or(|length| holds(message, key, length))
}

fn right(right: bool, body: &[u8]) -> Verdict {
    if right { Verdict::Right(body.len()) } else { Verdict::Wrong }
}
