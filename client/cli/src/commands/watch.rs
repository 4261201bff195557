//! `tokencache watch`.

use std::time::SystemTime;

use serde_json::{Value, json};
use tokencache_client::{TokenEvent, TokenUpdate};

use crate::{
    args::{Format, Watch},
    broker::Broker,
    failure::{Failure, next_step},
    output::{Output, json_time, now, relative, rfc3339},
};

pub(crate) async fn run(broker: &Broker, watch: &Watch, output: &mut Output) -> Result<(), Failure> {
    let selectors = watch.names.iter().map(|name| watch.ask.of(name));
    let mut events = broker.call(async |client| client.watch(selectors).await).await?;
    while let Some(event) = events.next().await {
        let event = event.map_err(|error| broker.failure(error))?;
        match watch.output {
            Format::Text => output.write(&to_line(&event, now()))?,
            Format::Json => output.json_line(&to_json(&event, now(), watch.show_token))?,
        }
    }
    Err(Failure::WatchEnded)
}

fn to_line(event: &TokenEvent, now: SystemTime) -> String {
    let what = match &event.update {
        TokenUpdate::Token(token) => {
            let expiry = relative(token.expires_at, now);
            format!("token generation={} fingerprint={} expires {expiry}", token.generation, token.fingerprint)
        }
        TokenUpdate::Invalidated { min_generation } => {
            format!("invalidated: generations below {min_generation} are refused by the upstream")
        }
        TokenUpdate::Unavailable(error) => {
            let reason = error.reason().map(|reason| format!(" ({reason})")).unwrap_or_default();
            let step = next_step(error).map(|step| format!("; {step}")).unwrap_or_default();
            format!("unavailable: {error}{reason}{step}")
        }
        _ => "an event that this program does not know".to_owned(),
    };
    format!("{} {} {what}\n", rfc3339(now), event.selector.credential())
}

fn to_json(event: &TokenEvent, now: SystemTime, show_token: bool) -> Value {
    let mut object = json!({ "time": rfc3339(now), "credential": event.selector.credential() });
    let details = match &event.update {
        TokenUpdate::Token(token) => json!({
            "event": "token",
            "generation": token.generation,
            "fingerprint": token.fingerprint,
            "token_type": token.token_type,
            "expires_at": json_time(Some(token.expires_at)),
            "access_token": show_token.then(|| token.access_token.expose()),
        }),
        TokenUpdate::Invalidated { min_generation } => {
            json!({ "event": "invalidated", "min_generation": min_generation })
        }
        TokenUpdate::Unavailable(error) => json!({
            "event": "unavailable",
            "reason": error.reason(),
            "message": error.to_string(),
            "retry_after_ms": error.retry_after().map(|delay| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)),
        }),
        _ => json!({ "event": "unknown" }),
    };
    if let (Value::Object(object), Value::Object(details)) = (&mut object, details) {
        object.extend(details.into_iter().filter(|(key, value)| key != "access_token" || !value.is_null()));
    }
    object
}
