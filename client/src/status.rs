//! What operators are told. Nothing here holds a token or a secret.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use tokencache_proto::v1;

use crate::{EndpointStatus, Error, Result, Selector, convert, token::nonsense};

/// The state of a credential or of one of its tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CredentialState {
    /// A state that this client does not know.
    Unknown,
    /// Configured; nobody has asked for a token yet.
    Idle,
    /// A valid token is at hand.
    Valid,
    /// A valid token is at hand, but the last attempt to replace it failed.
    RefreshFailing,
    /// There is no valid token; the next call or attempt may bring one.
    Unavailable,
    /// The grant is lost or revoked: a person has to log in again.
    NeedsReauth,
    /// The upstream refuses the request as configured: a person has to change the configuration.
    Misconfigured,
    /// The upstream refuses freshly minted tokens: permissions, as a rule, rather than dead tokens.
    UpstreamRejects,
}

impl CredentialState {
    /// The word for it, e.g. `needs-reauth`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Idle => "idle",
            Self::Valid => "valid",
            Self::RefreshFailing => "refresh-failing",
            Self::Unavailable => "unavailable",
            Self::NeedsReauth => "needs-reauth",
            Self::Misconfigured => "misconfigured",
            Self::UpstreamRejects => "upstream-rejects",
        }
    }
}

impl fmt::Display for CredentialState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<v1::CredentialState> for CredentialState {
    fn from(state: v1::CredentialState) -> Self {
        match state {
            v1::CredentialState::Unspecified => Self::Unknown,
            v1::CredentialState::Idle => Self::Idle,
            v1::CredentialState::Valid => Self::Valid,
            v1::CredentialState::RefreshFailing => Self::RefreshFailing,
            v1::CredentialState::Unavailable => Self::Unavailable,
            v1::CredentialState::NeedsReauth => Self::NeedsReauth,
            v1::CredentialState::Misconfigured => Self::Misconfigured,
            v1::CredentialState::UpstreamRejects => Self::UpstreamRejects,
        }
    }
}

/// What is known of a credential at a glance.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CredentialSummary {
    /// Its name.
    pub name: String,
    /// The kind of provider that mints its tokens.
    pub provider: String,
    /// The worst state of its tokens.
    pub state: CredentialState,
    /// How many distinct tokens are known.
    pub token_count: u32,
    /// When the first of its tokens expires.
    pub next_expiry: Option<SystemTime>,
}

impl From<v1::CredentialSummary> for CredentialSummary {
    fn from(summary: v1::CredentialSummary) -> Self {
        Self {
            state: summary.state().into(),
            name: summary.name,
            provider: summary.provider,
            token_count: summary.token_count,
            next_expiry: convert::time(summary.next_expiry),
        }
    }
}

/// A page of credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CredentialPage {
    /// In the order of their names.
    pub credentials: Vec<CredentialSummary>,
    /// Where the next page begins. Empty: this was the last.
    pub next_page_token: String,
}

impl From<v1::ListCredentialsResponse> for CredentialPage {
    fn from(page: v1::ListCredentialsResponse) -> Self {
        let credentials = page.credentials.into_iter().map(Into::into).collect();
        Self { credentials, next_page_token: page.next_page_token }
    }
}

/// Who may call the upstream for a token just now.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lease {
    /// The replica that holds it.
    pub owner: String,
    /// When it lapses unless it is renewed, on the store's clock.
    pub expires_at: Option<SystemTime>,
}

/// One attempt to obtain a token.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attempt {
    /// When it ended.
    pub time: Option<SystemTime>,
    /// How long the upstream took.
    pub duration: Duration,
    /// The replica that made it.
    pub replica: String,
    /// What came of it: `None` means a token.
    pub error: Option<Error>,
}

impl From<v1::Attempt> for Attempt {
    fn from(attempt: v1::Attempt) -> Self {
        let error = attempt.status.as_ref().and_then(Error::from_rpc);
        Self {
            time: convert::time(attempt.time),
            duration: convert::duration(attempt.duration),
            replica: attempt.replica,
            // The reason also stands beside the status, for a status whose details did not survive.
            error: error.map(|error| error.or_reason(attempt.reason)),
        }
    }
}

/// What is known of one token, without the token.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TokenStatus {
    /// What was asked for.
    pub selector: Selector,
    /// Its state.
    pub state: CredentialState,
    /// Its generation; 0 if there has been none.
    pub generation: u64,
    /// The lowest generation that may be served.
    pub min_generation: u64,
    /// The fingerprint of the token; empty if there is none.
    pub fingerprint: String,
    /// When it was issued.
    pub issued_at: Option<SystemTime>,
    /// When it expires.
    pub expires_at: Option<SystemTime>,
    /// When it is to be replaced.
    pub refresh_at: Option<SystemTime>,
    /// Not before this time is the upstream asked again.
    pub next_attempt_at: Option<SystemTime>,
    /// Failed attempts since the last success.
    pub consecutive_failures: u32,
    /// Who holds the lease, if anybody.
    pub lease: Option<Lease>,
    /// The last attempts known to the replica, newest first.
    pub attempts: Vec<Attempt>,
    /// When a client last asked for it, as far as the replica knows.
    pub last_used_at: Option<SystemTime>,
    /// How many streams watch it on the replica.
    pub watchers: u32,
}

impl From<v1::TokenStatus> for TokenStatus {
    fn from(token: v1::TokenStatus) -> Self {
        let lease = |lease: v1::Lease| Lease { owner: lease.owner, expires_at: convert::time(lease.expires_at) };
        Self {
            state: token.state().into(),
            selector: Selector::from_proto(token.selector),
            generation: token.generation,
            min_generation: token.min_generation,
            fingerprint: token.fingerprint,
            issued_at: convert::time(token.issued_at),
            expires_at: convert::time(token.expires_at),
            refresh_at: convert::time(token.refresh_at),
            next_attempt_at: convert::time(token.next_attempt_at),
            consecutive_failures: token.consecutive_failures,
            lease: token.lease.map(lease),
            attempts: token.attempts.into_iter().map(Into::into).collect(),
            last_used_at: convert::time(token.last_used_at),
            watchers: token.watchers,
        }
    }
}

/// The grant behind a credential, without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GrantStatus {
    /// Counts its changes.
    pub version: u64,
    /// The first 16 hexadecimal digits of the SHA-256 of the current refresh token.
    pub fingerprint: String,
    /// When it last changed.
    pub updated_at: Option<SystemTime>,
    /// Why a person has to log in again. Empty: the grant is believed to be live.
    pub needs_reauth_reason: String,
}

/// Explains a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CredentialDescription {
    /// The credential at a glance.
    pub credential: CredentialSummary,
    /// Its tokens.
    pub tokens: Vec<TokenStatus>,
    /// The grant, if the credential has one.
    pub grant: Option<GrantStatus>,
    /// The token endpoint, if the credential has one.
    pub endpoint: Option<EndpointStatus>,
    /// One sentence: what state this is and what to do about it.
    pub explanation: String,
}

impl CredentialDescription {
    pub(crate) fn from_proto(response: v1::DescribeCredentialResponse) -> Result<Self> {
        let credential = response.credential.ok_or_else(|| nonsense("a description without a credential"))?;
        let grant = |grant: v1::GrantStatus| GrantStatus {
            version: grant.version,
            fingerprint: grant.fingerprint,
            updated_at: convert::time(grant.updated_at),
            needs_reauth_reason: grant.needs_reauth_reason,
        };
        Ok(Self {
            credential: credential.into(),
            tokens: response.tokens.into_iter().map(Into::into).collect(),
            grant: response.grant.map(grant),
            endpoint: response.endpoint.map(Into::into),
            explanation: response.explanation,
        })
    }
}

/// Which credentials to invalidate.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Target {
    /// By name; `*` stands for any run of characters, `/` included.
    Pattern(String),
    /// All of one kind of provider.
    Provider(String),
}

impl From<Target> for v1::invalidate_credentials_request::Target {
    fn from(target: Target) -> Self {
        match target {
            Target::Pattern(pattern) => Self::Pattern(pattern),
            Target::Provider(provider) => Self::Provider(provider),
        }
    }
}

/// What was, or with a dry run would be, invalidated.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BulkInvalidation {
    /// The names of the matching credentials, sorted.
    pub credentials: Vec<String>,
    /// How many tokens were taken out of service.
    pub token_count: u64,
}

impl From<v1::InvalidateCredentialsResponse> for BulkInvalidation {
    fn from(response: v1::InvalidateCredentialsResponse) -> Self {
        Self { credentials: response.credentials, token_count: response.token_count }
    }
}

/// The answering replica.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerInfo {
    /// Its identifier.
    pub replica: String,
    /// The version of the program.
    pub version: String,
    /// When it started.
    pub started_at: Option<SystemTime>,
    /// The kind of store.
    pub store: String,
    /// The kinds of provider that it knows, sorted.
    pub providers: Vec<String>,
    /// How many credentials are configured.
    pub credential_count: u32,
    /// How many tokens are in memory.
    pub cached_token_count: u64,
    /// Whether it runs in dev mode: without authentication.
    pub dev: bool,
}

impl From<v1::GetServerInfoResponse> for ServerInfo {
    fn from(info: v1::GetServerInfoResponse) -> Self {
        Self {
            replica: info.replica,
            version: info.version,
            started_at: convert::time(info.started_at),
            store: info.store,
            providers: info.providers,
            credential_count: info.credential_count,
            cached_token_count: info.cached_token_count,
            dev: info.dev,
        }
    }
}

/// One of the replicas that share a store.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplicaStatus {
    /// Its identifier.
    pub id: String,
    /// The version of the program that it runs.
    pub version: String,
    /// When it first joined.
    pub started_at: Option<SystemTime>,
    /// For how long the others wait for it if it says nothing more. Zero: what it serves is degraded.
    pub lease_remaining: Duration,
    /// The highest event that it has applied.
    pub applied_event: u64,
    /// Events below it that it has not seen.
    pub missing_events: Vec<u64>,
    /// It is the one that answers.
    pub answering: bool,
}

impl From<v1::Replica> for ReplicaStatus {
    fn from(replica: v1::Replica) -> Self {
        Self {
            id: replica.id,
            version: replica.version,
            started_at: convert::time(replica.started_at),
            lease_remaining: convert::duration(replica.lease_remaining),
            applied_event: replica.applied_event,
            missing_events: replica.missing_events,
            answering: replica.answering,
        }
    }
}
