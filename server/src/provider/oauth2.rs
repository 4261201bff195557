//! `provider = "oauth2"`: tokens from an OAuth 2 token endpoint (RFC 6749).
//!
//! A refresh token in an answer is secured before anything else of the answer is judged: an upstream that rotates has
//! already forgotten the one before.

mod client_auth;
mod config;
mod discovery;
mod error;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod wire;

use std::{fmt, sync::Arc};

use ::http::{HeaderValue, Method, header};
use async_trait::async_trait;
use url::Url;

use self::{
    config::{Config, Endpoints, Grant},
    discovery::Discovery,
    error::OAuthFailure,
};
use super::{
    Capabilities, GrantUse, MintFailure, MintRequest, MintResult, TokenProvider,
    form::Form,
    http::{Answer, Call, HttpClient, host_of},
    registry::{BuildContext, Built, ProviderFactory},
    text::read_secret,
};
use crate::{
    config::reader::Section,
    error::{Error, ErrorKind, Result},
    time::SharedClock,
    types::{Origin, Secret},
};

/// The row of the registry.
pub const FACTORY: ProviderFactory = ProviderFactory { kind: "oauth2", build };

/// Asks an OAuth 2 token endpoint.
pub struct OAuth2Provider {
    config: Config,
    discovery: Option<Discovery>,
    client: HttpClient,
    clock: SharedClock,
}

fn build(section: &Section<'_>, context: &BuildContext) -> Option<Built> {
    let config = Config::read(section)?;
    let client =
        context.clients.get(&config.http).map_err(|error| section.problem_at("http", error.to_string())).ok()?;
    let (identity, warnings) = (config.identity(), config.http.warnings());
    let discovery = match &config.endpoints {
        Endpoints::Issuer(issuer) => Some(Discovery::new(issuer.clone(), client.clone())),
        Endpoints::Explicit(_) => None,
    };
    let provider = OAuth2Provider { config, discovery, client, clock: Arc::clone(&context.clock) };
    Some(Built { provider: Arc::new(provider), identity, warnings })
}

impl fmt::Debug for OAuth2Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OAuth2Provider")
            .field("grant", &self.config.grant)
            .field("endpoints", &self.config.endpoints)
            .field("client_id", &self.config.client_id)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl TokenProvider for OAuth2Provider {
    fn kind(&self) -> &'static str {
        "oauth2"
    }

    fn capabilities(&self) -> Capabilities {
        let grant = match &self.config.grant {
            Grant::RefreshToken { rotation, .. } => GrantUse::Refresh(*rotation),
            Grant::ClientCredentials | Grant::Password { .. } => GrantUse::None,
        };
        Capabilities { grant, revocable: self.discovery.is_some() || self.config.revocation_url.is_some() }
    }

    fn endpoint(&self) -> Option<Origin> {
        Some(match &self.config.endpoints {
            Endpoints::Issuer(issuer) => issuer.origin(),
            Endpoints::Explicit(url) => Origin::of(url),
        })
    }

    async fn mint(&self, request: MintRequest) -> MintResult {
        let call = self.token_call(&request).await.map_err(MintFailure::harmless)?;
        let minted = match self.client.send(call).await {
            Ok(answer) => self.read_token(&answer, &request),
            Err(failure) => Err(failure.into()),
        };
        let transient = minted.as_ref().is_err_and(|failure| !failure.error.kind().is_permanent());
        if let Some(discovery) = self.discovery.as_ref().filter(|_| transient) {
            discovery.distrust();
        }
        minted
    }

    async fn configured_grant(&self) -> Result<Option<Secret>> {
        match &self.config.grant {
            Grant::RefreshToken { first, .. } => read_secret(first).await.map(Some),
            Grant::ClientCredentials | Grant::Password { .. } => Ok(None),
        }
    }

    async fn revoke(&self, token: Secret) -> Result<()> {
        let Some(url) = self.revocation_url().await? else { return Ok(()) };
        let mut form = Form::default();
        form.push("token", token.expose());
        form.push("token_type_hint", "access_token");
        let answer = self.client.send(self.call(url, form).await?).await?;
        // RFC 7009 section 2.2: 200 also for a token that was invalid already.
        if answer.status.is_success() { Ok(()) } else { Err(self.refusal(&answer).into()) }
    }
}

impl OAuth2Provider {
    async fn token_url(&self) -> Result<Url> {
        match (&self.config.endpoints, &self.discovery) {
            (Endpoints::Explicit(url), _) => Ok(url.clone()),
            (Endpoints::Issuer(_), Some(discovery)) => Ok(discovery.metadata().await?.token_endpoint),
            (Endpoints::Issuer(_), None) => Err(Error::bug("an issuer without discovery")),
        }
    }

    async fn revocation_url(&self) -> Result<Option<Url>> {
        match (&self.config.revocation_url, &self.discovery) {
            (Some(url), _) => Ok(Some(url.clone())),
            (None, Some(discovery)) => Ok(discovery.metadata().await?.revocation_endpoint),
            (None, None) => Ok(None),
        }
    }

    async fn token_call(&self, request: &MintRequest) -> Result<Call> {
        let mut form = Form::default();
        match &self.config.grant {
            Grant::ClientCredentials => form.push("grant_type", "client_credentials"),
            Grant::Password { username, password } => {
                form.push("grant_type", "password");
                form.push("username", username);
                form.push("password", read_secret(password).await?.expose());
            }
            Grant::RefreshToken { .. } => {
                let none = || Error::new(ErrorKind::NeedsReauth, "there is no refresh token");
                form.push("grant_type", "refresh_token");
                form.push("refresh_token", request.grant.as_ref().ok_or_else(none)?.expose());
            }
        }
        wire::push_selector(&mut form, request.key.selector());
        for (name, value) in &self.config.extra_params {
            form.push(name, value.resolve(None).await?.expose());
        }
        let call = self.call(self.token_url().await?, form).await?;
        Ok(Call { repeatable: self.config.grant.is_repeatable(), ..call })
    }

    /// A form for an endpoint of the authorization server, with the client's authentication and the extra headers.
    async fn call(&self, url: Url, mut form: Form) -> Result<Call> {
        let mut headers = self.config.extra_headers.resolve(None).await?;
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        self.config.client_auth.apply(&self.config.client_id, &mut headers, &mut form).await?;
        Ok(Call { method: Method::POST, url, headers, body: form.into_body(), within: None, repeatable: false })
    }

    fn read_token(&self, answer: &Answer, request: &MintRequest) -> MintResult {
        if answer.status.is_success() {
            return wire::read_token(answer, request.grant.as_ref(), &self.config.rules, self.clock.now());
        }
        let refusal = self.refusal(answer);
        let in_doubt = request.grant.is_some() && refusal.is_ambiguous();
        Err(MintFailure { error: refusal.into(), grant: None, in_doubt })
    }

    fn refusal(&self, answer: &Answer) -> OAuthFailure {
        OAuthFailure::read(answer, self.config.grant.is_lost_by_invalid_grant(), self.clock.now())
    }
}

/// What identifies an endpoint in a text for people.
fn endpoint_text(endpoints: &Endpoints) -> String {
    match endpoints {
        Endpoints::Issuer(issuer) => issuer.text().to_owned(),
        Endpoints::Explicit(url) => host_of(url),
    }
}

impl fmt::Debug for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&endpoint_text(self))
    }
}

#[cfg(test)]
mod tests;
