//! Ten thousand watchers: what each costs in memory, how soon the last hears of a replacement, and whether a burst loses any.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use prost::Message as _;
use tokencache_proto::v1::{
    RefreshTokenRequest, TokenSelector, WatchTokensRequest, admin_service_client::AdminServiceClient,
};
use tokio::{runtime::Runtime, task::JoinSet};

use super::Findings;
use crate::{
    contenders::{Contender, Host, Name, Tokencached},
    figures::Spread,
    load::{Keys, Pace, Plan, Watchers},
    talk::{Http2, http2::Calls},
};

const WATCH: &str = "/tokencache.v1.TokenService/WatchTokens";

/// Streams of each connection.
const STREAMS: usize = 100;

/// Replacements of a burst, each of another credential.
const BURST: u32 = 50;

/// Between two replacements of one token the broker lets a second pass.
const PAUSE: Duration = Duration::from_millis(1100);

const PATIENCE: Duration = Duration::from_secs(60);

/// How long one message too many is waited for.
const SILENCE: Duration = Duration::from_millis(300);

/// Measures with so many streams.
pub(super) fn measure(host: &Host, streams: usize, rounds: usize, findings: &mut Findings) -> Result<()> {
    let setup = Tokencached { credentials: BURST, ..Tokencached::open("watch") };
    let (broker, admin) = setup.start_with_admin(host, Name::Tokencached)?;
    broker.serving()?;
    broker.ask_all(BURST)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let admin = format!("http://{admin}");

    // A few first, so that what the first of all costs is not counted.
    let calls = watch(1);
    let first = plan(&broker, 1);
    let _first = open(&first, &calls, STREAMS as u64)?;
    let before = broker.family.memory();
    let plan = plan(&broker, streams / STREAMS);
    let mut watchers = open(&plan, &calls, streams as u64)?;
    findings.per_watch = Some(broker.family.memory().saturating_sub(before) as f64 / streams as f64);
    println!("{:.0} bytes for each of {streams} watches", findings.per_watch.unwrap_or_default());

    let mut last = vec![];
    for round in 0..rounds {
        std::thread::sleep(PAUSE);
        let refreshes = refresh(&runtime, &admin, 1);
        let arrived = watchers.wait_for(streams as u64, PATIENCE, SILENCE)?;
        runtime.block_on(refreshes).context("nothing was replaced")?;
        ensure!(arrived.messages == streams as u64, "{} of {streams} watchers heard of it", arrived.messages);
        let answered = host.upstream.answered().context("the upstream was not asked")?;
        last.push(millis(arrived.last, answered));
        println!(
            "round {}: the first after {:.1} ms, the last after {:.1} ms",
            round + 1,
            millis(arrived.first, answered),
            millis(arrived.last, answered)
        );
    }
    findings.fan_out = Spread::of(last);
    drop(watchers);
    burst(host, &broker, &runtime, &admin, streams, findings)
}

/// All watchers watch all credentials of the burst, which are replaced at once.
fn burst(
    host: &Host,
    broker: &Contender,
    runtime: &Runtime,
    admin: &str,
    streams: usize,
    findings: &mut Findings,
) -> Result<()> {
    let wanted = streams as u64 * u64::from(BURST);
    let plan = plan(broker, streams / STREAMS);
    let mut watchers = open(&plan, &watch(BURST), wanted)?;
    std::thread::sleep(PAUSE);
    let before = host.upstream.calls();
    let refreshes = refresh(runtime, admin, BURST);
    let arrived = watchers.wait_for(wanted, PATIENCE, SILENCE)?;
    runtime.block_on(refreshes)?;
    let replaced = host.upstream.calls() - before;
    ensure!(replaced == u64::from(BURST), "{replaced} tokens were replaced");
    findings.burst = Some((arrived.messages, wanted));
    println!("of a burst of {BURST}, {} of {wanted} messages arrived", arrived.messages);
    Ok(())
}

fn millis(later: Instant, earlier: Instant) -> f64 {
    later.saturating_duration_since(earlier).as_secs_f64() * 1e3
}

/// A watch of the first so many credentials.
fn watch(count: u32) -> Calls {
    let selectors = (0..count).map(|key| TokenSelector { credential: format!("k{key:08}"), ..Default::default() });
    let request = WatchTokensRequest { selectors: selectors.collect() };
    Calls::grpc("http", WATCH, &request.encode_to_vec(), None).streaming()
}

fn plan(broker: &Contender, connections: usize) -> Plan {
    broker.plan(connections, STREAMS, Pace::Once, Keys::warm(1))
}

/// Opens the streams of a plan, and waits for their first messages.
fn open<'a>(plan: &'a Plan, calls: &Calls, first: u64) -> Result<Watchers<'a, Http2>> {
    let mut watchers = Watchers::open(plan, |slots| Http2::new(calls, slots))?;
    let arrived = watchers.wait_for(first, PATIENCE, SILENCE)?;
    ensure!(arrived.messages == first, "{} messages came instead of {first}", arrived.messages);
    Ok(watchers)
}

/// Has the first so many credentials replaced at once.
fn refresh(runtime: &Runtime, admin: &str, count: u32) -> impl Future<Output = Result<()>> + use<> {
    let admin = admin.to_owned();
    let all = runtime.spawn(async move {
        let client = AdminServiceClient::connect(admin).await?;
        let mut calls = JoinSet::new();
        for key in 0..count {
            let mut client = client.clone();
            let request = RefreshTokenRequest { credential: format!("k{key:08}"), ..Default::default() };
            calls.spawn(async move { client.refresh_token(request).await });
        }
        while let Some(done) = calls.join_next().await {
            done??;
        }
        Ok(())
    });
    async move { all.await? }
}
