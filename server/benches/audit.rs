//! What an audit event costs a call: `cargo bench -p tokencache-server --bench audit`.
//!
//! Callers record events of cache hits to a file, as many at once as a busy broker has calls in flight. What is told is the
//! time of the machine for each event, and the processor's, of all threads together.

use std::{fs, io::Write as _, path::Path, sync::Arc, time::Duration};

use tempfile::TempDir;
use tokencache_server::{
    audit::{Actor, AuditEvent, AuditLog, AuditSettings, Kind, Makings, Reason, Rpc},
    metrics::AuditMetrics,
    store::{MemoryTokenStore, SharedStore},
    time::{SharedClock, SystemClock},
    types::{Caller, CredentialName, Fingerprint, Generation, Peer, ReplicaId, Selector, TokenKey},
};
use tokio::{runtime::Runtime, time::Instant};

/// How many events there are in a round.
const EVENTS: usize = 200_000;

/// How many callers wait at once.
const CALLERS: [usize; 4] = [1, 16, 128, 1024];

fn hit() -> AuditEvent {
    let credential = CredentialName::parse("github-ci").expect("a valid name");
    let selector = Selector::new(credential, vec!["repo".into()], None, vec![]);
    AuditEvent {
        rpc: Some(Rpc::GetToken),
        actor: Some(Actor::new(
            Caller::new("spiffe://corp.example/ns/ci/sa/runner"),
            Peer::Tcp(([127, 0, 0, 1], 40000).into()),
        )),
        key: Some(TokenKey::new(selector)),
        generation: Some(Generation::new(7)),
        fingerprint: Some(Fingerprint::of_bytes(b"token")),
        reason: Some(Reason::Hit),
        ..AuditEvent::new(Kind::TokenIssued)
    }
}

fn open(file: Option<&Path>) -> (AuditLog, tokencache_server::audit::Writers) {
    let clock: SharedClock = Arc::new(SystemClock);
    let store: SharedStore = Arc::new(MemoryTokenStore::new(Arc::clone(&clock)));
    let settings = AuditSettings { file: file.map(Path::to_owned), ..AuditSettings::memory() };
    let (chain, replica, metrics) = ([7; 16], ReplicaId::new("bench"), AuditMetrics::default());
    let (log, _, writers) =
        AuditLog::open(&settings, Makings { clock, chain, replica, store, metrics }).expect("a file");
    (log, writers)
}

/// What the process has used of the processor, in all threads.
fn processor_time() -> Duration {
    let text = fs::read_to_string("/proc/self/stat").expect("Linux");
    // After the name, which may have spaces: fields 14 and 15, in ticks of 10 ms.
    let fields: Vec<_> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |i: usize| fields[i].parse::<u64>().expect("a number");
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

fn round(runtime: &Runtime, callers: usize, file: Option<&Path>) -> (f64, f64) {
    let (log, writers) = open(file);
    runtime.block_on(async move {
        let running = writers.start().expect("a thread");
        let (begun, used) = (Instant::now(), processor_time());
        let tasks: Vec<_> = (0..callers)
            .map(|_| {
                let log = log.clone();
                tokio::spawn(async move {
                    let event = hit();
                    for _ in 0..EVENTS / callers {
                        log.record(event.clone()).await.expect("it is written");
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("no panic");
        }
        let (took, used) = (begun.elapsed(), processor_time() - used);
        running.stop(Duration::from_secs(10)).await;
        let each = |time: Duration| time.as_secs_f64() * 1e6 / EVENTS as f64;
        (each(took), each(used))
    })
}

fn main() {
    let runtime = Runtime::new().expect("a runtime");
    let directory = TempDir::new().expect("a directory");
    let mut out = std::io::stdout();
    for callers in CALLERS {
        let file = directory.path().join(format!("{callers}.jsonl"));
        for (name, file) in [("file", Some(file.as_path())), ("memory", None)] {
            let (took, used) = round(&runtime, callers, file);
            writeln!(out, "{name:6}  {callers:4} callers  {took:6.2} us an event, {used:6.2} us of the processor")
                .expect("somebody reads it");
        }
    }
}
