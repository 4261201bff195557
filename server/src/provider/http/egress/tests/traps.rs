//! Listeners that count who comes, and a resolver that answers what a test wants.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::provider::http::testing::Lookup;

/// Where the traps are. The second is what a test allows where it allows something.
pub(crate) const PLACES: [&str; 3] = ["127.0.0.1", "127.0.0.2", "::1"];

/// Listeners at several loopback addresses and the same port. Each answers a request as it was told to.
pub(crate) struct Traps {
    pub(crate) port: u16,
    counts: Vec<(IpAddr, Arc<AtomicUsize>)>,
    _tasks: JoinSet<()>,
}

impl Traps {
    /// Sets them. A machine without IPv6 has none at `::1`, where nobody could come.
    pub(crate) async fn set(reply: &str) -> Self {
        loop {
            // Somebody else may have the port at one of the addresses.
            if let Ok(traps) = Self::try_set(reply).await {
                return traps;
            }
        }
    }

    async fn try_set(reply: &str) -> io::Result<Self> {
        let (mut tasks, mut counts, mut port) = (JoinSet::new(), vec![], 0);
        for place in PLACES {
            let address: IpAddr = place.parse().expect("an address");
            let listener = match TcpListener::bind((address, port)).await {
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable && address.is_ipv6() => continue,
                bound => bound?,
            };
            port = listener.local_addr()?.port();
            let count = Arc::new(AtomicUsize::new(0));
            counts.push((address, Arc::clone(&count)));
            tasks.spawn(serve(listener, count, reply.replace("{p}", &port.to_string())));
        }
        Ok(Self { port, counts, _tasks: tasks })
    }

    /// A URL with `{p}` for the port.
    pub(crate) fn url(&self, text: &str) -> String {
        text.replace("{p}", &self.port.to_string())
    }

    /// How many connections there have been at a place, of those that were begun before this.
    ///
    /// They are accepted in their order, so one more that was answered has all of them counted.
    pub(crate) async fn connections(&self, place: &str) -> usize {
        let address: IpAddr = place.parse().expect("an address");
        let Some((_, count)) = self.counts.iter().find(|(there, _)| *there == address) else { return 0 };
        let mut last = TcpStream::connect((address, self.port)).await.expect("it listens");
        last.write_all(b"x\r\n\r\n").await.expect("it reads");
        last.read_to_end(&mut Vec::new()).await.expect("it answers");
        count.fetch_sub(1, Ordering::SeqCst) - 1
    }

    /// How many there have been anywhere.
    pub(crate) async fn total(&self) -> usize {
        let mut total = 0;
        for place in PLACES {
            total += self.connections(place).await;
        }
        total
    }
}

async fn serve(listener: TcpListener, count: Arc<AtomicUsize>, reply: String) {
    let mut connections = JoinSet::new();
    while let Ok((mut stream, _)) = listener.accept().await {
        count.fetch_add(1, Ordering::SeqCst);
        let reply = reply.clone();
        connections.spawn(async move {
            let mut head = Vec::new();
            while !head.windows(4).any(|end| end == b"\r\n\r\n")
                && stream.read_buf(&mut head).await.is_ok_and(|n| n > 0)
            {}
            // Whoever went away early has been counted.
            let _ = stream.write_all(reply.as_bytes()).await;
        });
    }
}

/// The n-th question for a name gets its n-th answer, and all later ones the last. Other names do not exist.
#[derive(Debug, Default)]
pub(crate) struct FakeDns {
    answers: HashMap<String, Vec<Vec<SocketAddr>>>,
    asked: Mutex<HashMap<String, usize>>,
}

impl FakeDns {
    /// With one more name.
    pub(crate) fn with(mut self, name: &str, answers: &[&[&str]]) -> Self {
        let address = |text: &&str| match text.split_once('%') {
            None => SocketAddr::new(text.parse().expect("an address"), 0),
            Some(_) => format!("[{text}]:0").parse().expect("an address with a scope"),
        };
        let answers = answers.iter().map(|answer| answer.iter().map(address).collect()).collect();
        self.answers.insert(name.to_owned(), answers);
        self
    }

    /// How often a name was asked for.
    pub(crate) fn asked(&self, name: &str) -> usize {
        self.asked.lock().expect("no panic").get(name).copied().unwrap_or_default()
    }
}

#[async_trait]
impl Lookup for FakeDns {
    async fn lookup(&self, name: &str) -> io::Result<Vec<SocketAddr>> {
        let mut asked = self.asked.lock().expect("no panic");
        let turn = asked.entry(name.to_owned()).or_default();
        let answers = self.answers.get(name).ok_or_else(|| io::Error::other("no such name"))?;
        let answer = answers.get(*turn).or(answers.last()).cloned().unwrap_or_default();
        *turn += 1;
        Ok(answer)
    }
}
