//! `tokencache describe`.

use std::time::SystemTime;

use serde_json::{Value, json};
use tokencache_client::{Attempt, CredentialDescription, CredentialState, EndpointStatus, GrantStatus, TokenStatus};

use super::list;
use crate::{
    args::{Describe, Format},
    broker::Broker,
    failure::Failure,
    output::{Output, exact_or_dash, json_time, now, relative_or_dash, span, table, words_or_dash},
};

pub(crate) async fn run(broker: &Broker, describe: &Describe, output: &mut Output) -> Result<(), Failure> {
    let name = &describe.name;
    let description = broker.call_admin(async |client| client.describe_credential(name).await).await?;
    match describe.output {
        Format::Json => output.json(&to_json(&description)),
        Format::Text => output.write(&to_text(&description, now())),
    }
}

fn to_text(description: &CredentialDescription, now: SystemTime) -> String {
    let credential = &description.credential;
    let mut text = format!("{} ({}): {}\n", credential.name, credential.provider, credential.state);
    if !description.explanation.is_empty() {
        text += &format!("{}\n", description.explanation);
    }
    text += &format!("what to do: {}\n", what_to_do(credential.state));
    if let Some(grant) = &description.grant {
        text += &format!("\ngrant\n{}", grant_table(grant, now));
    }
    if let Some(endpoint) = &description.endpoint {
        text += &format!("\nendpoint\n{}", endpoint_table(endpoint, now));
    }
    for (i, token) in description.tokens.iter().enumerate() {
        text += &format!("\ntoken {} of {}\n{}", i + 1, description.tokens.len(), token_table(token, now));
        if !token.attempts.is_empty() {
            text += &format!("\nlast attempts\n{}", attempt_table(&token.attempts, now));
        }
    }
    text
}

pub(crate) fn what_to_do(state: CredentialState) -> &'static str {
    match state {
        CredentialState::Idle => "nothing; the first call gets a token",
        CredentialState::Valid => "nothing",
        CredentialState::RefreshFailing => {
            "nothing yet, the token at hand is valid; if the attempts keep failing, look at the upstream"
        }
        CredentialState::Unavailable => {
            "wait for the next attempt, or make one with `tokencache refresh`; if it fails, look at the upstream"
        }
        CredentialState::NeedsReauth => "log in again and give the broker the new grant",
        CredentialState::Misconfigured => "correct the credential's configuration as the last attempt says",
        CredentialState::UpstreamRejects => {
            "check the credential's permissions at the upstream, which refuses fresh tokens too"
        }
        _ => "use a newer `tokencache`, which knows this state",
    }
}

fn grant_table(grant: &GrantStatus, now: SystemTime) -> String {
    let state = if grant.needs_reauth_reason.is_empty() { "live" } else { &grant.needs_reauth_reason };
    let rows = [
        ["  state".to_owned(), state.to_owned()],
        ["  version".to_owned(), grant.version.to_string()],
        ["  fingerprint".to_owned(), grant.fingerprint.clone()],
        ["  changed".to_owned(), exact_or_dash(grant.updated_at, now)],
    ];
    table(None, rows)
}

fn endpoint_table(endpoint: &EndpointStatus, now: SystemTime) -> String {
    let prober = if endpoint.prober.is_empty() { "nobody" } else { &endpoint.prober };
    let rows = [
        ("origin", endpoint.endpoint.clone()),
        ("state", endpoint.state.to_string()),
        ("calls", format!("{} of {}", endpoint.calls, endpoint.max_concurrent)),
        ("failures", format!("{} in a row", endpoint.consecutive_failures)),
        ("not before", exact_or_dash(endpoint.next_attempt_at, now)),
        ("probed by", prober.to_owned()),
    ];
    table(None, rows.map(|(key, value)| [format!("  {key}"), value]))
}

fn token_table(token: &TokenStatus, now: SystemTime) -> String {
    let selector = &token.selector;
    let audience = if selector.audience().is_empty() { "-" } else { selector.audience() };
    let fingerprint = if token.fingerprint.is_empty() { "-" } else { &token.fingerprint };
    let lease = token.lease.as_ref().map_or_else(
        || "nobody".to_owned(),
        |lease| format!("{}, lapses {}", lease.owner, relative_or_dash(lease.expires_at, now)),
    );
    let rows = [
        ("scopes", words_or_dash(selector.scopes())),
        ("audience", audience.to_owned()),
        ("resources", words_or_dash(selector.resources())),
        ("state", token.state.to_string()),
        ("generation", format!("{}; served from {} on", token.generation, token.min_generation)),
        ("fingerprint", fingerprint.to_owned()),
        ("issued", exact_or_dash(token.issued_at, now)),
        ("expires", exact_or_dash(token.expires_at, now)),
        ("next refresh", exact_or_dash(token.refresh_at, now)),
        ("not before", exact_or_dash(token.next_attempt_at, now)),
        ("failures", format!("{} since the last success", token.consecutive_failures)),
        ("lease", lease),
        ("last used", relative_or_dash(token.last_used_at, now)),
        ("watchers", token.watchers.to_string()),
    ];
    table(None, rows.map(|(key, value)| [format!("  {key}"), value]))
}

fn attempt_table(attempts: &[Attempt], now: SystemTime) -> String {
    let row = |attempt: &Attempt| {
        let outcome = match &attempt.error {
            None => "a token".to_owned(),
            Some(error) => format!("{}: {error}", error.reason().unwrap_or("error")),
        };
        let when = relative_or_dash(attempt.time, now);
        [format!("  {when}"), span(attempt.duration), attempt.replica.clone(), outcome]
    };
    table(Some(["  WHEN", "TOOK", "REPLICA", "OUTCOME"]), attempts.iter().map(row))
}

fn to_json(description: &CredentialDescription) -> Value {
    let grant = |grant: &GrantStatus| {
        json!({
            "version": grant.version,
            "fingerprint": grant.fingerprint,
            "updated_at": json_time(grant.updated_at),
            "needs_reauth_reason": grant.needs_reauth_reason,
        })
    };
    let endpoint = |endpoint: &EndpointStatus| {
        json!({
            "endpoint": endpoint.endpoint,
            "state": endpoint.state.as_str(),
            "consecutive_failures": endpoint.consecutive_failures,
            "next_attempt_at": json_time(endpoint.next_attempt_at),
            "calls": endpoint.calls,
            "max_concurrent": endpoint.max_concurrent,
            "prober": endpoint.prober,
        })
    };
    json!({
        "credential": list::to_json(&description.credential),
        "explanation": description.explanation,
        "grant": description.grant.as_ref().map(grant),
        "endpoint": description.endpoint.as_ref().map(endpoint),
        "tokens": description.tokens.iter().map(token_to_json).collect::<Vec<_>>(),
    })
}

pub(crate) fn token_to_json(token: &TokenStatus) -> Value {
    let lease = token.lease.as_ref();
    json!({
        "selector": {
            "credential": token.selector.credential(),
            "scopes": token.selector.scopes(),
            "audience": token.selector.audience(),
            "resources": token.selector.resources(),
        },
        "state": token.state.as_str(),
        "generation": token.generation,
        "min_generation": token.min_generation,
        "fingerprint": token.fingerprint,
        "issued_at": json_time(token.issued_at),
        "expires_at": json_time(token.expires_at),
        "refresh_at": json_time(token.refresh_at),
        "next_attempt_at": json_time(token.next_attempt_at),
        "consecutive_failures": token.consecutive_failures,
        "lease": lease.map(|lease| json!({ "owner": lease.owner, "expires_at": json_time(lease.expires_at) })),
        "attempts": token.attempts.iter().map(attempt_to_json).collect::<Vec<_>>(),
        "last_used_at": json_time(token.last_used_at),
        "watchers": token.watchers,
    })
}

fn attempt_to_json(attempt: &Attempt) -> Value {
    let error = attempt.error.as_ref();
    json!({
        "time": json_time(attempt.time),
        "duration_ms": u64::try_from(attempt.duration.as_millis()).unwrap_or(u64::MAX),
        "replica": attempt.replica,
        "error": error.map(|error| json!({ "reason": error.reason(), "message": error.to_string() })),
    })
}
