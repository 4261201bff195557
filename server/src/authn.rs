//! Who calls: the seam, and the rule which proof decides where a caller shows several.

pub mod api_key;
pub mod jwt;
pub mod mtls;
pub mod rate;
pub mod spiffe;

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use async_trait::async_trait;

use crate::{
    error::{Error, ErrorKind, Result},
    time::SharedClock,
    types::{Caller, Evidence, Peer, PeerUser, Secret},
};

/// Finds out who calls.
#[async_trait]
pub trait Authenticator: fmt::Debug + Send + Sync + 'static {
    /// The caller at the other end.
    ///
    /// # Errors
    ///
    /// `NoIdentity` or `BadIdentity`; `StoreDown` or `UpstreamDown` where nobody can tell now.
    async fn authenticate(&self, evidence: &Evidence) -> Result<Caller>;

    /// The same, where it can be told without waiting for anything: what [`Authenticator::authenticate`] would answer.
    /// `None`: ask that.
    fn authenticate_now(&self, evidence: &Evidence) -> Option<Result<Caller>> {
        let _ = evidence;
        None
    }
}

/// Takes everybody for what they are, anonymous: dev mode, and deployments that say so in as many words.
#[derive(Debug)]
pub struct AnyCaller;

#[async_trait]
impl Authenticator for AnyCaller {
    async fn authenticate(&self, _evidence: &Evidence) -> Result<Caller> {
        Ok(Caller::anonymous())
    }

    fn authenticate_now(&self, _evidence: &Evidence) -> Option<Result<Caller>> {
        Some(Ok(Caller::anonymous()))
    }
}

/// The methods that are configured now: a reload replaces them all at once.
#[derive(Debug)]
pub struct Live(ArcSwap<Methods>);

impl Live {
    /// These, until they are replaced.
    #[must_use]
    pub fn new(methods: Methods) -> Self {
        Self(ArcSwap::from_pointee(methods))
    }

    /// From now on others.
    pub fn replace(&self, methods: Methods) {
        self.0.store(Arc::new(methods));
    }
}

#[async_trait]
impl Authenticator for Live {
    async fn authenticate(&self, evidence: &Evidence) -> Result<Caller> {
        self.0.load_full().authenticate(evidence).await
    }

    fn authenticate_now(&self, evidence: &Evidence) -> Option<Result<Caller>> {
        self.0.load().authenticate_now(evidence)
    }
}

/// Knows one kind of bearer token: an API key, or a JWT of one issuer.
#[async_trait]
pub trait BearerAuthenticator: fmt::Debug + Send + Sync + 'static {
    /// The caller that presents this token. `None`: the token is not of this kind, as its form tells.
    ///
    /// # Errors
    ///
    /// `BadIdentity`; `StoreDown` or `UpstreamDown` where nobody can tell now.
    async fn recognise(&self, token: &Secret) -> Result<Option<Caller>>;
}

/// All configured methods together.
///
/// A bearer token decides alone where there is one: a bad one is refused and never falls back on what the connection
/// shows, so that a caller is never somebody else than it said. Then the certificate decides, then the user at the other
/// end of a Unix socket.
#[derive(Clone, Debug)]
pub struct Methods {
    /// Whoever knows a kind of bearer token.
    pub bearers: Vec<Arc<dyn BearerAuthenticator>>,
    /// Whether a Unix socket's other end counts.
    pub peer_users: bool,
    /// Whether those who show nothing are let in as anonymous.
    pub anonymous: bool,
    /// What time it is.
    pub clock: SharedClock,
}

#[async_trait]
impl Authenticator for Methods {
    async fn authenticate(&self, evidence: &Evidence) -> Result<Caller> {
        match &evidence.bearer {
            Some(token) => self.unexpired(self.recognise(token.as_ref().map_err(|why| bad(why))?).await?),
            None => self.of_connection(evidence),
        }
    }

    fn authenticate_now(&self, evidence: &Evidence) -> Option<Result<Caller>> {
        evidence.bearer.is_none().then(|| self.of_connection(evidence))
    }
}

impl Methods {
    /// Whoever shows no bearer token is known by its connection.
    fn of_connection(&self, evidence: &Evidence) -> Result<Caller> {
        let caller = match (&evidence.certificate, evidence.peer) {
            (Some(certificate), _) => certificate.clone().map_err(bad)?,
            (None, Peer::Unix(Some(user))) if self.peer_users => caller_of(user),
            _ if self.anonymous => Caller::anonymous(),
            _ => return Err(Error::new(ErrorKind::NoIdentity, "the caller did not say who it is")),
        };
        self.unexpired(caller)
    }

    fn unexpired(&self, caller: Caller) -> Result<Caller> {
        // Most have no end, and need no clock.
        if caller.expires_at().is_some() && caller.is_expired(self.clock.now()) {
            return Err(bad("the caller's proof of identity has expired"));
        }
        Ok(caller)
    }

    async fn recognise(&self, token: &Secret) -> Result<Caller> {
        for bearer in &self.bearers {
            if let Some(caller) = bearer.recognise(token).await? {
                return Ok(caller);
            }
        }
        Err(bad("the bearer token is neither an API key nor a JWT of a configured issuer"))
    }
}

/// The user at the other end of a Unix socket; its group is the claim `gid`.
fn caller_of(user: PeerUser) -> Caller {
    let claims = [("gid".to_owned(), vec![user.gid.to_string()])].into();
    Caller::with_claims(format!("uid:{}", user.uid), claims, None)
}

fn bad(why: &'static str) -> Error {
    Error::new(ErrorKind::BadIdentity, why)
}

#[cfg(test)]
mod tests;
