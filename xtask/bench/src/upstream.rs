//! The broker's upstream: a token endpoint that mints tokens which tell whose they are.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::sleep,
};

use crate::{clock::now, machine, talk::DIGITS};

/// How long tokens are.
pub(crate) const TOKEN: usize = 900;

/// With how many digits a token ends that tell it from others of the same key.
const SERIAL: usize = 16;

/// What a parameter that carries a key begins with.
const MARK: &[u8] = b"key-";

/// A token of a key: its digits, then filling.
pub(crate) fn token(key: &str) -> String {
    format!("{key}{}", ".".repeat(TOKEN - DIGITS))
}

/// How the endpoint answers.
#[derive(Debug)]
pub(crate) struct Manner {
    /// Milliseconds that an answer takes.
    delay: AtomicU64,
    /// Seconds that a token is valid.
    lifetime: AtomicU64,
    /// Calls so far.
    calls: AtomicU64,
    /// When the last answer was sent.
    answered: Mutex<Option<Instant>>,
}

/// The endpoint, in a thread of this process. It ends with the process.
#[derive(Clone, Debug)]
pub(crate) struct Upstream {
    address: SocketAddr,
    manner: Arc<Manner>,
}

impl Upstream {
    /// Starts it on the generator's core.
    pub(crate) fn start(core: usize) -> Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        // Long enough that nothing is refreshed during a run.
        let manner =
            Manner { delay: 0.into(), lifetime: (30 * 24 * 3600).into(), calls: 0.into(), answered: Mutex::default() };
        let upstream = Self { address, manner: Arc::new(manner) };
        let manner = Arc::clone(&upstream.manner);
        thread::Builder::new().name("upstream".into()).spawn(move || serve(listener, &manner, core))?;
        Ok(upstream)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/token", self.address)
    }

    pub(crate) fn calls(&self) -> u64 {
        self.manner.calls.load(Ordering::Relaxed)
    }

    /// When the last answer was sent.
    pub(crate) fn answered(&self) -> Option<Instant> {
        *self.manner.answered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_lifetime(&self, lifetime: Duration) {
        self.manner.lifetime.store(lifetime.as_secs(), Ordering::Relaxed);
    }

    pub(crate) fn set_delay(&self, delay: Duration) {
        self.manner.delay.store(delay.as_millis().try_into().unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

fn serve(listener: std::net::TcpListener, manner: &Arc<Manner>, core: usize) -> Result<()> {
    machine::pin(core)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            let manner = Arc::clone(manner);
            // A broker that goes away is part of the run.
            tokio::spawn(async move { drop(answer(stream, &manner).await) });
        }
    })
}

/// Answers what comes over one connection, one request after the other.
async fn answer(mut stream: TcpStream, manner: &Manner) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut request = Vec::with_capacity(2048);
    loop {
        while !is_whole(&request) {
            if stream.read_buf(&mut request).await? == 0 {
                return Ok(());
            }
        }
        let call = manner.calls.fetch_add(1, Ordering::Relaxed);
        let place = request.windows(MARK.len()).rposition(|window| window == MARK).context("no key")? + MARK.len();
        let key = std::str::from_utf8(request.get(place..place + DIGITS).context("half a key")?)?;
        let lifetime = manner.lifetime.load(Ordering::Relaxed);
        // No two are the same: one that comes again is taken for a refresh that failed.
        let mut token = token(key);
        token.replace_range(TOKEN - SERIAL.., &format!("{call:0SERIAL$}"));
        let body = format!(r#"{{"access_token":"{token}","token_type":"Bearer","expires_in":{lifetime}}}"#);
        let length = body.len();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n");
        match manner.delay.load(Ordering::Relaxed) {
            0 => {}
            delay => sleep(Duration::from_millis(delay)).await,
        }
        stream.write_all(format!("{head}{body}").as_bytes()).await?;
        *manner.answered.lock().unwrap_or_else(PoisonError::into_inner) = Some(now());
        request.clear();
    }
}

/// Whether a request has come to its end, by its `content-length`.
fn is_whole(request: &[u8]) -> bool {
    let Some(head) = request.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
    let text = String::from_utf8_lossy(&request[..head]);
    let lengths = text.lines().filter_map(|line| line.split_once(':'));
    let length = lengths
        .filter(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .find_map(|(_, value)| value.trim().parse::<usize>().ok());
    request.len() >= head + 4 + length.unwrap_or(0)
}
