//! One connection: its socket, its TLS, its conversation, and the calls on it.

use std::{
    io::{self, ErrorKind, Read, Write},
    time::Instant,
};

use anyhow::Result;
use mio::{Interest, Registry, Token, net::TcpStream};
use rustls::{ClientConnection, pki_types::ServerName};

use super::Plan;
use crate::{
    clock::now,
    talk::{Talk, Verdict},
};

/// What is read at a time.
const CHUNK: usize = 256 * 1024;

/// A call on a slot.
#[derive(Clone, Copy, Debug)]
struct Call {
    key: u32,
    due: Instant,
}

/// A connection.
pub(super) struct Line<T> {
    socket: TcpStream,
    tls: Option<Box<ClientConnection>>,
    talk: T,
    alive: bool,
    /// What was said and not yet understood: between these two in the buffer.
    input: Vec<u8>,
    begin: usize,
    end: usize,
    /// What is still to be sent.
    output: Vec<u8>,
    /// By slot; none: it is free.
    calls: Vec<Option<Call>>,
    free: Vec<usize>,
}

impl<T: Talk> Line<T> {
    pub(super) fn open(plan: &Plan, mut talk: T, registry: &Registry, token: Token) -> Result<Self> {
        let mut socket = TcpStream::connect(plan.address)?;
        socket.set_nodelay(true)?;
        registry.register(&mut socket, token, Interest::READABLE | Interest::WRITABLE)?;
        let tls = match &plan.tls {
            Some(config) => {
                let name = ServerName::try_from("localhost")?;
                let mut tls = ClientConnection::new(config.clone(), name)?;
                tls.set_buffer_limit(None);
                Some(Box::new(tls))
            }
            None => None,
        };
        let mut output = vec![];
        talk.open(&mut output);
        let (calls, free) = (vec![None; plan.streams], (0..plan.streams).rev().collect());
        Ok(Self { socket, tls, talk, alive: true, input: vec![0; CHUNK], begin: 0, end: 0, output, calls, free })
    }

    pub(super) fn is_open(&self) -> bool {
        self.talk.is_open() && self.tls.as_ref().is_none_or(|tls| !tls.is_handshaking())
    }

    pub(super) fn is_alive(&self) -> bool {
        self.alive
    }

    pub(super) fn has_free(&self) -> bool {
        self.alive && !self.free.is_empty()
    }

    pub(super) fn is_busy(&self) -> bool {
        self.busy() > 0
    }

    pub(super) fn busy(&self) -> usize {
        self.calls.len() - self.free.len()
    }

    /// Makes a call that was due at some time. False: not now.
    pub(super) fn ask(&mut self, key: u32, due: Instant) -> bool {
        let Some(slot) = self.free.last().copied() else { return false };
        if !self.talk.ask(slot, key, &mut self.output) {
            return false;
        }
        self.free.pop();
        self.calls[slot] = Some(Call { key, due });
        true
    }

    /// Frees a slot whose call ended: its key, and when it was due.
    pub(super) fn free(&mut self, slot: usize) -> (u32, Instant) {
        self.free.push(slot);
        self.calls[slot].take().map_or_else(|| (0, now()), |call| (call.key, call.due))
    }

    /// Takes in what there is, and the end, if the server has `closed` the connection. That ends its calls.
    pub(super) fn read(&mut self, closed: bool, ended: &mut Vec<(usize, Verdict)>) {
        if !self.alive {
            return;
        }
        if self.take_in(closed, ended).is_err() {
            self.alive = false;
            for (slot, _) in self.calls.iter().enumerate().filter(|(_, call)| call.is_some()) {
                // Of a call that was answered before the end the answer counts.
                if !ended.iter().any(|(ended, _)| *ended == slot) {
                    ended.push((slot, Verdict::Lost));
                }
            }
        }
    }

    fn take_in(&mut self, closed: bool, ended: &mut Vec<(usize, Verdict)>) -> Result<()> {
        loop {
            if self.begin > 0 && self.end > CHUNK / 2 {
                self.input.copy_within(self.begin..self.end, 0);
                (self.begin, self.end) = (0, self.end - self.begin);
            }
            let room = self.input.len() - self.end;
            let (count, more) = match self.receive()? {
                Some(received) => received,
                None => return Ok(()),
            };
            self.end += count;
            let said = &self.input[self.begin..self.end];
            self.begin += self.talk.hear(said, &mut self.output, ended)?;
            if self.begin == self.end {
                (self.begin, self.end) = (0, 0);
            }
            // A socket that gave less than there was room for is empty; its end is told only once.
            if !more && count < room && !closed {
                return Ok(());
            }
        }
    }

    /// Receives into the buffer: how much, and whether there may be more whatever that was; `None`: nothing now.
    fn receive(&mut self) -> Result<Option<(usize, bool)>> {
        let room = &mut self.input[self.end..];
        let received = match &mut self.tls {
            None => self.socket.read(room).map(|count| (count, false)),
            Some(tls) => decrypt(tls, &mut self.socket, room).map(|count| (count, true)),
        };
        match received {
            Ok((0, _)) => Err(io::Error::from(ErrorKind::UnexpectedEof).into()),
            Ok(received) => Ok(Some(received)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends what there is to send, as far as the socket takes it. A broken socket is found out by reading.
    pub(super) fn write(&mut self) {
        if self.alive {
            let _ = match &mut self.tls {
                None => send(&mut self.socket, &mut self.output),
                Some(tls) => encrypt(tls, &mut self.socket, &mut self.output),
            };
        }
    }
}

fn send(socket: &mut TcpStream, output: &mut Vec<u8>) -> io::Result<()> {
    while !output.is_empty() {
        let count = socket.write(output)?;
        output.drain(..count);
    }
    Ok(())
}

fn encrypt(tls: &mut ClientConnection, socket: &mut TcpStream, output: &mut Vec<u8>) -> io::Result<()> {
    if !tls.is_handshaking() {
        // Without a limit it takes all.
        tls.writer().write_all(output)?;
        output.clear();
    }
    while tls.wants_write() {
        tls.write_tls(socket)?;
    }
    Ok(())
}

/// Reads until there is something in the clear, or nothing to read.
fn decrypt(tls: &mut ClientConnection, socket: &mut TcpStream, room: &mut [u8]) -> io::Result<usize> {
    loop {
        match tls.reader().read(room) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            read => return read,
        }
        if tls.read_tls(socket)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        tls.process_new_packets().map_err(io::Error::other)?;
        if tls.is_handshaking() && tls.wants_write() {
            tls.write_tls(socket)?;
        }
    }
}
