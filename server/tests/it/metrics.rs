//! What is counted, seen as a scraper sees it: of a real broker whose calls, upstream and store do what is counted.

mod deploy;
mod exposition;

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tempfile::TempDir;
use tokencache_client::{GetToken, Rejection};
use tokio::time::timeout;

use self::exposition::Exposition;
use crate::{
    broker::{Broker, Over, Stage, eventually},
    upstream::Fault,
};

/// What a scraper sees now.
async fn scrape(broker: &Broker) -> Exposition {
    let text = broker.http("/metrics").await.text().await.expect("text");
    Exposition::parse(&text).unwrap_or_else(|wrong| panic!("{wrong}\n{text}"))
}

pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the server is in the repository").to_owned()
}

/// A broker of which every metric has been counted at least once, but for those of a fleet and of a store that fails.
async fn driven() -> (Stage, Broker) {
    let stage = Stage::new(Over::Sqlite).await;
    let rules = format!("[endpoints.{:?}]\nfailures_to_open = 1\n", stage.upstream.url());
    let credentials = rules + &stage.credential("ci", "") + &stage.rotating("crm");
    let broker = stage.start(&credentials).await;
    let client = broker.library();
    client.get_token(GetToken::of("ci")).await.expect("a miss");
    client.get_token(GetToken::of("ci")).await.expect("a hit");
    client.get_token(GetToken::of("crm")).await.expect("another miss");
    stage.upstream.always(Some(Fault::status(503)));
    for _ in 0..2 {
        client.get_token(GetToken::of("ci").min_validity(Duration::from_secs(3599))).await.ok();
        client.get_token(GetToken::of(tokencache_client::Selector::new("ci").with_scopes(["x"]))).await.ok();
        client.get_token(GetToken::of(tokencache_client::Selector::new("ci").with_scopes(["y"]))).await.ok();
    }
    (stage, broker)
}

#[tokio::test]
async fn what_is_counted_is_what_happened() {
    let stage = Stage::new(Over::Sqlite).await;
    stage.upstream.issue_for(Duration::from_secs(600));
    let broker = stage.start(&(stage.credential("ci", "") + &stage.credential("down", "timeout = \"5s\"\n"))).await;
    let client = broker.library();
    let held = client.get_token(GetToken::of("ci")).await.expect("a miss");
    for _ in 0..3 {
        client.get_token(GetToken::of("ci")).await.expect("a hit");
    }
    client.get_token(GetToken::of("nobody")).await.expect_err("there is none");
    let seen = scrape(&broker).await;
    for (name, labels, value) in [
        ("tokencache_get_token_duration_seconds_count", &[("result", "hit")][..], 3.0),
        ("tokencache_get_token_duration_seconds_count", &[("result", "miss")], 1.0),
        ("tokencache_get_token_duration_seconds_count", &[("result", "error")], 1.0),
        ("tokencache_hits_total", &[], 3.0),
        ("tokencache_misses_total", &[], 1.0),
        ("tokencache_calls_total", &[("rpc", "GetToken"), ("code", "OK")], 4.0),
        ("tokencache_calls_total", &[("rpc", "GetToken"), ("code", "NOT_FOUND")], 1.0),
        ("tokencache_token_remaining_lifetime_seconds_count", &[], 4.0),
        ("tokencache_token_remaining_lifetime_seconds_bucket", &[("le", "300.0")], 0.0),
        ("tokencache_token_remaining_lifetime_seconds_bucket", &[("le", "600.0")], 4.0),
        ("tokencache_upstream_call_duration_seconds_count", &[("provider", "oauth2"), ("outcome", "ok")], 1.0),
        ("tokencache_store_operation_duration_seconds_count", &[("operation", "commit")], 1.0),
        ("tokencache_tokens", &[], 1.0),
        ("tokencache_credentials", &[], 2.0),
        ("tokencache_flights", &[], 0.0),
        ("tokencache_waiters", &[], 0.0),
        ("tokencache_verified", &[], 1.0),
        ("tokencache_ready", &[], 1.0),
        ("tokencache_replicas", &[("lease", "live")], 1.0),
        ("tokencache_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0),
    ] {
        assert_eq!(seen.value(name, labels), value, "{name} {labels:?}");
    }

    // Replaced ahead, two minutes and a half before its end.
    stage.clock.advance(Duration::from_secs(450));
    client.get_token(GetToken::of("ci")).await.expect("a hit that begins a refresh");
    eventually("it is replaced ahead", async || {
        scrape(&broker).await.value("tokencache_refresh_lead_seconds_count", &[]) == 1.0
    })
    .await;
    let seen = scrape(&broker).await;
    assert_eq!(seen.value("tokencache_refresh_lead_seconds_bucket", &[("le", "120.0")]), 0.0);
    assert_eq!(seen.value("tokencache_refresh_lead_seconds_bucket", &[("le", "300.0")]), 1.0);

    let generation = held.token.expect("it has a token").generation + 1;
    for (invalidated, generation) in [(true, generation), (false, generation - 1)] {
        let report = Rejection::of_generation("ci", generation).http_status(401);
        assert_eq!(client.invalidate(report).await.expect("a report").invalidated, invalidated);
    }
    let seen = scrape(&broker).await;
    assert_eq!(seen.value("tokencache_rejection_reports_total", &[("outcome", "invalidated")]), 1.0);
    assert_eq!(seen.value("tokencache_rejection_reports_total", &[("outcome", "unchanged")]), 1.0);
    assert_eq!(seen.value("tokencache_rejections_total", &[]), 1.0);

    stage.upstream.always(Some(Fault::status(429)));
    client.get_token(GetToken::of("down")).await.expect_err("throttled");
    stage.upstream.always(Some(Fault::refusal("invalid_client")));
    let scoped = tokencache_client::Selector::new("down").with_scopes(["x"]);
    stage.clock.advance(Duration::from_secs(3600));
    client.get_token(GetToken::of(scoped)).await.ok();
    let seen = scrape(&broker).await;
    let upstream = "tokencache_upstream_call_duration_seconds_count";
    assert_eq!(seen.value(upstream, &[("outcome", "throttled")]), 1.0);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_under_way_is_counted_until_it_ends() {
    let stage = Stage::new(Over::Memory).await;
    let broker = stage.start(&stage.credential("ci", "")).await;
    stage.upstream.hold();
    let calls: Vec<_> = (0..5).map(|_| broker.library()).collect();
    let calls = calls.into_iter().map(|client| tokio::spawn(async move { client.get_token(GetToken::of("ci")).await }));
    let calls: Vec<_> = calls.collect();
    eventually("all wait", async || scrape(&broker).await.value("tokencache_waiters", &[]) == 5.0).await;
    let seen = scrape(&broker).await;
    assert_eq!(seen.value("tokencache_flights", &[]), 1.0);
    assert_eq!(seen.value("tokencache_calls_in_progress", &[]), 5.0);
    assert!(seen.value("tokencache_calls_limit", &[]) > 5.0);
    // That of the health check goes away by itself.
    eventually("each has its connection", async || {
        scrape(&broker).await.value("tokencache_connections", &[("listener", "client")]) == 5.0
    })
    .await;
    stage.upstream.release();
    for call in calls {
        call.await.expect("no panic").expect("a token");
    }
    let client = broker.library();
    let mut changes = client.watch(["ci"]).await.expect("a stream");
    timeout(Duration::from_secs(60), changes.next()).await.expect("in time").expect("a change").expect("a token");
    let seen = scrape(&broker).await;
    for (name, value) in [
        ("tokencache_waiters", 0.0),
        ("tokencache_flights", 0.0),
        ("tokencache_calls_in_progress", 0.0),
        ("tokencache_watch_streams", 1.0),
        ("tokencache_watches", 1.0),
    ] {
        assert_eq!(seen.value(name, &[]), value, "{name}");
    }
    drop(changes);
    drop(client);
    eventually("nobody watches", async || {
        let seen = scrape(&broker).await;
        seen.value("tokencache_watch_streams", &[]) == 0.0 && seen.value("tokencache_watches", &[]) == 0.0
    })
    .await;
    broker.stop().await;
}

#[tokio::test]
async fn what_is_shed_is_counted_as_such_and_as_a_call() {
    let stage = Stage::new(Over::Memory).await;
    let tables = format!("[limits]\ncalls_per_second = 1\n{}", stage.credential("ci", ""));
    let broker = stage.start_guarded("insecure_allow_any_caller = true\n", &tables).await;
    let client = broker.library();
    let mut refused = 0.0;
    for _ in 0..5 {
        refused += f64::from(u8::from(client.get_token(GetToken::of("ci")).await.is_err()));
    }
    assert!(refused > 0.0);
    let seen = scrape(&broker).await;
    assert_eq!(seen.value("tokencache_calls_shed_total", &[("reason", "rate")]), refused);
    assert_eq!(seen.value("tokencache_calls_shed_total", &[("reason", "overloaded")]), 0.0);
    let counted = seen.value("tokencache_calls_total", &[("rpc", "GetToken"), ("code", "RESOURCE_EXHAUSTED")]);
    assert_eq!(counted, refused);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_replica_hears_of_another_is_counted() {
    let stage = Stage::new(Over::Postgres).await;
    let text = stage.credential("ci", "");
    let (one, two) = (stage.start_replica("one", &text).await, stage.start_replica("two", &text).await);
    one.library().get_token(GetToken::of("ci")).await.expect("a token");
    let report = Rejection::of_generation("ci", 1).http_status(401);
    assert!(one.library().invalidate(report).await.expect("a report").invalidated);
    let heard = async || {
        let seen = scrape(&two).await;
        let of = |kind| seen.value("tokencache_events_total", &[("kind", kind)]);
        (of("rejected"), of("committed") >= 2.0)
    };
    eventually("it hears of both tokens and of the rejection", async || heard().await == (1.0, true)).await;
    let seen = scrape(&two).await;
    assert!(seen.value("tokencache_event_lag_seconds_count", &[]) >= 3.0);
    assert_eq!(seen.value("tokencache_events_missing", &[]), 0.0);
    assert_eq!(seen.value("tokencache_replicas", &[("lease", "live")]), 2.0, "it came second, and sees both");
    assert_eq!(seen.value("tokencache_verified", &[]), 1.0);
    assert_eq!(seen.value("tokencache_degraded_answers_total", &[]), 0.0);
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn the_process_is_shown_under_the_names_that_all_exporters_use() {
    let stage = Stage::new(Over::Memory).await;
    let broker = stage.start("").await;
    let seen = scrape(&broker).await;
    for name in [
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_virtual_memory_bytes",
        "process_threads",
        "process_open_fds",
        "process_max_fds",
        "process_start_time_seconds",
    ] {
        assert!(seen.value(name, &[]) > 0.0, "{name}");
    }
    assert!(seen.value("process_resident_memory_bytes", &[]) < seen.value("process_virtual_memory_bytes", &[]));
    broker.stop().await;
}

#[tokio::test]
async fn every_metric_is_documented_and_every_documented_metric_exists() {
    let (_stage, broker) = driven().await;
    let counted: BTreeSet<_> = scrape(&broker).await.series().iter().map(|name| base(name).to_owned()).collect();
    let text = fs::read_to_string(repository().join("docs/operations.md")).expect("the document");
    let documented: BTreeSet<_> = documented(&text).into_iter().map(|name| base(&name).to_owned()).collect();
    let undocumented: Vec<_> = counted.difference(&documented).collect();
    let gone: Vec<_> = documented.difference(&counted).collect();
    assert!(undocumented.is_empty() && gone.is_empty(), "not documented: {undocumented:?}; gone: {gone:?}");
    broker.stop().await;
}

/// A histogram has one name in the document.
fn base(name: &str) -> &str {
    ["_bucket", "_count", "_sum"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name)
}

/// The first cells of the tables' rows that name a metric.
fn documented(text: &str) -> Vec<String> {
    let cells = text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let names = cells.map(|(name, _)| name.split('{').next().unwrap_or(name).to_owned());
    names.filter(|name| name.starts_with("tokencache_") || name.starts_with("process_")).collect()
}

#[tokio::test]
#[ignore = "needs promtool"]
async fn prometheus_itself_reads_what_is_shown() {
    let (_stage, broker) = driven().await;
    let text = broker.http("/metrics").await.text().await.expect("text");
    // Its reader of OpenMetrics is at hand only where samples have times.
    let timed = text.lines().map(|line| if line.starts_with('#') { line.into() } else { format!("{line} 1700000000") });
    let timed = timed.collect::<Vec<_>>().join("\n") + "\n";
    let read = |text: &str| {
        let directory = TempDir::new().expect("a directory");
        let file = directory.path().join("metrics");
        fs::File::create(&file).and_then(|mut file| file.write_all(text.as_bytes())).expect("a file");
        let blocks = directory.path().join("blocks");
        let command = ["tsdb", "create-blocks-from", "openmetrics"];
        let done = Command::new("promtool").args(command).arg(&file).arg(&blocks).output().expect("it runs");
        (done.status.success(), String::from_utf8_lossy(&done.stderr).into_owned())
    };
    let (good, complaint) = read(&timed);
    assert!(good, "{complaint}\n{timed}");
    let (good, _) = read(&timed.replace("tokencache_hits_total ", "tokencache_hits_total x"));
    assert!(!good, "it would not find what is wrong");
    broker.stop().await;
}
