//! `tokencache replicas`.

use std::time::SystemTime;

use serde_json::{Value, json};
use tokencache_client::ReplicaStatus;

use crate::{
    args::{Format, Replicas},
    broker::Broker,
    failure::Failure,
    output::{Output, json_time, now, relative_or_dash, span, table},
};

pub(crate) async fn run(broker: &Broker, replicas: &Replicas, output: &mut Output) -> Result<(), Failure> {
    let found = broker.call_admin(async |client| client.list_replicas().await).await?;
    match replicas.output {
        Format::Json => output.json(&json!({ "replicas": found.iter().map(to_json).collect::<Vec<_>>() })),
        Format::Text if found.is_empty() => output.write("no replica is known\n"),
        Format::Text => output.write(&to_table(&found, now())),
    }
}

fn to_table(replicas: &[ReplicaStatus], now: SystemTime) -> String {
    let row = |replica: &ReplicaStatus| {
        let lease = replica.lease_remaining;
        [
            if replica.answering { format!("{} (answers)", replica.id) } else { replica.id.clone() },
            replica.version.clone(),
            relative_or_dash(replica.started_at, now),
            if lease.is_zero() { "lapsed: it serves degraded".into() } else { format!("for {}", span(lease)) },
            replica.applied_event.to_string(),
            replica.missing_events.len().to_string(),
        ]
    };
    table(Some(["REPLICA", "VERSION", "STARTED", "IN TOUCH", "APPLIED EVENT", "MISSING"]), replicas.iter().map(row))
}

fn to_json(replica: &ReplicaStatus) -> Value {
    json!({
        "id": replica.id,
        "version": replica.version,
        "started_at": json_time(replica.started_at),
        "lease_remaining_ms": u64::try_from(replica.lease_remaining.as_millis()).unwrap_or(u64::MAX),
        "applied_event": replica.applied_event,
        "missing_events": replica.missing_events,
        "answering": replica.answering,
    })
}
