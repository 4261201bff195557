//! The service, step by step: who calls, whether they may, and what they get.
//!
//! Each step returns a new type, and the next takes nothing else: a call becomes a [`Caller`], a request becomes
//! [`Authorized`], and only that opens the cache.

use std::sync::Arc;

use futures::Stream;
use tokio::time::Instant;

use crate::{
    authn::Authenticator,
    cache::{
        Served, TokenCache,
        hub::Change,
        inspect::{CredentialReport, TokenReport},
        within,
    },
    credential::Catalog,
    error::{ErrorKind, Result},
    policy::{
        Action, Ask, Authorized, CredentialRequest, Policy, RefreshRequest, RotateKeyRequest, ServerRequest,
        WatchRequest, authorize,
    },
    store::{Rejected, Replica, sealed::KeyCensus},
    types::{Caller, CredentialName, Peer, Rejection, Selector, TokenRequest},
};

/// What the transport says about a call.
#[derive(Clone, Debug)]
pub struct Call {
    /// Who is at the other end.
    pub peer: Peer,
    /// When the caller stops waiting.
    pub deadline: Option<Instant>,
}

impl Call {
    /// Ends a piece of work at the caller's deadline. The transport would do so as well, but in words of its own.
    async fn within<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        match self.deadline {
            Some(deadline) => within(deadline, work).await,
            None => work.await,
        }
    }
}

/// The service.
#[derive(Clone, Debug)]
pub struct Pipeline {
    /// Finds out who calls.
    pub authn: Arc<dyn Authenticator>,
    /// Decides whether they may.
    pub policy: Arc<dyn Policy>,
    /// What is configured.
    pub catalog: Catalog,
    /// Brings the tokens.
    pub cache: Arc<TokenCache>,
}

impl Pipeline {
    /// A token.
    ///
    /// # Errors
    ///
    /// As [`TokenCache::get`]; `NoIdentity`, `BadIdentity`, `NotAllowed`.
    pub async fn get_token(&self, call: &Call, request: TokenRequest) -> Result<Served> {
        let caller = self.authn.authenticate(&call.peer).await?;
        let request = TokenRequest { selector: self.complete(request.selector), ..request };
        let request = authorize(&*self.policy, &caller, request)?;
        self.cache.get(&request, call.deadline).await
    }

    /// The changes of a token, the current one first.
    ///
    /// # Errors
    ///
    /// As [`TokenCache::watch`]; `NoIdentity`, `BadIdentity`, `NotAllowed`.
    pub async fn watch(&self, call: &Call, selector: Selector) -> Result<impl Stream<Item = Change> + use<>> {
        let request = self.admit(call, WatchRequest(self.complete(selector))).await?;
        self.cache.watch(&request)
    }

    /// A report that the upstream refused a token.
    ///
    /// # Errors
    ///
    /// As [`TokenCache::reject`]; `NoIdentity`, `BadIdentity`, `NotAllowed`.
    pub async fn invalidate(&self, call: &Call, rejection: Rejection) -> Result<Rejected> {
        let rejection = Rejection { selector: self.complete(rejection.selector), ..rejection };
        let rejection = self.admit(call, rejection).await?;
        call.within(self.cache.reject(&rejection)).await
    }

    /// The credentials that the caller may see, in the order of their names: those after `after`, at most `limit`.
    ///
    /// # Errors
    ///
    /// `StoreDown`; `NoIdentity`, `BadIdentity`.
    pub async fn list(
        &self,
        call: &Call,
        after: Option<&CredentialName>,
        limit: usize,
    ) -> Result<Vec<CredentialReport>> {
        let caller = self.authn.authenticate(&call.peer).await?;
        let names = self.catalog.iter().map(|credential| &credential.name);
        let later = names.filter(|name| after.is_none_or(|after| *name > after));
        let visible = later.filter_map(|name| self.visible(&caller, name));
        let mut reports = Vec::new();
        for request in visible.take(limit) {
            reports.push(call.within(self.cache.summary(&request)).await?);
        }
        Ok(reports)
    }

    /// One credential, explained.
    ///
    /// # Errors
    ///
    /// As [`TokenCache::describe`]; `NoIdentity`, `BadIdentity`, `NotAllowed`.
    pub async fn describe(&self, call: &Call, name: CredentialName) -> Result<CredentialReport> {
        let request = self.admit(call, CredentialRequest { name, action: Action::Inspect }).await?;
        call.within(self.cache.describe(&request)).await
    }

    /// Replaces a token at an operator's order.
    ///
    /// # Errors
    ///
    /// As [`TokenCache::refresh`]; `NoIdentity`, `BadIdentity`, `NotAllowed`.
    pub async fn refresh(&self, call: &Call, selector: Selector) -> Result<TokenReport> {
        let request = self.admit(call, RefreshRequest(self.complete(selector))).await?;
        call.within(self.cache.refresh(&request)).await
    }

    /// Invalidates the tokens of the credentials that `selects` picks and the caller may operate on. Returns their
    /// names and how many tokens there were.
    ///
    /// # Errors
    ///
    /// `StoreDown`, `NoIdentity`, `BadIdentity`. What was invalidated before stays so.
    pub async fn invalidate_credentials(
        &self,
        call: &Call,
        selects: impl Fn(&CredentialName, &str) -> bool,
        dry_run: bool,
    ) -> Result<(Vec<CredentialName>, u64)> {
        let caller = self.authn.authenticate(&call.peer).await?;
        let selected = self.catalog.iter().filter(|c| selects(&c.name, c.provider.kind()));
        let (mut names, mut tokens) = (Vec::new(), 0);
        for name in selected.map(|credential| credential.name.clone()) {
            let request = CredentialRequest { name: name.clone(), action: Action::Operate };
            match authorize(&*self.policy, &caller, request) {
                Ok(request) => tokens += call.within(self.cache.invalidate_all(&request, dry_run)).await?,
                Err(error) if error.kind() == ErrorKind::NotAllowed => continue,
                Err(error) => return Err(error),
            }
            names.push(name);
        }
        Ok((names, tokens))
    }

    /// Lets a caller see what concerns the broker itself.
    ///
    /// # Errors
    ///
    /// `NoIdentity`, `BadIdentity`, `NotAllowed`.
    pub async fn inspect_server(&self, call: &Call) -> Result<Authorized<ServerRequest>> {
        self.admit(call, ServerRequest).await
    }

    /// The replicas that share the store.
    ///
    /// # Errors
    ///
    /// `StoreDown`; `NoIdentity`, `BadIdentity`, `NotAllowed`.
    pub async fn list_replicas(&self, call: &Call) -> Result<Vec<Replica>> {
        let request = self.admit(call, ServerRequest).await?;
        self.cache.replicas(&request).await
    }

    /// Seals everything in the store with the active key; with `dry_run` only counts.
    ///
    /// # Errors
    ///
    /// `Misconfigured` where there is no key, `StoreDown`; `NoIdentity`, `BadIdentity`, `NotAllowed`.
    pub async fn rotate_key(&self, call: &Call, dry_run: bool) -> Result<KeyCensus> {
        let request = self.admit(call, RotateKeyRequest { dry_run }).await?;
        call.within(self.cache.rotate_key(&request)).await
    }

    async fn admit<T: Ask>(&self, call: &Call, request: T) -> Result<Authorized<T>> {
        let caller = self.authn.authenticate(&call.peer).await?;
        authorize(&*self.policy, &caller, request)
    }

    fn visible(&self, caller: &Caller, name: &CredentialName) -> Option<Authorized<CredentialRequest>> {
        let request = CredentialRequest { name: name.clone(), action: Action::Inspect };
        authorize(&*self.policy, caller, request).ok()
    }

    /// Fills in what the credential's configuration says, so that the policy sees what will really be asked for. An
    /// unknown credential stays as it is: whether it exists is told to those alone who may know.
    fn complete(&self, selector: Selector) -> Selector {
        match self.catalog.get(&selector.credential) {
            Some(credential) => credential.defaults.complete(selector),
            None => selector,
        }
    }
}
