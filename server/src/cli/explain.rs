//! `tokencached explain-policy`: which grant decides, and why the others do not.

use std::{cmp::Reverse, path::PathBuf};

use clap::Args;

use super::{CliResult, print};
use crate::{
    config::Config,
    policy::{Action, Question, rules::Miss},
    provider::registry::ProviderRegistry,
    types::{Caller, Claims, CredentialName, Selector},
};

/// A question to the policy of a configuration.
#[derive(Args, Debug)]
pub(super) struct Explain {
    /// The configuration.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Who asks, such as `spiffe://prod.example/ns/a`, `jwt:k8s/system:serviceaccount:a:b`, `key:ci`, `uid:1000`.
    #[arg(long)]
    subject: String,
    /// A claim of theirs, as NAME=VALUE. May be repeated.
    #[arg(long, value_name = "NAME=VALUE")]
    claim: Vec<String>,
    /// With which credential. If it is not set: with the broker itself.
    #[arg(long)]
    credential: Option<String>,
    /// To do what: get, watch, invalidate, inspect, operate or audit.
    #[arg(long)]
    action: String,
    /// A scope that is asked for. May be repeated; if there is none, the credential's own count.
    #[arg(long)]
    scope: Vec<String>,
    /// The audience that is asked for.
    #[arg(long)]
    audience: Option<String>,
    /// A resource that is asked for. May be repeated.
    #[arg(long)]
    resource: Vec<String>,
}

pub(super) fn run(asked: Explain) -> CliResult {
    let config = Config::load(&asked.config, &ProviderRegistry::builtin())?;
    let action = Action::ALL.into_iter().find(|(word, _)| *word == asked.action).map(|(_, action)| action);
    let action = action.ok_or("an action is get, watch, invalidate, inspect, operate or audit")?;
    let credential = asked.credential.as_deref().map(CredentialName::parse).transpose()?;
    let about_token = matches!(action, Action::Get | Action::Watch | Action::Invalidate);
    if about_token && credential.is_none() {
        return Err(format!("`--credential` is missing: {} is about a credential's token", asked.action).into());
    }
    let selector = credential.clone().filter(|_| about_token).map(|name| {
        let selector = Selector::new(name, asked.scope, asked.audience, asked.resource);
        config.credentials.complete(selector)
    });
    let caller = Caller::with_claims(asked.subject, claims(&asked.claim)?, None);
    let question = Question { action, credential: credential.as_ref(), selector: selector.as_ref() };
    print(&explain(&config, &caller, &question))?;
    let unknown = credential.as_ref().is_some_and(|name| config.credentials.get(name).is_none());
    if unknown { print("note: there is no credential of this name\n") } else { Ok(()) }
}

fn explain(config: &Config, caller: &Caller, question: &Question<'_>) -> String {
    let grants = config.grants.grants();
    if grants.is_empty() && config.server.insecure_allow_any_caller {
        return "allowed: there are no grants, and server.insecure_allow_any_caller = true\n".into();
    }
    let mut misses: Vec<(Miss, &str)> = Vec::new();
    for grant in grants {
        match grant.covers(caller, question) {
            Ok(()) => return format!("allowed by the grant `{}`\n", grant.name),
            Err(miss) => misses.push((miss, &grant.name)),
        }
    }
    let mut text = String::from("denied: no grant covers it\n");
    // Those first that came nearest.
    misses.sort_by_key(|(miss, _)| Reverse(*miss));
    for (miss, name) in misses {
        text.push_str(&format!("  grant `{name}`: {miss}\n"));
    }
    text
}

fn claims(given: &[String]) -> Result<Claims, String> {
    let mut claims = Claims::new();
    for claim in given {
        let (name, value) = claim.split_once('=').ok_or_else(|| format!("`{claim}` is not NAME=VALUE"))?;
        claims.entry(name.to_owned()).or_default().push(value.to_owned());
    }
    Ok(claims)
}
