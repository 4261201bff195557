//! How tokens are obtained: the seam and its words.
//!
//! A provider makes one attempt when it is told to. It does not retry, cache, time out or count: those are decorators
//! and the cache's work. It knows nothing of stores.

mod attributes;
mod buffer;
#[cfg(any(test, feature = "testing"))]
pub mod conformance;
pub mod deadline;
pub mod fixed;
mod form;
mod headers;
pub mod http;
mod lifetime;
pub mod oauth2;
pub mod registry;
pub mod session;
mod text;

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::{
    error::{Error, Result},
    types::{Origin, Secret, TokenKey},
};

/// Mints tokens of one credential.
///
/// Errors are of the kinds `NeedsReauth`, `Misconfigured`, `UpstreamDown`, `UpstreamThrottled` and `UpstreamSlow`;
/// their texts never carry a part of the upstream's response body.
#[async_trait]
pub trait TokenProvider: fmt::Debug + Send + Sync + 'static {
    /// The kind, as in `provider = "…"`.
    fn kind(&self) -> &'static str;

    /// What this provider, as configured, can do and needs.
    fn capabilities(&self) -> Capabilities;

    /// Asks the upstream for a token, once.
    async fn mint(&self, request: MintRequest) -> MintResult;

    /// The server whose token endpoint it asks, where that is a server which may be asked too often or fail: all
    /// credentials of one share its budget. Where the endpoint is found by discovery, the issuer's. Always the same.
    fn endpoint(&self) -> Option<Origin> {
        None
    }

    /// The grant that the configuration supplies, read anew at every call. `None` where
    /// [`Capabilities::grant`] is [`GrantUse::None`].
    async fn configured_grant(&self) -> Result<Option<Secret>> {
        Ok(None)
    }

    /// Tells the upstream that a token is no longer used. Does nothing where [`Capabilities::revocable`] is false.
    async fn revoke(&self, _token: Secret) -> Result<()> {
        Ok(())
    }
}

/// A provider that many share.
pub type SharedProvider = Arc<dyn TokenProvider>;

/// What a provider can do and needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Whether it spends a grant.
    pub grant: GrantUse,
    /// Whether [`TokenProvider::revoke`] does anything.
    pub revocable: bool,
}

/// How a provider uses a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantUse {
    /// It has none.
    None,
    /// It needs one and may replace it.
    Refresh(Rotation),
}

/// What the upstream does with a refresh token that has been used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// It stays valid.
    None,
    /// It may be sent again for a while.
    Grace(Duration),
    /// Sent again, it ends the whole family (RFC 9700 section 4.14.2).
    Strict,
}

/// What to ask the upstream for.
#[derive(Clone, Debug)]
pub struct MintRequest {
    /// Scopes, audience and resources.
    pub key: TokenKey,
    /// The grant, where the provider needs one.
    pub grant: Option<Secret>,
}

/// The result of asking the upstream for a token.
pub type MintResult = std::result::Result<Minted, MintFailure>;

/// Why an attempt failed, and what it did to the grant all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MintFailure {
    /// What went wrong.
    pub error: Error,
    /// A refresh token that came in an answer which is otherwise unusable. It replaces the one that was sent, and must
    /// be stored before anything else is done.
    pub grant: Option<Secret>,
    /// Whether the upstream may have used up the grant that was sent, without a successor having come back. False where
    /// nothing was sent or the upstream certainly refused; true after a time-out or a connection that broke.
    pub in_doubt: bool,
}

impl MintFailure {
    /// A failure that certainly used up nothing.
    #[must_use]
    pub fn harmless(error: Error) -> Self {
        Self { error, grant: None, in_doubt: false }
    }

    /// A failure after which nobody knows whether the grant that was sent is still valid.
    #[must_use]
    pub fn in_doubt(error: Error) -> Self {
        Self { error, grant: None, in_doubt: true }
    }
}

impl From<Error> for MintFailure {
    /// In doubt, unless the error is permanent: a provider that knows better says so.
    fn from(error: Error) -> Self {
        let in_doubt = !error.kind().is_permanent();
        Self { error, grant: None, in_doubt }
    }
}

/// What the upstream gave.
#[derive(Clone)]
pub struct Minted {
    /// The access token: visible ASCII without spaces at its ends, never empty.
    pub access_token: Secret,
    /// How it is presented.
    pub token_type: String,
    /// How long it is valid, as the upstream or the configuration says. Zero: already expired.
    pub lifetime: Duration,
    /// The scopes granted, where the upstream told them.
    pub scopes: Option<Vec<String>>,
    /// What it returned beside the token, as configured.
    pub attributes: BTreeMap<String, String>,
    /// The new refresh token, if it sent one.
    pub grant: Option<Secret>,
}

impl fmt::Debug for Minted {
    /// Shows everything but the tokens and the values of the attributes, which the upstream chose.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Minted")
            .field("token_type", &self.token_type)
            .field("lifetime", &self.lifetime)
            .field("scopes", &self.scopes)
            .field("attributes", &self.attributes.keys())
            .field("grant", &self.grant)
            .finish_non_exhaustive()
    }
}
