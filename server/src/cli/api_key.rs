//! `tokencached api-key`: API keys are made, listed and revoked in the store itself, with the broker running or not.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use clap::{Args, Subcommand};
use humantime::parse_duration;

use super::{CliResult, print};
use crate::{
    app::{AppError, Opened, open_store},
    authn::api_key::generate,
    config::Config,
    provider::registry::ProviderRegistry,
    rng::SharedRng,
    store::{ApiKey, SharedStore, StoreRegistry},
    time::{Clock as _, SystemClock, Timestamp},
};

/// The longest name of a holder.
const MAX_NAME: usize = 128;

/// Make, list and revoke API keys.
#[derive(Args, Debug)]
pub(super) struct ApiKeyCommand {
    #[command(subcommand)]
    command: Command,
    /// The configuration, which names the store.
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a key and show it: this once, for only its hash is stored.
    Create {
        /// Whose it is: grants know its holder as `key:NAME`. a-z, 0-9, '.', '_' and '-'. Several keys may have one name.
        name: String,
        /// How long it is good, such as 90d. If it is not set: until it is revoked.
        #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
        expires_in: Option<Duration>,
    },
    /// List the keys, never the secrets in them.
    List,
    /// Revoke a key: replicas refuse it within 5 s.
    Revoke {
        /// The id, as `list` shows it; it stands in the key as well.
        id: String,
    },
}

pub(super) async fn run(command: ApiKeyCommand) -> CliResult {
    let file = command.config.ok_or("`--config FILE` is missing: it names the store that has the keys")?;
    let config = Config::load(&file, &ProviderRegistry::builtin())?;
    if config.store.url.starts_with("memory:") {
        return Err("the store is `memory:`, whose keys end with the process: set store.url".into());
    }
    let Opened { store, .. } = open_store(&config, &StoreRegistry::builtin(), Arc::new(SystemClock)).await?;
    store.prepare().await.map_err(AppError::Store)?;
    let done = act(&store, command.command).await;
    store.close().await;
    if !config.authn.api_keys {
        tell("note: the broker takes no API keys yet: set authn.api_keys = true")?;
    }
    done
}

async fn act(store: &SharedStore, command: Command) -> CliResult {
    let now = SystemClock.now();
    match command {
        Command::Create { name, expires_in } => {
            let valid = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
            if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(valid) {
                return Err(format!("a name consists of 1 to {MAX_NAME} of a-z, 0-9, '.', '_' and '-'").into());
            }
            let (text, key) = generate(&name, now, expires_in.map(|span| now.after(span)), &SharedRng::from_os());
            let id = key.id.clone();
            store.add_api_key(key).await?;
            print(&format!("{}\n", text.expose()))?;
            tell(&format!("key {id} of {name}: keep it now, it cannot be shown again"))
        }
        Command::List => print(&list(&store.api_keys().await?, now)),
        Command::Revoke { id } => match store.revoke_api_key(id.clone(), now).await? {
            true => print(&format!("{id} is revoked; replicas refuse it within 5 s\n")),
            false => Err(format!("there is no key with the id {id}: `tokencached api-key list` shows them").into()),
        },
    }
}

fn list(keys: &[ApiKey], now: Timestamp) -> String {
    let mut text = format!("{:16}  {:24}  {:8}  {:20}  {}\n", "ID", "NAME", "STATE", "EXPIRES", "LAST USED");
    for key in keys {
        let state = match key {
            ApiKey { revoked_at: Some(_), .. } => "revoked",
            ApiKey { expires_at: Some(end), .. } if *end <= now => "expired",
            _ => "live",
        };
        let when = |time: Option<Timestamp>| time.map_or_else(|| "never".to_owned(), rfc3339);
        let (expires, used) = (when(key.expires_at), when(key.last_used_at));
        text.push_str(&format!("{:16}  {:24}  {state:8}  {expires:20}  {used}\n", key.id, key.name));
    }
    text
}

/// A time in UTC, to the second.
fn rfc3339(time: Timestamp) -> String {
    // The year 9999 is the last that RFC 3339 can write.
    let time = time.clamp(Timestamp::from_millis(0), Timestamp::from_millis(253_402_300_799_000));
    humantime::format_rfc3339_seconds(UNIX_EPOCH + time.since(Timestamp::from_millis(0))).to_string()
}

/// What a person is to read and a program is not.
#[expect(clippy::print_stderr, reason = "the key itself is what goes to the standard output")]
fn tell(text: &str) -> CliResult {
    eprintln!("{text}");
    Ok(())
}
