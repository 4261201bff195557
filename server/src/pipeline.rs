//! The service, step by step: who calls, whether they may, and what they get.
//!
//! Each step returns a new type, and the next takes nothing else: a [`Call`] becomes [`Identified`], its request becomes
//! [`Authorized`], and only that opens the cache.

use std::{sync::Arc, time::Duration};

use futures::Stream;
use tokio::time::{Instant, sleep};

use crate::{
    authn::{Authenticator, rate::CallerRate},
    cache::{
        Served, TokenCache,
        hub::Change,
        inspect::{CredentialReport, TokenReport},
        within,
    },
    credential::Catalog,
    error::{Error, ErrorKind, Result},
    policy::{
        Action, Ask, Authorized, CredentialRequest, Policy, RefreshRequest, ServerRequest, WatchRequest, authorize,
    },
    store::{Rejected, Replica},
    types::{Caller, CredentialName, Evidence, Rejection, Selector, TokenRequest},
};

/// How often it is looked again whether a watcher may still watch.
const SECOND_LOOK: Duration = Duration::from_secs(5);

/// What the transport says about a call.
#[derive(Clone, Debug)]
pub struct Call {
    /// What the caller shows of itself.
    pub evidence: Evidence,
    /// When the caller stops waiting.
    pub deadline: Option<Instant>,
}

/// A call whose caller is known: what everything else begins with.
#[derive(Clone, Debug)]
pub struct Identified {
    /// Who calls.
    pub caller: Caller,
    call: Call,
}

impl Identified {
    /// Ends a piece of work at the caller's deadline. The transport would do so as well, but in words of its own.
    async fn within<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        match self.call.deadline {
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
    /// How often each may call. `None`: as often as they like.
    pub rate: Option<Arc<CallerRate>>,
    /// Decides whether they may.
    pub policy: Arc<dyn Policy>,
    /// What is configured.
    pub catalog: Catalog,
    /// Brings the tokens.
    pub cache: Arc<TokenCache>,
}

impl Pipeline {
    /// Who calls.
    ///
    /// # Errors
    ///
    /// `NoIdentity`, `BadIdentity`, `TooManyRequests`; `StoreDown` or `UpstreamDown` where nobody can tell now.
    pub async fn identify(&self, call: Call) -> Result<Identified> {
        let caller = self.authn.authenticate(&call.evidence).await?;
        if let Some(rate) = &self.rate {
            rate.check(&caller)?;
        }
        Ok(Identified { caller, call })
    }

    /// A token.
    ///
    /// # Errors
    ///
    /// As [`TokenCache::get`]; `NotAllowed`.
    pub async fn get_token(&self, call: &Identified, request: TokenRequest) -> Result<Served> {
        let request = TokenRequest { selector: self.complete(request.selector), ..request };
        let request = self.admit(call, request)?;
        self.cache.get(&request, call.call.deadline).await
    }

    /// The changes of a token, the current one first.
    ///
    /// # Errors
    ///
    /// As [`TokenCache::watch`]; `NotAllowed`.
    pub fn watch(&self, call: &Identified, selector: Selector) -> Result<impl Stream<Item = Change> + use<>> {
        let request = self.admit(call, WatchRequest(self.complete(selector)))?;
        self.cache.watch(&request)
    }

    /// Waits until the caller may no longer be told of these tokens: its identity has expired or was revoked, or the
    /// policy has changed. Whoever cannot be judged now is judged later.
    pub async fn loses_right(&self, call: &Identified, selectors: &[Selector]) -> Error {
        loop {
            sleep(SECOND_LOOK).await;
            let caller = match self.authn.authenticate(&call.call.evidence).await {
                Ok(caller) => caller,
                Err(error) if matches!(error.kind(), ErrorKind::NoIdentity | ErrorKind::BadIdentity) => return error,
                Err(_) => continue,
            };
            for selector in selectors {
                let request = WatchRequest(self.complete(selector.clone()));
                if let Err(error) = authorize(&*self.policy, &caller, request) {
                    return error;
                }
            }
        }
    }

    /// A report that the upstream refused a token.
    ///
    /// # Errors
    ///
    /// As [`TokenCache::reject`]; `NotAllowed`.
    pub async fn invalidate(&self, call: &Identified, rejection: Rejection) -> Result<Rejected> {
        let rejection = Rejection { selector: self.complete(rejection.selector), ..rejection };
        let rejection = self.admit(call, rejection)?;
        call.within(self.cache.reject(&rejection)).await
    }

    /// The credentials that the caller may see, in the order of their names: those after `after`, at most `limit`.
    ///
    /// # Errors
    ///
    /// `StoreDown`.
    pub async fn list(
        &self,
        call: &Identified,
        after: Option<&CredentialName>,
        limit: usize,
    ) -> Result<Vec<CredentialReport>> {
        let names = self.catalog.iter().map(|credential| &credential.name);
        let later = names.filter(|name| after.is_none_or(|after| *name > after));
        let visible = later.filter_map(|name| self.visible(&call.caller, name));
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
    /// As [`TokenCache::describe`]; `NotAllowed`.
    pub async fn describe(&self, call: &Identified, name: CredentialName) -> Result<CredentialReport> {
        let request = self.admit(call, CredentialRequest { name, action: Action::Inspect })?;
        call.within(self.cache.describe(&request)).await
    }

    /// Replaces a token at an operator's order.
    ///
    /// # Errors
    ///
    /// As [`TokenCache::refresh`]; `NotAllowed`.
    pub async fn refresh(&self, call: &Identified, selector: Selector) -> Result<TokenReport> {
        let request = self.admit(call, RefreshRequest(self.complete(selector)))?;
        call.within(self.cache.refresh(&request)).await
    }

    /// Invalidates the tokens of the credentials that `selects` picks and the caller may operate on. Returns their
    /// names and how many tokens there were.
    ///
    /// # Errors
    ///
    /// `StoreDown`. What was invalidated before stays so.
    pub async fn invalidate_credentials(
        &self,
        call: &Identified,
        selects: impl Fn(&CredentialName, &str) -> bool,
        dry_run: bool,
    ) -> Result<(Vec<CredentialName>, u64)> {
        let selected = self.catalog.iter().filter(|c| selects(&c.name, c.provider.kind()));
        let (mut names, mut tokens) = (Vec::new(), 0);
        for name in selected.map(|credential| credential.name.clone()) {
            let request = CredentialRequest { name: name.clone(), action: Action::Operate };
            match self.admit(call, request) {
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
    /// `NotAllowed`.
    pub fn inspect_server(&self, call: &Identified) -> Result<Authorized<ServerRequest>> {
        self.admit(call, ServerRequest)
    }

    /// The replicas that share the store.
    ///
    /// # Errors
    ///
    /// `StoreDown`, `NotAllowed`.
    pub async fn list_replicas(&self, call: &Identified) -> Result<Vec<Replica>> {
        let request = self.admit(call, ServerRequest)?;
        self.cache.replicas(&request).await
    }

    fn admit<T: Ask>(&self, call: &Identified, request: T) -> Result<Authorized<T>> {
        authorize(&*self.policy, &call.caller, request)
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
