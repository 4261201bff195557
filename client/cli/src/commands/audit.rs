//! `tokencache audit`.

use tokencache_client::{AuditEvent, AuditFilter};

use crate::{
    args::{Audit, AuditCommand, AuditList, AuditTail, Format, Wanted},
    broker::Broker,
    failure::Failure,
    output::{Output, now, rfc3339},
};

/// How many events are asked for at once.
const PAGE: u32 = 1000;

pub(crate) async fn run(broker: &Broker, audit: &Audit, output: &mut Output) -> Result<(), Failure> {
    match &audit.command {
        AuditCommand::List(list) => self::list(broker, list, output).await,
        AuditCommand::Tail(tail) => self::tail(broker, tail, output).await,
    }
}

async fn list(broker: &Broker, list: &AuditList, output: &mut Output) -> Result<(), Failure> {
    let (filter, mut left, mut page_token) = (filter(&list.wanted), list.limit, String::new());
    while left > 0 {
        let size = u32::try_from(left).unwrap_or(PAGE).min(PAGE);
        let ask = async |client: tokencache_client::AdminClient| {
            client.list_audit_events(filter.clone(), size, &page_token).await
        };
        let page = broker.call_admin(ask).await?;
        for event in page.events.iter().take(left) {
            show(event, list.wanted.output, output)?;
        }
        left = left.saturating_sub(page.events.len());
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    Ok(())
}

async fn tail(broker: &Broker, tail: &AuditTail, output: &mut Output) -> Result<(), Failure> {
    let filter = filter(&tail.wanted);
    let mut events = broker.call_admin(async |client| client.tail_audit_events(filter.clone()).await).await?;
    while let Some(event) = events.next().await {
        show(&event.map_err(|error| broker.failure(error))?, tail.wanted.output, output)?;
    }
    Err(Failure::WatchEnded)
}

fn filter(wanted: &Wanted) -> AuditFilter {
    let mut filter = AuditFilter::default();
    filter.since = wanted.since.and_then(|since| now().checked_sub(since));
    filter.subject = wanted.subject.clone();
    filter.credential = wanted.credential.clone();
    filter.kind = wanted.kind.clone();
    filter
}

fn show(event: &AuditEvent, format: Format, output: &mut Output) -> Result<(), Failure> {
    match format {
        Format::Text => output.write(&to_line(event)),
        // As it was recorded, so that its place in the chain is not lost.
        Format::Json => output.write(&format!("{}\n", event.line)),
    }
}

/// What is known, and nothing of what is not.
fn to_line(event: &AuditEvent) -> String {
    let number = |number: u64| if number == 0 { String::new() } else { number.to_string() };
    let credential = event.selector.as_ref().map(|selector| selector.credential().to_owned()).unwrap_or_default();
    let details = [
        ("subject", event.subject.clone()),
        ("peer", event.peer.clone()),
        ("credential", credential),
        ("rpc", event.rpc.clone()),
        ("generation", number(event.generation)),
        ("fingerprint", event.fingerprint.clone()),
        ("reason", event.reason.clone()),
        ("grant", event.grant.clone()),
        ("http_status", number(event.http_status.into())),
        ("count", number(event.count)),
        ("trace", event.trace_id.clone()),
    ];
    let told = details.iter().filter(|(_, text)| !text.is_empty());
    // A subject is somebody else's text: nothing in it may look like another line.
    let told: String = told.map(|(name, text)| format!(" {name}={}", text.escape_debug())).collect();
    let time = event.time.map(rfc3339).unwrap_or_default();
    format!("{time} {} {} {}{told}\n", event.replica, event.kind, event.outcome)
}
