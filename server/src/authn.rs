//! Who calls: the seam.

use std::fmt;

use async_trait::async_trait;

use crate::{
    error::Result,
    types::{Caller, Peer},
};

/// Finds out who calls.
#[async_trait]
pub trait Authenticator: fmt::Debug + Send + Sync + 'static {
    /// The caller at the other end.
    ///
    /// # Errors
    ///
    /// `NoIdentity` or `BadIdentity`.
    async fn authenticate(&self, peer: &Peer) -> Result<Caller>;
}

/// Takes everybody for what they are, anonymous: dev mode, and deployments that say so in as many words.
#[derive(Debug)]
pub struct AnyCaller;

#[async_trait]
impl Authenticator for AnyCaller {
    async fn authenticate(&self, peer: &Peer) -> Result<Caller> {
        Ok(Caller::Anonymous(peer.clone()))
    }
}
