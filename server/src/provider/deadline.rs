//! A provider whose every call ends in time.

use std::{future::Future, time::Duration};

use async_trait::async_trait;
use tokio::time::timeout;

use super::{Capabilities, MintFailure, MintRequest, MintResult, SharedProvider, TokenProvider};
use crate::{
    error::{Error, ErrorKind, Result},
    types::{Origin, Secret},
};

/// Bounds the calls of a provider in time. A call that is cut off fails with [`ErrorKind::UpstreamSlow`].
///
/// It is the last resort, for it cannot tell what was sent by then: the limits of the provider's own HTTP settings ought
/// to be shorter.
#[derive(Debug)]
pub struct DeadlineProvider {
    inner: SharedProvider,
    limit: Duration,
}

impl DeadlineProvider {
    /// Bounds the calls of `inner`.
    #[must_use]
    pub fn new(inner: SharedProvider, limit: Duration) -> Self {
        Self { inner, limit }
    }

    async fn bounded<T>(&self, call: impl Future<Output = T>) -> Result<T> {
        let slow =
            |_| Error::new(ErrorKind::UpstreamSlow, format!("the upstream did not answer within {:?}", self.limit));
        timeout(self.limit, call).await.map_err(slow)
    }
}

#[async_trait]
impl TokenProvider for DeadlineProvider {
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn endpoint(&self) -> Option<Origin> {
        self.inner.endpoint()
    }

    async fn mint(&self, request: MintRequest) -> MintResult {
        let has_grant = request.grant.is_some();
        let slow = |error| MintFailure { error, grant: None, in_doubt: has_grant };
        self.bounded(self.inner.mint(request)).await.map_err(slow)?
    }

    async fn configured_grant(&self) -> Result<Option<Secret>> {
        self.bounded(self.inner.configured_grant()).await?
    }

    async fn revoke(&self, token: Secret) -> Result<()> {
        self.bounded(self.inner.revoke(token)).await?
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        provider::GrantUse,
        types::{CredentialName, Selector, TokenKey},
    };

    #[derive(Debug)]
    struct Hung;

    #[async_trait]
    impl TokenProvider for Hung {
        fn kind(&self) -> &'static str {
            "hung"
        }
        fn capabilities(&self) -> Capabilities {
            Capabilities { grant: GrantUse::None, revocable: true }
        }
        async fn mint(&self, _: MintRequest) -> MintResult {
            std::future::pending().await
        }
        async fn revoke(&self, _: Secret) -> Result<()> {
            std::future::pending().await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_hung_call_ends_as_slow_and_leaves_a_grant_in_doubt() {
        let provider = DeadlineProvider::new(Arc::new(Hung), Duration::from_secs(10));
        let name = CredentialName::parse("c").expect("a valid name");
        let key = TokenKey::new(Selector::new(name, vec![], None, vec![]));
        for (grant, in_doubt) in [(None, false), (Some(Secret::from("rt")), true)] {
            let failure = provider.mint(MintRequest { key: key.clone(), grant }).await.unwrap_err();
            assert_eq!((failure.error.kind(), failure.in_doubt), (ErrorKind::UpstreamSlow, in_doubt));
            assert_eq!(failure.error.message(), "the upstream did not answer within 10s");
        }
        assert_eq!(provider.revoke(Secret::from("t")).await.unwrap_err().kind(), ErrorKind::UpstreamSlow);
    }
}
