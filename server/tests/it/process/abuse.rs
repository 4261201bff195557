//! HTTP/2 made to hurt, by hand-written frames: what a hostile peer sends costs the broker little memory and the honest
//! callers little time.
//!
//! The short run is part of the tests and looks at memory and life alone. The long one, 30 s for each attack, tells the
//! honest callers' 99th percentile as well: `cargo test --workspace --test it -- --ignored --nocapture process::abuse`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tempfile::TempDir;
use tokencache_client::{Client, GetToken};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{Daemon, FREE_PORTS};

/// The most memory that an attack may cost, in KiB.
const MAX_GROWTH: u64 = 64 * 1024;

/// Hostile connections at a time.
const ATTACKERS: usize = 8;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A frame (RFC 9113 section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// A field that is spelt out and not remembered (RFC 7541 section 6.2.2); names and values are short.
fn field(name: &str, value: &str) -> Vec<u8> {
    let mut field = vec![0, u8::try_from(name.len()).expect("short")];
    field.extend_from_slice(name.as_bytes());
    field.push(u8::try_from(value.len()).expect("short"));
    field.extend_from_slice(value.as_bytes());
    field
}

/// The headers of a `GetToken`.
fn call() -> Vec<u8> {
    // `:method: POST` and `:scheme: http` of the static table.
    let mut block = vec![0x83, 0x86];
    block.extend(field(":path", "/tokencache.v1.TokenService/GetToken"));
    block.extend(field(":authority", "x"));
    block.extend(field("content-type", "application/grpc"));
    block.extend(field("te", "trailers"));
    block
}

/// A way to hurt.
#[derive(Clone, Copy, Debug)]
enum Attack {
    /// Streams that are reset as soon as they are open (CVE-2023-44487).
    RapidReset,
    /// Headers that never end (CVE-2024-27316).
    Continuation,
    /// Settings without end, whose acknowledgements nobody reads (CVE-2019-9515).
    Settings,
    /// Pings without end, whose answers nobody reads (CVE-2019-9512).
    Ping,
    /// Calls whose answers may not be sent, for there is no window (CVE-2019-9517).
    ZeroWindow,
    /// A message byte by byte.
    OneByteData,
    /// A remembered header that is repeated by an index of one byte (CVE-2016-6581).
    HeaderBomb,
    /// Connections on which nothing is said.
    Idle,
}

impl Attack {
    const ALL: [Self; 8] = [
        Self::RapidReset,
        Self::Continuation,
        Self::Settings,
        Self::Ping,
        Self::ZeroWindow,
        Self::OneByteData,
        Self::HeaderBomb,
        Self::Idle,
    ];

    /// Whether the peer reads what comes back.
    fn reads(self) -> bool {
        !matches!(self, Self::Settings | Self::Ping)
    }

    /// What a connection begins with.
    fn opening(self) -> Vec<u8> {
        let window = [0, 4, 0, 0, 0, 0];
        let settings: &[u8] = if matches!(self, Self::ZeroWindow) { &window } else { &[] };
        let mut bytes = [PREFACE, &frame(SETTINGS, 0, 0, settings)].concat();
        match self {
            Self::Continuation => bytes.extend(frame(HEADERS, 0, 1, &call())),
            Self::OneByteData => bytes.extend(frame(HEADERS, END_HEADERS, 1, &call())),
            Self::HeaderBomb => {
                // 4,000 bytes that are remembered under the first dynamic index (RFC 7541 section 6.2.1).
                let mut block = call();
                block.extend([0x40, 1, b'b', 0x7f, 0xa1, 0x1e]);
                block.extend([b'x'; 4000]);
                bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block));
            }
            _ => {}
        }
        bytes
    }

    /// What is sent again and again; `turn` counts from 0.
    fn burst(self, turn: u32) -> Vec<u8> {
        let streams = |count: u32| (0..count).map(move |i| 3 + 2 * (turn * count + i));
        match self {
            Self::RapidReset => streams(50)
                .flat_map(|stream| {
                    let open = frame(HEADERS, END_HEADERS | END_STREAM, stream, &call());
                    [open, frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
                })
                .collect(),
            Self::Continuation => frame(CONTINUATION, 0, 1, &field("a", &"x".repeat(120)).repeat(100)),
            Self::Settings => frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff]).repeat(100),
            Self::Ping => frame(PING, 0, 0, b"12345678").repeat(100),
            Self::ZeroWindow => streams(10)
                .flat_map(|stream| {
                    let open = frame(HEADERS, END_HEADERS, stream, &call());
                    // `credential: "static"`.
                    [open, frame(DATA, END_STREAM, stream, b"\0\0\0\0\x08\x0a\x06static")].concat()
                })
                .collect(),
            Self::OneByteData => frame(DATA, 0, 1, b"\0").repeat(100),
            Self::HeaderBomb => streams(5)
                .flat_map(|stream| {
                    let block = [call(), vec![0x80 | 62; 2000]].concat();
                    frame(HEADERS, END_HEADERS | END_STREAM, stream, &block)
                })
                .collect(),
            Self::Idle => vec![],
        }
    }
}

/// Attacks until it is told to stop, over one connection after the other.
async fn attack(kind: Attack, address: String, stop: Arc<AtomicBool>, sent: Arc<AtomicU64>) {
    while !stop.load(Ordering::Relaxed) {
        let Ok(stream) = TcpStream::connect(&address).await else { continue };
        let (mut read, mut write) = stream.into_split();
        let reader = tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while kind.reads() && read.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
            // Who does not read keeps its side open all the same.
            std::future::pending::<()>().await;
        });
        let talking = async {
            if !matches!(kind, Attack::Idle) {
                write.write_all(&kind.opening()).await?;
            }
            for turn in 0..1_000_000 {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let burst = kind.burst(turn);
                if burst.is_empty() {
                    sleep(Duration::from_millis(200)).await;
                } else {
                    write.write_all(&burst).await?;
                }
                sent.fetch_add(1, Ordering::Relaxed);
            }
            std::io::Result::Ok(())
        };
        // A peer that is not read from any more is let go after a while.
        let _ = timeout(Duration::from_secs(2), talking).await;
        reader.abort();
    }
}

/// The resident memory of a process, in KiB.
fn memory(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// The same on a thread of its own, so that the attackers' work is not taken for the broker's.
async fn honest_apart(address: &str, time: Duration) -> Duration {
    let endpoint = format!("http://{address}");
    let calling = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let client = Client::builder().endpoint(endpoint).build().expect("a valid endpoint");
            honest(&client, time).await
        })
    });
    calling.await.expect("no call failed")
}

/// The 99th percentile of honest calls over `time`, one after the other; each must succeed.
async fn honest(client: &Client, time: Duration) -> Duration {
    let (end, mut took) = (Instant::now() + time, Vec::new());
    while Instant::now() < end {
        let begun = Instant::now();
        client.get_token(GetToken::of("static")).await.expect("an honest call succeeds");
        took.push(begun.elapsed());
    }
    took.sort_unstable();
    took[took.len() * 99 / 100]
}

/// Hurts a broker in one way for `time`. Returns the honest callers' percentile before and meanwhile, and the growth.
async fn hurt(daemon: &mut Daemon, kind: Attack, time: Duration) -> (Duration, Duration, u64) {
    let (address, process) = (daemon.client_address(), daemon.id());
    let quiet = honest_apart(&address, time.min(Duration::from_secs(5))).await;
    let before = memory(process);
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut attackers = JoinSet::new();
    for _ in 0..ATTACKERS {
        attackers.spawn(attack(kind, address.clone(), Arc::clone(&stop), Arc::clone(&sent)));
    }
    let meanwhile = honest_apart(&address, time).await;
    let growth = memory(process).saturating_sub(before);
    stop.store(true, Ordering::Relaxed);
    attackers.join_all().await;
    assert!(sent.load(Ordering::Relaxed) > 0, "{kind:?} was sent");
    (quiet, meanwhile, growth)
}

async fn broker(directory: &TempDir) -> Daemon {
    let credential = "[credentials.static]\nprovider = \"fixed\"\ntoken = { command = [\"echo\", \"t0k3n\"] }\n";
    let configuration = format!("{FREE_PORTS}[audit]\nsinks = [\"memory\"]\n[store]\nurl = \"memory:\"\n{credential}");
    Daemon::serve(directory.path(), &configuration).await
}

#[tokio::test]
async fn what_a_hostile_peer_sends_costs_little_memory_and_no_honest_call() {
    let directory = TempDir::new().expect("a directory");
    let mut daemon = broker(&directory).await;
    for kind in Attack::ALL {
        let (_, _, growth) = hurt(&mut daemon, kind, Duration::from_millis(1500)).await;
        assert!(growth < MAX_GROWTH, "{kind:?} cost {growth} KiB");
    }
    assert!(!daemon.stderr().contains("panicked"), "no handler panicked");
    assert_eq!(daemon.stop().await.code(), Some(0));
}

#[tokio::test]
#[ignore = "half a minute for each attack"]
#[expect(clippy::print_stdout, reason = "the figures are what it is run for")]
async fn half_a_minute_of_each_attack_costs_little_memory_and_no_honest_call() {
    let directory = TempDir::new().expect("a directory");
    let mut daemon = broker(&directory).await;
    for kind in Attack::ALL {
        let (quiet, meanwhile, growth) = hurt(&mut daemon, kind, Duration::from_secs(30)).await;
        let ratio = meanwhile.as_secs_f64() / quiet.as_secs_f64();
        println!("{kind:?}: p99 {quiet:?} before, {meanwhile:?} meanwhile ({ratio:.2}x), {growth} KiB more");
        assert!(growth < MAX_GROWTH, "{kind:?} cost {growth} KiB");
    }
    assert!(!daemon.stderr().contains("panicked"), "no handler panicked");
    assert_eq!(daemon.stop().await.code(), Some(0));
}
