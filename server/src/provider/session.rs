//! `provider = "session"`: a declarative log-in, for upstreams with a session token of their own.
//!
//! The log-in is a request with secret placeholders; the token, its lifetime and further fields are picked from the
//! answer. A refused log-in is permanent: repeating a wrong password locks accounts.

mod config;
mod error;
mod template;
mod wire;

use std::{fmt, sync::Arc};

use async_trait::async_trait;

use self::{config::Config, error::LoginFailure, template::Request};
use super::{
    Capabilities, GrantUse, MintFailure, MintRequest, MintResult, TokenProvider,
    http::{HttpClient, host_of},
    registry::{BuildContext, Built, ProviderFactory},
};
use crate::{
    config::reader::Section,
    error::{Error, Result},
    time::SharedClock,
    types::{Origin, Secret},
};

/// The row of the registry.
pub const FACTORY: ProviderFactory = ProviderFactory { kind: "session", build };

/// Logs in and serves the session's token.
pub struct SessionProvider {
    config: Config,
    client: HttpClient,
    clock: SharedClock,
}

fn build(section: &Section<'_>, context: &BuildContext) -> Option<Built> {
    let config = Config::read(section)?;
    let client =
        context.clients.get(&config.http).map_err(|error| section.problem_at("http", error.to_string())).ok()?;
    let (identity, warnings) = (config.identity(), config.http.warnings());
    let provider = SessionProvider { config, client, clock: Arc::clone(&context.clock) };
    Some(Built { provider: Arc::new(provider), identity, warnings })
}

impl fmt::Debug for SessionProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionProvider").field("login", &host_of(&self.config.login.url)).finish_non_exhaustive()
    }
}

#[async_trait]
impl TokenProvider for SessionProvider {
    fn kind(&self) -> &'static str {
        "session"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { grant: GrantUse::None, revocable: self.config.logout.is_some() }
    }

    fn endpoint(&self) -> Option<Origin> {
        Some(Origin::of(&self.login().url))
    }

    async fn mint(&self, _: MintRequest) -> MintResult {
        self.log_in().await.map_err(MintFailure::harmless)
    }

    async fn revoke(&self, token: Secret) -> Result<()> {
        let Some(logout) = &self.config.logout else { return Ok(()) };
        let mut call = logout.call(Some(&token)).await?;
        if !logout.mentions_token() {
            let (name, value) = self.config.presentation(&token)?;
            call.headers.insert(name, value);
        }
        let answer = self.client.send(call).await?;
        // 401: the session has ended already. A redirect usually leads to the log-in page.
        let has_ended = answer.status.is_success() || answer.status.is_redirection() || answer.status.as_u16() == 401;
        if has_ended { Ok(()) } else { Err(answer.failure(self.clock.now())) }
    }
}

impl SessionProvider {
    async fn log_in(&self) -> Result<super::Minted> {
        let answer = self.client.send(self.login().call(None).await?).await?;
        let now = self.clock.now();
        if !answer.status.is_success() {
            return Err(LoginFailure::read(&answer, now).into());
        }
        wire::read_session(&answer, &self.config, now).map_err(Error::from)
    }

    fn login(&self) -> &Request {
        &self.config.login
    }
}

#[cfg(test)]
mod tests;
