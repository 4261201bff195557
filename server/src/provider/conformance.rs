//! What every provider must do, whatever its kind.
//!
//! A plug-in's tests implement [`Harness`] and call [`check`]. What is demanded depends on the provider's
//! [`Capabilities`](super::Capabilities), never on its kind.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use super::{GrantUse, MintFailure, MintRequest, SharedProvider, TokenProvider as _, deadline::DeadlineProvider};
use crate::{
    error::ErrorKind,
    types::{CredentialName, Secret, Selector, TokenKey},
};

/// A text that no error, no Debug and no log may show. A harness puts it into every secret of its configuration and
/// into every body of its upstream, the tokens included.
pub const CANARY: &str = "c4n4ry";

/// How the upstream of a provider behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upstream {
    /// As it should, with tokens that contain [`CANARY`].
    Works,
    /// It answers every request with an internal error, and a body that contains [`CANARY`].
    Fails,
    /// It answers every request as if all were well, with [`CANARY`] instead of what was asked for.
    Babbles,
    /// It accepts connections and never answers.
    Hangs,
    /// Nobody listens.
    IsGone,
}

/// Sets up a provider to be checked.
#[async_trait]
pub trait Harness: Sync {
    /// Whether there is an upstream at all. Without one only [`Upstream::Works`] is asked for.
    fn has_upstream(&self) -> bool {
        true
    }

    /// Whether that is a server with an address, whose callers share a budget.
    fn has_endpoint(&self) -> bool {
        self.has_upstream()
    }

    /// A provider whose upstream behaves like this. Its own time limits are longer than a second.
    async fn provider(&self, upstream: Upstream) -> SharedProvider;
}

/// A request for nothing in particular, without a grant.
///
/// # Panics
///
/// Never: its name is valid.
#[must_use]
pub fn request() -> MintRequest {
    let name = CredentialName::parse("conformance").expect("a valid name");
    MintRequest { key: TokenKey::new(Selector::new(name, vec![], None, vec![])), grant: None }
}

/// Checks everything.
///
/// # Panics
///
/// If the provider does not conform.
pub async fn check(harness: &dyn Harness) {
    let provider = harness.provider(Upstream::Works).await;
    a_token_is_minted(&provider).await;
    two_mints_run_at_once(&provider).await;
    a_missing_grant_needs_a_person(&provider).await;
    the_configured_grant_is_there_iff_one_is_used(&provider).await;
    revoking_succeeds(&provider).await;
    the_endpoint_is_told_and_stays_the_same(&provider, harness.has_endpoint());
    assert_no_canary("Debug of the provider", &format!("{provider:?}"));
    if harness.has_upstream() {
        for upstream in [Upstream::Fails, Upstream::Babbles, Upstream::IsGone] {
            a_failure_is_transient_and_discreet(upstream, &harness.provider(upstream).await).await;
        }
        a_hung_upstream_is_slow(harness.provider(Upstream::Hangs).await).await;
    }
}

/// A request as the cache would make it: with the configured grant where one is used.
async fn full_request(provider: &SharedProvider) -> MintRequest {
    let grant = provider.configured_grant().await.expect("the configured grant can be read");
    MintRequest { grant, ..request() }
}

async fn a_token_is_minted(provider: &SharedProvider) {
    let minted = provider.mint(full_request(provider).await).await.expect("a token from an upstream that works");
    let token = minted.access_token.expose();
    let is_visible = token.trim() == token && token.bytes().all(|b| (0x20..=0x7e).contains(&b));
    assert!(!token.is_empty() && is_visible, "the token cannot stand in a header");
    assert!(!minted.token_type.is_empty(), "the token has no type");
    assert!(!minted.lifetime.is_zero(), "the token has expired at once");
    assert!(minted.grant.is_none() || provider.capabilities().grant != GrantUse::None, "a grant without a use");
    assert_no_canary("Debug of a token", &format!("{minted:?}"));
}

fn the_endpoint_is_told_and_stays_the_same(provider: &SharedProvider, has_endpoint: bool) {
    let endpoint = provider.endpoint();
    assert_eq!(endpoint.is_some(), has_endpoint, "{endpoint:?}");
    assert_eq!(provider.endpoint(), endpoint, "the budget of an endpoint cannot follow one that moves");
    let bounded = DeadlineProvider::new(Arc::clone(provider), Duration::from_secs(1));
    assert_eq!(bounded.endpoint(), endpoint, "a decorator hides the endpoint");
}

async fn two_mints_run_at_once(provider: &SharedProvider) {
    let (one, other) = (full_request(provider).await, full_request(provider).await);
    let (one, other) = tokio::join!(provider.mint(one), provider.mint(other));
    assert!(one.is_ok() && other.is_ok(), "two mints at once failed: {one:?}, {other:?}");
}

async fn a_missing_grant_needs_a_person(provider: &SharedProvider) {
    if provider.capabilities().grant == GrantUse::None {
        return;
    }
    let failure = provider.mint(request()).await.expect_err("a mint without the grant that it needs");
    assert_eq!(failure.error.kind(), ErrorKind::NeedsReauth, "{failure:?}");
    assert!(!failure.in_doubt, "nothing was sent");
}

async fn the_configured_grant_is_there_iff_one_is_used(provider: &SharedProvider) {
    let is_used = provider.capabilities().grant != GrantUse::None;
    let grant = provider.configured_grant().await.expect("the configured grant can be read");
    assert_eq!(grant.is_some(), is_used, "the configured grant does not fit the capabilities");
}

async fn revoking_succeeds(provider: &SharedProvider) {
    let minted = provider.mint(full_request(provider).await).await.expect("a token from an upstream that works");
    provider.revoke(minted.access_token).await.expect("revoking a token");
}

async fn a_failure_is_transient_and_discreet(upstream: Upstream, provider: &SharedProvider) {
    let request = full_request(provider).await;
    let has_grant = request.grant.is_some();
    let failure = provider.mint(request).await.expect_err("a mint at a broken upstream");
    assert_discreet(&failure);
    assert!(!failure.error.kind().is_permanent(), "{upstream:?}: {failure:?}");
    assert!(failure.grant.is_none(), "{upstream:?}: a grant out of nothing");
    let may_have_been_used = has_grant && upstream != Upstream::IsGone;
    assert_eq!(failure.in_doubt, may_have_been_used, "{upstream:?}: {failure:?}");
    if provider.capabilities().revocable {
        let revoked = provider.revoke(Secret::from(CANARY)).await;
        assert!(upstream == Upstream::Babbles || revoked.is_err(), "{upstream:?}: revoked by nobody");
        assert_no_canary("an error", &format!("{revoked:?}"));
    }
}

async fn a_hung_upstream_is_slow(provider: SharedProvider) {
    let request = full_request(&provider).await;
    let has_grant = request.grant.is_some();
    let bounded = DeadlineProvider::new(Arc::clone(&provider), Duration::from_millis(100));
    let failure = bounded.mint(request).await.expect_err("a mint at a hung upstream");
    assert_eq!((failure.error.kind(), failure.in_doubt), (ErrorKind::UpstreamSlow, has_grant), "{failure:?}");
    assert_discreet(&failure);
}

fn assert_discreet(failure: &MintFailure) {
    assert_no_canary("an error", &format!("{} {failure:?}", failure.error));
    assert!(!failure.error.message().ends_with('.'), "an error with a trailing dot: {}", failure.error);
}

fn assert_no_canary(what: &str, text: &str) {
    assert!(!text.contains(CANARY), "{what} shows a secret");
}

#[cfg(test)]
mod tests;
