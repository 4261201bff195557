//! The resolver of the connections: what it does not give out is not connected to.

use std::{fmt, io, net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::Egress;

/// Finds the addresses of a name.
#[async_trait]
pub(crate) trait Lookup: fmt::Debug + Send + Sync {
    async fn lookup(&self, name: &str) -> io::Result<Vec<SocketAddr>>;
}

/// Asks the operating system.
#[derive(Debug)]
pub(crate) struct SystemLookup;

#[async_trait]
impl Lookup for SystemLookup {
    async fn lookup(&self, name: &str) -> io::Result<Vec<SocketAddr>> {
        // The client puts the port of the URL in the place of this one.
        Ok(tokio::net::lookup_host((name, 0)).await?.collect())
    }
}

/// Resolves for a connection and judges what it found, in one step: what is connected to is what was judged, so that a
/// name that changes in between (DNS rebinding) gains nothing.
#[derive(Clone, Debug)]
pub(crate) struct GuardedResolver {
    egress: Arc<Egress>,
    lookup: Arc<dyn Lookup>,
}

impl GuardedResolver {
    pub(crate) fn new(egress: Egress, lookup: Arc<dyn Lookup>) -> Self {
        Self { egress: Arc::new(egress), lookup }
    }
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let Self { egress, lookup } = self.clone();
        Box::pin(async move {
            let found = lookup.lookup(name.as_str()).await?;
            let allowed = egress.filter(name.as_str(), found)?;
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}
