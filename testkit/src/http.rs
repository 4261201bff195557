//! A loopback HTTP server that answers with prepared bytes, well-formed or not, and keeps what it was sent.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
    task::{JoinHandle, JoinSet},
};

/// What a request is answered with.
#[derive(Clone, Debug)]
pub enum Reply {
    /// These bytes; then the connection ends.
    Bytes(Vec<u8>),
    /// These bytes; the next request on the connection gets the other reply.
    Then(Vec<u8>, Box<Reply>),
    /// Nothing, for ever.
    Silence,
    /// These bytes, then a space every 10 ms, for ever.
    Drip(Vec<u8>),
}

impl Reply {
    /// A whole answer with a length.
    #[must_use]
    pub fn new(status: u16, headers: &str, body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        let head = format!("HTTP/1.1 {status} x\r\n{headers}content-length: {}\r\n\r\n", body.len());
        Self::Bytes([head.as_bytes(), body].concat())
    }

    /// This one, after which the connection stays open, and another one to the next request on it.
    ///
    /// # Panics
    ///
    /// If this one has no end of its own.
    #[must_use]
    pub fn then(self, next: Self) -> Self {
        match self {
            Self::Bytes(bytes) => Self::Then(bytes, Box::new(next)),
            Self::Then(bytes, inner) => Self::Then(bytes, Box::new(inner.then(next))),
            Self::Silence | Self::Drip(_) => panic!("nothing comes after a reply without an end"),
        }
    }

    /// A whole answer that carries JSON.
    #[must_use]
    pub fn json(status: u16, body: &str) -> Self {
        Self::new(status, "content-type: application/json\r\n", body)
    }
}

/// The server. It ends when it is dropped.
#[derive(Debug)]
pub struct ScriptedServer {
    url: String,
    requests: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl ScriptedServer {
    /// Listens on a free port. The n-th connection gets the n-th reply, and all later ones the last.
    ///
    /// # Errors
    ///
    /// If there is no port.
    pub async fn start(replies: Vec<Reply>) -> std::io::Result<Self> {
        Self::with_own_url(|_| replies).await
    }

    /// The same, with replies that mention the server's own URL.
    ///
    /// # Errors
    ///
    /// If there is no port.
    pub async fn with_own_url(replies: impl FnOnce(&str) -> Vec<Reply>) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let requests = Arc::default();
        let task = tokio::spawn(serve(listener, replies(&url), Arc::clone(&requests)));
        Ok(Self { url, requests, task })
    }

    /// `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The requests so far, whole.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for ScriptedServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A port that refuses connections, and that nobody else is given while this lives.
#[derive(Debug)]
pub struct ClosedPort {
    url: String,
    _bound: TcpSocket,
}

impl ClosedPort {
    /// Takes a free port and does not listen.
    ///
    /// # Errors
    ///
    /// If there is no port.
    pub fn take() -> std::io::Result<Self> {
        let bound = TcpSocket::new_v4()?;
        bound.bind(([127, 0, 0, 1], 0).into())?;
        Ok(Self { url: format!("http://{}", bound.local_addr()?), _bound: bound })
    }

    /// `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

async fn serve(listener: TcpListener, replies: Vec<Reply>, requests: Arc<Mutex<Vec<String>>>) {
    let mut connections = JoinSet::new();
    let mut next = 0;
    while let Ok((stream, _)) = listener.accept().await {
        let reply = replies.get(next).or(replies.last()).cloned().unwrap_or(Reply::Silence);
        next += 1;
        let requests = Arc::clone(&requests);
        // A client that goes away early is part of many a test.
        connections.spawn(async move { drop(answer(stream, reply, &requests).await) });
    }
}

async fn answer(mut stream: TcpStream, mut reply: Reply, requests: &Mutex<Vec<String>>) -> std::io::Result<()> {
    loop {
        let mut received = Vec::new();
        while !is_whole(&received) {
            if stream.read_buf(&mut received).await? == 0 {
                return Ok(());
            }
        }
        requests.lock().unwrap_or_else(PoisonError::into_inner).push(String::from_utf8_lossy(&received).into_owned());
        match reply {
            Reply::Bytes(bytes) => {
                stream.write_all(&bytes).await?;
                return stream.shutdown().await;
            }
            Reply::Then(bytes, next) => {
                stream.write_all(&bytes).await?;
                reply = *next;
            }
            Reply::Silence => std::future::pending().await,
            Reply::Drip(bytes) => {
                stream.write_all(&bytes).await?;
                loop {
                    stream.write_all(b" ").await?;
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        }
    }
}

/// Whether a request has come to its end, by its `content-length`.
fn is_whole(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let lengths = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length = lengths.filter_map(|(_, value)| value.trim().parse::<usize>().ok()).next_back().unwrap_or(0);
    body.len() >= length
}
