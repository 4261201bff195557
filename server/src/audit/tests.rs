//! The log as a whole: what is written, what is waited for, and that every change is found.

use std::{
    fs::{self, File},
    io::Read as _,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::Arc,
    time::Duration,
};

use proptest::prelude::*;
use tempfile::TempDir;
use tokio::time::timeout;

use super::{
    verify::{Report, RowVerifier, Verifier},
    *,
};
use crate::{
    error::{Error, ErrorKind},
    metrics::AuditMetrics,
    store::{AuditFilter, MemoryTokenStore, SharedStore, faulty::FaultyTokenStore},
    time::SystemClock,
    types::{Caller, CredentialName, Fingerprint, Generation, Peer, ReplicaId, Selector, TokenKey},
};

/// How long anything may take that must happen at some time.
const PATIENCE: Duration = Duration::from_secs(60);

fn makings(chain: u8, store: SharedStore, metrics: AuditMetrics) -> Makings {
    Makings { clock: Arc::new(SystemClock), chain: [chain; 16], replica: ReplicaId::new("r"), store, metrics }
}

fn memory_store() -> SharedStore {
    Arc::new(MemoryTokenStore::new(Arc::new(SystemClock)))
}

/// A log that writes.
struct Desk {
    log: AuditLog,
    reader: AuditReader,
    running: Running,
    metrics: AuditMetrics,
}

impl Desk {
    fn over(settings: &AuditSettings, store: SharedStore, chain: u8) -> Self {
        let metrics = AuditMetrics::default();
        let made = AuditLog::open(settings, makings(chain, store, metrics.clone())).expect("a log");
        let (log, reader, writers) = made;
        Self { log, reader, running: writers.start().expect("a thread"), metrics }
    }

    fn to_file(path: &Path, chain: u8) -> Self {
        let settings = AuditSettings { file: Some(path.into()), ..AuditSettings::memory() };
        Self::over(&settings, memory_store(), chain)
    }

    async fn stop(self) {
        self.running.stop(PATIENCE).await;
    }
}

fn issued(generation: u64) -> AuditEvent {
    let credential = CredentialName::parse("crm/prod").expect("a valid name");
    let selector = Selector::new(credential, vec!["a".into(), "b\"\\".into()], Some("é".into()), vec!["urn:r".into()]);
    AuditEvent {
        rpc: Some(Rpc::GetToken),
        actor: Some(Actor::new(Caller::new("spiffe://corp/ci"), Peer::Tcp("[::1]:443".parse().expect("an address")))),
        key: Some(TokenKey::new(selector)),
        generation: Some(Generation::new(generation)),
        fingerprint: Some(Fingerprint::of_bytes(&generation.to_be_bytes())),
        reason: Some(Reason::Hit),
        trace: TraceId::of_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ..AuditEvent::new(Kind::TokenIssued)
    }
}

fn generations(text: &str) -> Vec<u64> {
    text.lines().filter_map(|line| parse(line).expect("a line").generation).collect()
}

fn verified(files: &[&[u8]]) -> Report {
    let mut verifier = Verifier::new(false);
    for (i, file) in files.iter().enumerate() {
        verifier.read(&format!("file{i}"), *file).expect("memory can be read");
    }
    verifier.finish()
}

/// A file of `chains` processes, each of which ended in order.
async fn written(chains: u8, events: u64) -> Vec<u8> {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("audit.jsonl");
    for chain in 1..=chains {
        let desk = Desk::to_file(&path, chain);
        for generation in 0..events {
            desk.log.record(issued(generation)).await.expect("it is written");
        }
        desk.stop().await;
    }
    fs::read(path).unwrap()
}

#[tokio::test]
async fn an_event_is_in_the_file_before_its_answer_leaves() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("audit.jsonl");
    let desk = Desk::to_file(&path, 1);
    for generation in 1..=100 {
        assert_eq!(desk.log.record(issued(generation)).await, Ok(()));
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(generations(&text).last(), Some(&generation), "it is there at once");
    }
    desk.stop().await;
    let text = fs::read_to_string(&path).unwrap();
    let line = parse(text.lines().nth(1).expect("a line")).expect("an event");
    assert_eq!((&*line.subject, &*line.peer, &*line.credential), ("spiffe://corp/ci", "[::1]:443", "crm/prod"));
    assert_eq!((&*line.audience, line.scopes.len(), &*line.outcome), ("é", 2, "OK"));
    assert_eq!(&*line.trace, "4bf92f3577b34da6a3ce929d0e0e4736");
    let report = verified(&[text.as_bytes()]);
    assert!(report.is_spotless(), "{report:?}");
    assert_eq!((report.events, report.chains), (102, 1), "with the beginning and the end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_many_callers_at_once_are_all_written_in_one_chain() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("audit.jsonl");
    let desk = Desk::to_file(&path, 1);
    let callers: Vec<_> = (0..64_u64)
        .map(|caller| {
            let log = desk.log.clone();
            tokio::spawn(async move {
                for i in 0..50 {
                    log.record(issued(caller * 50 + i)).await.expect("it is written");
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.expect("no panic");
    }
    assert_eq!(desk.metrics.lost.get(), 0);
    desk.stop().await;
    let text = fs::read_to_string(&path).unwrap();
    let mut seen = generations(&text);
    seen.sort_unstable();
    assert_eq!(seen, (0..64 * 50).collect::<Vec<_>>());
    assert!(verified(&[text.as_bytes()]).is_spotless());
}

#[tokio::test]
async fn chains_of_one_file_are_joined_across_restarts_and_crashes() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("audit.jsonl");
    fs::write(&path, written(2, 3).await).unwrap();
    // A process that was killed in the middle of a write.
    let whole = fs::read(&path).unwrap();
    let cut = whole.len() - 100;
    fs::write(&path, &whole[..cut]).unwrap();
    let desk = Desk::to_file(&path, 3);
    desk.log.record(issued(1)).await.expect("it is written");
    desk.stop().await;
    let report = verified(&[&fs::read(&path).unwrap()]);
    assert!(report.is_sound() && !report.open, "{report:?}");
    let notes: Vec<_> = report.findings.iter().map(|finding| finding.message.as_str()).collect();
    assert_eq!(notes.len(), 2, "the torn line, and the chain without an end: {notes:?}");
    assert!(notes[0].starts_with("torn by a crash"), "{notes:?}");
}

#[tokio::test]
async fn a_file_that_was_moved_away_is_opened_anew_and_the_chain_goes_on() {
    let directory = TempDir::new().unwrap();
    let (path, moved) = (directory.path().join("audit.jsonl"), directory.path().join("audit.jsonl.1"));
    let desk = Desk::to_file(&path, 1);
    desk.log.record(issued(1)).await.expect("it is written");
    fs::rename(&path, &moved).unwrap();
    desk.log.record(issued(2)).await.expect("it is written to the old one");
    desk.log.reopen();
    desk.log.record(issued(3)).await.expect("it is written to the new one");
    desk.stop().await;
    let (old, new) = (fs::read(&moved).unwrap(), fs::read(&path).unwrap());
    assert_eq!(generations(std::str::from_utf8(&old).unwrap()), [1, 2]);
    assert_eq!(generations(std::str::from_utf8(&new).unwrap()), [3]);
    assert!(verified(&[&old, &new]).is_spotless());
    assert!(!verified(&[&new]).is_sound(), "the older one is missing");
    assert!(!verified(&[&new, &old]).is_sound(), "the wrong order");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn every_change_of_a_file_is_found(change in 0..4, at in any::<prop::sample::Index>(), with in 1..=255_u8) {
        static FILE: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
        let file = FILE.get_or_init(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(written(3, 4))
        });
        prop_assert!(verified(&[file]).is_spotless());
        let mut lines: Vec<_> = file.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        let line = at.index(lines.len());
        match change {
            0 => {
                let mut bytes = file.clone();
                let at = at.index(bytes.len());
                bytes[at] ^= with;
                prop_assert!(!verified(&[&bytes]).is_spotless(), "byte {} of {}", at, bytes.len());
                return Ok(());
            }
            1 => drop(lines.remove(line)),
            2 => {
                let other = (line + 1 + usize::from(with) % (lines.len() - 1)) % lines.len();
                lines.swap(line, other);
            }
            _ => {
                let copy = lines[line].clone();
                lines.insert((line + usize::from(with)) % lines.len(), copy);
            }
        }
        prop_assert!(!verified(&[&lines.concat()]).is_spotless(), "change {} of line {}", change, line);
    }
}

/// Of a file of one chain no byte is left out: a sample could miss the one that matters.
#[tokio::test]
async fn no_byte_can_be_changed_unnoticed() {
    let file = written(1, 2).await;
    for at in 0..file.len() {
        for with in [0x01, 0x20, 0x80] {
            let mut bytes = file.clone();
            bytes[at] ^= with;
            assert!(!verified(&[&bytes]).is_spotless(), "byte {at}, {with:#x}: {:?}", char::from(file[at]));
        }
    }
}

#[tokio::test]
async fn lines_cut_off_the_end_leave_an_open_chain() {
    let file = written(1, 3).await;
    for length in 1..file.len() {
        let report = verified(&[&file[..length]]);
        assert!(!report.is_spotless(), "{length} of {} bytes: {report:?}", file.len());
    }
}

/// A pipe, and its reader, which reads nothing until it is asked to.
fn pipe(directory: &TempDir) -> (PathBuf, File) {
    let path = directory.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&path).status().expect("mkfifo is there");
    assert!(made.success());
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).expect("a flag");
    let reader = File::options().read(true).custom_flags(nonblocking).open(&path).expect("a pipe");
    (path, reader)
}

/// Fills the pipe until a call is refused. Returns how many were answered.
async fn fill(desk: &Desk) -> u64 {
    for generation in 0..100_000 {
        match timeout(PATIENCE, desk.log.record(issued(generation))).await.expect("no call is held up for ever") {
            Ok(()) => {}
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::AuditDown, "{error:?}");
                assert!(error.retry_after().is_some());
                return generation;
            }
        }
    }
    panic!("the pipe takes everything");
}

#[tokio::test]
async fn a_pipe_that_nobody_reads_refuses_calls_and_once_it_is_read_no_event_is_missing() {
    let directory = TempDir::new().unwrap();
    let (path, mut reader) = pipe(&directory);
    let settings = AuditSettings { file: Some(path), timeout: Duration::from_millis(50), ..AuditSettings::memory() };
    let desk = Desk::over(&settings, memory_store(), 1);
    let answered = fill(&desk).await;
    assert!(answered > 0);
    // All that is asked meanwhile is refused, and as many as there are.
    let log = desk.log.clone();
    let calls = (0..1000).map(|_| log.record(issued(7)));
    let refused = futures::future::join_all(calls).await.into_iter().filter(Result::is_err).count();
    assert_eq!(refused, 1000);

    let mut text = Vec::new();
    let read = async {
        loop {
            let mut part = vec![0; 65536];
            match reader.read(&mut part) {
                Ok(length) => text.extend_from_slice(&part[..length]),
                Err(_) => tokio::task::yield_now().await,
            }
            if desk.log.record(issued(99)).await.is_ok() {
                break;
            }
        }
    };
    timeout(PATIENCE, read).await.expect("it is written again");
    desk.stop().await;
    // What is left fits into the pipe.
    let _ = reader.read_to_end(&mut text);
    let text = String::from_utf8(text).unwrap();
    let seen = generations(&text);
    assert_eq!(seen[..usize::try_from(answered).unwrap()], (0..answered).collect::<Vec<_>>());
    assert!(verified(&[text.as_bytes()]).is_spotless());
}

#[tokio::test]
async fn a_full_disk_refuses_calls_where_the_log_is_closed_and_not_where_it_is_open() {
    let settings =
        AuditSettings { file: Some("/dev/full".into()), timeout: Duration::from_millis(50), ..AuditSettings::memory() };
    let desk = Desk::over(&settings, memory_store(), 1);
    let refused = desk.log.record(issued(1)).await;
    assert_eq!(refused.map_err(|error| error.kind()), Err(ErrorKind::AuditDown));
    desk.running.stop(Duration::from_millis(10)).await;

    let desk = Desk::over(&AuditSettings { when_down: WhenDown::Open, ..settings }, memory_store(), 1);
    for generation in 0..20_000 {
        assert_eq!(desk.log.record(issued(generation)).await, Ok(()));
    }
    assert!(desk.metrics.lost.get() >= 20_000 - 2 * 8192 - 1, "{} were counted", desk.metrics.lost.get());
    desk.running.stop(Duration::from_millis(10)).await;
}

#[tokio::test]
async fn what_an_open_log_loses_is_told_once_there_is_room() {
    let directory = TempDir::new().unwrap();
    let (path, mut reader) = pipe(&directory);
    let settings = AuditSettings { file: Some(path), when_down: WhenDown::Open, ..AuditSettings::memory() };
    let desk = Desk::over(&settings, memory_store(), 1);
    while desk.metrics.lost.get() < 10 {
        assert_eq!(desk.log.record(issued(1)).await, Ok(()));
        tokio::task::yield_now().await;
    }
    let (log, lost, written) = (desk.log.clone(), desk.metrics.lost.clone(), desk.metrics.written.clone());
    let read = std::thread::spawn(move || {
        let mut text = Vec::new();
        let mut part = vec![0; 65536];
        loop {
            match reader.read(&mut part) {
                Ok(0) => return text,
                Ok(length) => text.extend_from_slice(&part[..length]),
                Err(_) => std::thread::yield_now(),
            }
        }
    });
    let drained = async {
        let before = written.get();
        while written.get() < before + 8192 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, drained).await.expect("it is written again");
    assert_eq!(log.record(issued(2)).await, Ok(()));
    desk.stop().await;
    let text = String::from_utf8(read.join().expect("no panic")).unwrap();
    let told: u64 =
        text.lines().filter_map(parse).filter(|line| line.kind == Some(Kind::Lost)).filter_map(|line| line.count).sum();
    assert_eq!(told, lost.get());
    assert!(verified(&[text.as_bytes()]).is_spotless(), "what was lost leaves no gap in the chain");
}

#[tokio::test]
async fn events_reach_the_store_before_their_answers_and_a_store_that_is_down_refuses_them() {
    let faulty = Arc::new(FaultyTokenStore::new(memory_store()));
    let store: SharedStore = faulty.clone();
    let settings = AuditSettings { store: true, timeout: Duration::from_millis(200), ..AuditSettings::memory() };
    let desk = Desk::over(&settings, Arc::clone(&store), 1);
    let stored = async || store.audit_events(0, AuditFilter::default(), 1000).await.map(|rows| rows.len());
    desk.log.record(issued(1)).await.expect("it is stored");
    assert_eq!(stored().await, Ok(2));
    assert_eq!(desk.reader.source(), Source::Store);

    faulty.set_down(true);
    let refused: Result<(), Error> = desk.log.record(issued(2)).await;
    assert_eq!(refused.map_err(|error| error.kind()), Err(ErrorKind::AuditDown));
    faulty.set_down(false);
    let again = async { while desk.log.record(issued(3)).await.is_err() {} };
    timeout(PATIENCE, again).await.expect("the store takes events again");
    desk.stop().await;
    let rows = store.audit_events(0, AuditFilter::default(), 1000).await.expect("it answers");
    let mut verifier = RowVerifier::default();
    rows.iter().for_each(|row| verifier.read(row));
    assert!(verifier.finish().is_spotless());

    let mut verifier = RowVerifier::default();
    let other = |row: &crate::store::AuditRow| crate::store::AuditRow { subject: "another".into(), ..row.clone() };
    rows.iter().map(other).for_each(|row| verifier.read(&row));
    assert!(!verifier.finish().is_sound(), "a column was changed");
    let mut verifier = RowVerifier::default();
    rows.iter().filter(|row| row.sequence != 1).for_each(|row| verifier.read(row));
    assert!(!verifier.finish().is_sound(), "a row is gone");
}

#[tokio::test]
async fn whoever_follows_sees_each_event_once_and_in_order() {
    use futures::StreamExt as _;

    for sinks in [AuditSettings::memory(), AuditSettings { store: true, ..AuditSettings::memory() }] {
        let desk = Desk::over(&sinks, memory_store(), 1);
        desk.log.record(issued(1)).await.expect("it is written");
        let filter = AuditFilter { kind: Kind::TokenIssued.as_str().into(), ..AuditFilter::default() };
        let mut tail = Box::pin(desk.reader.tail(filter));
        let log = desk.log.clone();
        let writing = tokio::spawn(async move {
            for generation in 2..=1500 {
                log.record(issued(generation)).await.expect("it is written");
            }
        });
        for generation in 1..=1500 {
            let row = timeout(PATIENCE, tail.next()).await.expect("in time").expect("it does not end").expect("a row");
            assert_eq!(parse(&row.line).expect("a line").generation, Some(generation));
        }
        writing.await.expect("no panic");
        desk.stop().await;
    }
}

#[tokio::test]
async fn a_log_that_has_ended_answers_no_more() {
    let directory = TempDir::new().unwrap();
    let desk = Desk::to_file(&directory.path().join("audit.jsonl"), 1);
    let log = desk.log.clone();
    desk.stop().await;
    assert_eq!(log.record(issued(1)).await.map_err(|error| error.kind()), Err(ErrorKind::AuditDown));
}
