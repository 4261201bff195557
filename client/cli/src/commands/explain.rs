//! `tokencache explain`.

use std::time::SystemTime;

use serde_json::json;
use tokencache_client::CredentialDescription;

use super::describe::what_to_do;
use crate::{
    args::{Explain, Format},
    broker::Broker,
    failure::Failure,
    output::{Output, now, relative},
};

pub(crate) async fn run(broker: &Broker, explain: &Explain, output: &mut Output) -> Result<(), Failure> {
    let name = &explain.name;
    let description = broker.call_admin(async |client| client.describe_credential(name).await).await?;
    let credential = &description.credential;
    match explain.output {
        Format::Json => output.json(&json!({
            "name": credential.name,
            "state": credential.state.as_str(),
            "explanation": description.explanation,
            "last_error": last_error(&description).map(|(_, error)| error),
            "next_step": what_to_do(credential.state),
        })),
        Format::Text => output.write(&to_text(&description, now())),
    }
}

fn to_text(description: &CredentialDescription, now: SystemTime) -> String {
    let credential = &description.credential;
    let mut text = format!("{} is {}.", credential.name, credential.state);
    if !description.explanation.is_empty() {
        text += &format!(" {}", sentence(&description.explanation));
    }
    if let Some((when, error)) = last_error(description) {
        let when = when.map(|when| format!(", {}", relative(when, now))).unwrap_or_default();
        text += &format!("\nThe last attempt{when}, failed: {error}.");
    }
    if let Some(reason) = description.grant.as_ref().map(|grant| &grant.needs_reauth_reason).filter(|r| !r.is_empty()) {
        text += &format!("\nThe grant is lost: {reason}.");
    }
    text + &format!("\nNext step: {}.\n", what_to_do(credential.state))
}

/// The last attempt, if it failed.
fn last_error(description: &CredentialDescription) -> Option<(Option<SystemTime>, String)> {
    let attempts = description.tokens.iter().filter_map(|token| token.attempts.first());
    let attempt = attempts.max_by_key(|attempt| attempt.time)?;
    let error = attempt.error.as_ref()?;
    let reason = error.reason().map(|reason| format!(" ({reason})")).unwrap_or_default();
    Some((attempt.time, format!("{error}{reason}")))
}

/// With a capital and a full stop.
fn sentence(text: &str) -> String {
    let mut letters = text.trim_end_matches('.').chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", letters.as_str())
}
