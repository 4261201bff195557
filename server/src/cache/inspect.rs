//! What an operator is shown: states and reasons, never a secret.

use std::{sync::Arc, time::Duration};

use prometheus_client::registry::Registry;

use super::{
    TokenCache,
    flight::attempt::{Want, Why},
    history::AttemptRecord,
    trust::TTL,
};
use crate::{
    credential::{Credential, Endpoint},
    error::{Error, ErrorKind, Result},
    metrics::{Sampled, TokenMetrics},
    policy::{Authorized, CredentialRequest, RefreshRequest, RotateKeyRequest, ServerRequest},
    store::{Applied, EndpointView, Failures, Gate, Grant, Holder, LeaseScope, Replica, TokenRow, sealed::KeyCensus},
    time::Timestamp,
    types::{Fingerprint, Generation, TokenKey},
};

/// The most tokens of one credential that are shown.
const MAX_ROWS: u32 = 1000;

/// The state of a credential or a token, from good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Nobody has asked for a token lately.
    Idle,
    /// A valid token is at hand.
    Valid,
    /// A valid token is at hand, but the last attempt to replace it failed.
    RefreshFailing,
    /// There is no valid token; the next attempt may bring one.
    Unavailable,
    /// The upstream refuses freshly minted tokens.
    UpstreamRejects,
    /// The upstream refuses the request as configured.
    Misconfigured,
    /// The grant is lost.
    NeedsReauth,
}

/// One token, without the token.
#[derive(Clone, Debug)]
pub struct TokenReport {
    /// Its key.
    pub key: TokenKey,
    /// Its state.
    pub state: State,
    /// Its generation.
    pub generation: Generation,
    /// The lowest generation that may be served.
    pub min_generation: Generation,
    /// Its fingerprint and times.
    pub token: Option<TokenFacts>,
    /// The failed attempts since the last success.
    pub failures: Option<Failures>,
    /// Who may ask the upstream just now.
    pub lease: Option<Holder>,
    /// The last attempts on this replica, newest first.
    pub attempts: Vec<AttemptRecord>,
    /// When a client last asked for it.
    pub last_used_at: Timestamp,
    /// How many watch it on this replica.
    pub watchers: usize,
}

/// What may be told of a token.
#[derive(Clone, Copy, Debug)]
pub struct TokenFacts {
    /// Its fingerprint.
    pub fingerprint: Fingerprint,
    /// When it was issued.
    pub issued_at: Timestamp,
    /// When it expires.
    pub expires_at: Timestamp,
    /// When it is to be replaced.
    pub refresh_at: Timestamp,
}

/// A credential with its tokens.
#[derive(Clone, Debug)]
pub struct CredentialReport {
    /// Its name.
    pub name: String,
    /// The kind of its provider.
    pub provider: &'static str,
    /// The worst state of its tokens and its grant.
    pub state: State,
    /// Its tokens.
    pub tokens: Vec<TokenReport>,
    /// Its grant, without its secret.
    pub grant: Option<GrantReport>,
    /// Its token endpoint, where it has one and it was looked at.
    pub endpoint: Option<EndpointReport>,
    /// What state this is, and what to do about it.
    pub explanation: String,
}

/// A token endpoint, and what is known of it.
#[derive(Clone, Debug)]
pub struct EndpointReport {
    /// Which one, and its rules.
    pub endpoint: Endpoint,
    /// How it does.
    pub view: EndpointView,
}

/// A grant, without its secret.
#[derive(Clone, Debug)]
pub struct GrantReport {
    /// Its version.
    pub version: u64,
    /// The fingerprint of the refresh token.
    pub fingerprint: Fingerprint,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// Why a person has to log in again.
    pub needs_reauth: Option<String>,
}

impl From<&Grant> for GrantReport {
    fn from(grant: &Grant) -> Self {
        Self {
            version: grant.version,
            fingerprint: Fingerprint::of(&grant.refresh_token),
            updated_at: grant.updated_at,
            needs_reauth: grant.needs_reauth.clone(),
        }
    }
}

impl TokenCache {
    /// Explains a credential.
    ///
    /// # Errors
    ///
    /// `NoSuchCredential`, `StoreDown`.
    pub async fn describe(&self, request: &Authorized<CredentialRequest>) -> Result<CredentialReport> {
        let credential = self.credential(&request.name)?;
        let store = &self.parts.store;
        let rows = store.rows_of(request.name.clone(), MAX_ROWS).await?;
        let grant = unless_sealed_otherwise(store.load_grant(request.name.clone()).await)?;
        let shared_lease = store.holder(LeaseScope::Grant(request.name.clone())).await?;
        let mut tokens = Vec::with_capacity(rows.len());
        for row in rows {
            let own_lease = store.holder(LeaseScope::Token(row.key.hash())).await?;
            tokens.push(self.report(credential, row, own_lease.or_else(|| shared_lease.clone())));
        }
        let mut report = summarize(credential, tokens, grant.as_ref().map(Option::as_ref));
        if let Some(endpoint) = credential.endpoint.clone() {
            let view = store.endpoint(endpoint.origin.clone()).await?;
            report.explanation.push_str(&explain_endpoint(&endpoint, &view));
            report.endpoint = Some(EndpointReport { endpoint, view });
        }
        Ok(report)
    }

    /// A credential at a glance: as `describe`, but without leases and its endpoint.
    ///
    /// # Errors
    ///
    /// `NoSuchCredential`, `StoreDown`.
    pub async fn summary(&self, request: &Authorized<CredentialRequest>) -> Result<CredentialReport> {
        let credential = self.credential(&request.name)?;
        let rows = self.parts.store.rows_of(request.name.clone(), MAX_ROWS).await?;
        let grant = unless_sealed_otherwise(self.parts.store.load_grant(request.name.clone()).await)?;
        let tokens = rows.into_iter().map(|row| self.report(credential, row, None)).collect();
        Ok(summarize(credential, tokens, grant.as_ref().map(Option::as_ref)))
    }

    /// Replaces a token now, whatever its state: an operator's order spends one attempt in spite of backoff.
    ///
    /// Cancel-safe: the flight goes on.
    ///
    /// # Errors
    ///
    /// `NoSuchCredential`; what the attempt failed with.
    pub async fn refresh(&self, request: &Authorized<RefreshRequest>) -> Result<TokenReport> {
        let (credential, key) = self.resolve(&request.0)?;
        let before = self.parts.store.load(key.hash()).await?.map(|row| row.generation);
        let want = Want {
            key: key.clone(),
            why: Why::Operator,
            min_validity: Duration::ZERO,
            avoid: before.filter(|generation| *generation > Generation::NONE),
        };
        // A flight that was under way may bring the token that there was: then one more is flown.
        for _ in 0..2 {
            let entry = self.pilot.fly(credential, want.clone()).wait().await?;
            if Some(entry.token.generation) > before {
                break;
            }
        }
        let row = self.parts.store.load(key.hash()).await?.ok_or_else(|| Error::bug("a refreshed row vanished"))?;
        Ok(self.report(credential, row, None))
    }

    /// The replicas that share the store; this one alone where it is not for several.
    ///
    /// # Errors
    ///
    /// `StoreDown`.
    pub async fn replicas(&self, _: &Authorized<ServerRequest>) -> Result<Vec<Replica>> {
        if self.parts.store.is_shared() {
            return self.parts.store.replicas().await;
        }
        Ok(vec![Replica {
            id: self.parts.replica.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            started_at: self.parts.started_at,
            // There is nobody whom it could lose touch with.
            remaining: TTL,
            applied: Applied::default(),
        }])
    }

    /// Seals everything in the store with the active key. To be cancelled leaves the rest for the next time.
    ///
    /// # Errors
    ///
    /// `Misconfigured` where there is no key; `StoreDown`.
    pub async fn rotate_key(&self, request: &Authorized<RotateKeyRequest>) -> Result<KeyCensus> {
        self.parts.store.rotate_key(request.dry_run).await
    }

    /// What is counted of tokens.
    #[must_use]
    pub fn token_metrics(&self) -> &TokenMetrics {
        &self.parts.metrics.tokens
    }

    /// Has shown what there is at the moment of a scrape.
    pub fn register(self: &Arc<Self>, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("tokencache");
        let mut show = |name, help, look: fn(&Self) -> u64| {
            let cache = Arc::clone(self);
            Sampled::register(registry, name, help, move || look(&cache));
        };
        show("tokens", "Tokens in memory", |cache| cache.parts.memory.count());
        show("tokens_limit", "Tokens that memory has room for: cache.max_tokens", |cache| cache.max_tokens);
        show("credentials", "Credentials in the configuration", |cache| cache.catalog.iter().count() as u64);
        show("flights", "Flights under way that bring tokens", |cache| cache.pilot.flights.len() as u64);
        show("watches", "Watches of tokens; a stream may have many", |cache| cache.parts.hub.watches() as u64);
        show("pending_writes", "What the store has not taken yet, refresh tokens among it", |cache| {
            cache.parts.pending.len() as u64
        });
        show("verified", "1 while this replica is in touch with the others and its answers are verified", |cache| {
            u64::from(cache.parts.trust.term().is_some())
        });
    }

    /// How many tokens memory holds, about.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.parts.memory.len()
    }

    /// Whether memory holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.memory.is_empty()
    }

    fn report(&self, credential: &Credential, row: TokenRow, lease: Option<Holder>) -> TokenReport {
        let (now, hash) = (self.now(), row.key.hash());
        let tripped = self.parts.guard.is_tripped(&hash, now);
        let state = state_of(&row, credential.config, tripped, now);
        let used_here = self.parts.memory.get(&hash).map(|entry| entry.last_used());
        let facts = row.token.as_ref().map(|token| TokenFacts {
            fingerprint: token.fingerprint,
            issued_at: token.issued_at,
            expires_at: token.expires_at,
            refresh_at: token.refresh_at,
        });
        TokenReport {
            state,
            generation: row.generation,
            min_generation: row.min_generation,
            token: facts,
            failures: row.failures,
            lease,
            attempts: self.parts.history.of(&hash),
            last_used_at: used_here.unwrap_or(row.last_used_at),
            watchers: self.parts.hub.watchers(&hash),
            key: row.key,
        }
    }
}

/// The state of a row: a pure function of it, the present configuration, the storm guard and the time.
fn state_of(row: &TokenRow, config: Fingerprint, tripped: bool, now: Timestamp) -> State {
    let valid = row.config == config
        && row.token.as_ref().is_some_and(|token| token.generation >= row.min_generation && now < token.expires_at);
    let failed_with = row.failures.as_ref().filter(|failures| failures.config == config).map(|failures| failures.kind);
    match failed_with {
        Some(ErrorKind::NeedsReauth) => State::NeedsReauth,
        Some(ErrorKind::Misconfigured | ErrorKind::ConfigTampered) => State::Misconfigured,
        _ if tripped => State::UpstreamRejects,
        Some(_) if valid => State::RefreshFailing,
        Some(_) => State::Unavailable,
        None if valid => State::Valid,
        None => State::Idle,
    }
}

/// A grant that does not open is a state to be shown, and no reason not to show all the others.
fn unless_sealed_otherwise(loaded: Result<Option<Grant>>) -> Result<Result<Option<Grant>, Error>> {
    match loaded {
        Err(error) if matches!(error.kind(), ErrorKind::ConfigTampered | ErrorKind::KeyMissing) => Ok(Err(error)),
        other => other.map(Ok),
    }
}

fn summarize(
    credential: &Credential,
    tokens: Vec<TokenReport>,
    grant: Result<Option<&Grant>, &Error>,
) -> CredentialReport {
    let unreadable = grant.err().map(|error| error.message().to_owned());
    let grant = grant.ok().flatten().map(GrantReport::from);
    let lost = grant.as_ref().is_some_and(|grant| grant.needs_reauth.is_some());
    let worst = tokens.iter().map(|token| token.state).max().unwrap_or(State::Idle);
    let state = match (lost, &unreadable) {
        (true, _) => State::NeedsReauth,
        (false, Some(_)) => State::Misconfigured,
        (false, None) => worst,
    };
    let explanation = unreadable.unwrap_or_else(|| explain(state, &tokens, grant.as_ref()));
    let (name, provider) = (credential.name.to_string(), credential.provider.kind());
    CredentialReport { name, provider, state, tokens, grant, endpoint: None, explanation }
}

/// One sentence: what state this is, and what to do about it.
fn explain(state: State, tokens: &[TokenReport], grant: Option<&GrantReport>) -> String {
    let failure = tokens.iter().filter(|token| token.state == state).find_map(|token| token.failures.as_ref());
    let cause = failure.map(|failures| format!(": {}", failures.message)).unwrap_or_default();
    match state {
        State::Idle => "nobody has asked for a token lately; the next call gets one".into(),
        State::Valid => "a valid token is at hand and is replaced ahead of its expiry".into(),
        State::RefreshFailing => {
            format!("a valid token is at hand, but replacing it fails{cause}; it is tried again by itself")
        }
        State::Unavailable => format!("there is no valid token{cause}; it is tried again by itself"),
        State::UpstreamRejects => {
            "the upstream refuses freshly minted tokens: check what the credential is permitted to do".into()
        }
        State::Misconfigured => {
            format!("the upstream refuses the request as configured{cause}; change the configuration")
        }
        State::NeedsReauth => {
            let reason = grant.and_then(|grant| grant.needs_reauth.as_deref()).unwrap_or("the grant is lost");
            format!("{reason}; log in again and configure the new refresh token")
        }
    }
}

/// What there is to say of an endpoint that is not simply called.
fn explain_endpoint(endpoint: &Endpoint, view: &EndpointView) -> String {
    let origin = &endpoint.origin;
    match view.state.gate() {
        Gate::Free if view.calls >= endpoint.rules.max_concurrent => {
            format!("; its token endpoint {origin} has as many calls as may be, and others wait for their turn")
        }
        Gate::Free => String::new(),
        _ if !view.state.wait.is_zero() => format!("; its token endpoint {origin} asks to be left alone for a while"),
        _ => format!("; its token endpoint {origin} fails and is left alone for a while"),
    }
}
