//! The service, step by step: who calls, whether they may, and what they get.
//!
//! Each step returns a new type, and the next takes nothing else: a call becomes a [`Caller`], a request becomes
//! [`Authorized`], and only that opens the cache.

use std::sync::Arc;

use futures::{Stream, StreamExt as _};
use tokio::time::Instant;

use crate::{
    audit::{Actor, AuditEvent, AuditLog, AuditReader, Kind, Reason, Rpc, Source, TraceId},
    authn::Authenticator,
    cache::{
        Served, TokenCache,
        hub::Change,
        inspect::{CredentialReport, TokenReport},
        memory::Entry,
        within,
    },
    credential::Catalog,
    error::{Error, ErrorKind, Result},
    policy::{
        Action, Ask, AuditRequest, Authorized, CredentialRequest, Policy, RefreshRequest, ServerRequest, WatchRequest,
        authorize,
    },
    store::{AuditFilter, AuditRow, Rejected, Replica},
    types::{Caller, CredentialName, Peer, RejectedToken, Rejection, Selector, TokenKey, TokenRequest},
};

/// What the transport says about a call.
#[derive(Clone, Debug)]
pub struct Call {
    /// Who is at the other end.
    pub peer: Peer,
    /// When the caller stops waiting.
    pub deadline: Option<Instant>,
    /// The trace that the call belongs to.
    pub trace: Option<TraceId>,
}

impl Call {
    /// What is to be recorded of it, as far as it is known at once.
    fn event(&self, kind: Kind, rpc: Rpc) -> AuditEvent {
        let actor = Some(Actor::unknown(self.peer.clone()));
        AuditEvent { rpc: Some(rpc), actor, trace: self.trace, ..AuditEvent::new(kind) }
    }

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
    /// Records every call before it is answered.
    pub audit: AuditLog,
    /// Reads what was recorded.
    pub records: AuditReader,
}

impl Pipeline {
    /// A token.
    ///
    /// # Errors
    ///
    /// As [`TokenCache::get`]; `NoIdentity`, `BadIdentity`, `NotAllowed`; `AuditDown`, here and below.
    pub async fn get_token(&self, call: &Call, request: TokenRequest) -> Result<Served> {
        let mut event = call.event(Kind::TokenIssued, Rpc::GetToken);
        let served = self.serve(call, request, &mut event).await;
        let served = self.refused(&event, served)?;
        if served.entry.is_none() {
            event.kind = Kind::NotModified;
        }
        event.reason = Some(if served.hit { Reason::Hit } else { Reason::Miss });
        self.audit.record(about(event, &served.current)).await?;
        Ok(served)
    }

    async fn serve(&self, call: &Call, request: TokenRequest, event: &mut AuditEvent) -> Result<Served> {
        event.credential = Some(request.selector.credential.clone());
        let caller = self.identify(call, event).await?;
        let request = TokenRequest { selector: self.complete(request.selector), ..request };
        let request = authorize(&*self.policy, &caller, request)?;
        if let Some(rejected) = request.rejected {
            // Queued before the token that takes its place, and so written no later.
            let (kind, generation) = (Kind::Rejection, Some(rejected));
            self.audit.note(AuditEvent { kind, generation, reason: Some(Reason::Report), ..event.clone() });
        }
        self.cache.get(&request, call.deadline).await
    }

    /// The changes of a token, the current one first. Ends with the first that cannot be recorded.
    ///
    /// # Errors
    ///
    /// As [`TokenCache::watch`]; `NoIdentity`, `BadIdentity`, `NotAllowed`.
    pub async fn watch(&self, call: &Call, selector: Selector) -> Result<impl Stream<Item = Result<Change>> + use<>> {
        let mut event = call.event(Kind::WatchOpened, Rpc::WatchTokens);
        event.credential = Some(selector.credential.clone());
        let watched = async {
            let request = self.admit(call, WatchRequest(self.complete(selector)), &mut event).await?;
            self.cache.watch(&request).map(|changes| (changes, TokenKey::new(request.0.clone())))
        };
        let watched = watched.await;
        let (changes, key) = self.refused(&event, watched)?;
        event.key = Some(key);
        // No token leaves with this answer; each that follows is waited for.
        self.audit.note(event.clone());
        let (audit, event) = (self.audit.clone(), AuditEvent { kind: Kind::TokenPushed, ..event });
        Ok(changes.then(move |change| {
            let (audit, event) = (audit.clone(), event.clone());
            async move {
                if let Change::Token(entry) = &change {
                    audit.record(about(event, entry)).await?;
                }
                Ok(change)
            }
        }))
    }

    /// A report that the upstream refused a token.
    ///
    /// # Errors
    ///
    /// As [`TokenCache::reject`]; `NoIdentity`, `BadIdentity`, `NotAllowed`.
    pub async fn invalidate(&self, call: &Call, rejection: Rejection) -> Result<Rejected> {
        let mut event = call.event(Kind::Rejection, Rpc::InvalidateToken);
        event.credential = Some(rejection.selector.credential.clone());
        event.http_status = rejection.http_status;
        match rejection.rejected {
            RejectedToken::Generation(generation) => event.generation = Some(generation),
            RejectedToken::Fingerprint(fingerprint) => event.fingerprint = Some(fingerprint),
        }
        let rejected = async {
            let rejection = Rejection { selector: self.complete(rejection.selector), ..rejection };
            let rejection = self.admit(call, rejection, &mut event).await?;
            event.key = Some(TokenKey::new(rejection.selector.clone()));
            call.within(self.cache.reject(&rejection)).await
        };
        let rejected = rejected.await;
        let rejected = self.refused(&event, rejected)?;
        event.reason = Some(if rejected.invalidated { Reason::Invalidated } else { Reason::Unchanged });
        self.audit.record(event).await?;
        Ok(rejected)
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
        let mut event = call.event(Kind::AdminCall, Rpc::ListCredentials);
        let listed = async {
            let caller = self.identify(call, &mut event).await?;
            let names = self.catalog.iter().map(|credential| &credential.name);
            let later = names.filter(|name| after.is_none_or(|after| *name > after));
            let visible = later.filter_map(|name| self.visible(&caller, name));
            let mut reports = Vec::new();
            for request in visible.take(limit) {
                reports.push(call.within(self.cache.summary(&request)).await?);
            }
            Ok(reports)
        };
        let listed = listed.await;
        self.recorded(event, listed).await
    }

    /// One credential, explained.
    ///
    /// # Errors
    ///
    /// As [`TokenCache::describe`]; `NoIdentity`, `BadIdentity`, `NotAllowed`.
    pub async fn describe(&self, call: &Call, name: CredentialName) -> Result<CredentialReport> {
        let mut event = call.event(Kind::AdminCall, Rpc::DescribeCredential);
        event.credential = Some(name.clone());
        let described = async {
            let request = self.admit(call, CredentialRequest { name, action: Action::Inspect }, &mut event).await?;
            call.within(self.cache.describe(&request)).await
        };
        let described = described.await;
        self.recorded(event, described).await
    }

    /// Replaces a token at an operator's order.
    ///
    /// # Errors
    ///
    /// As [`TokenCache::refresh`]; `NoIdentity`, `BadIdentity`, `NotAllowed`.
    pub async fn refresh(&self, call: &Call, selector: Selector) -> Result<TokenReport> {
        let mut event = call.event(Kind::AdminCall, Rpc::RefreshToken);
        event.credential = Some(selector.credential.clone());
        let refreshed = async {
            let request = self.admit(call, RefreshRequest(self.complete(selector)), &mut event).await?;
            call.within(self.cache.refresh(&request)).await
        };
        let refreshed = refreshed.await;
        if let Ok(report) = &refreshed {
            event.key = Some(report.key.clone());
            event.generation = Some(report.generation);
            event.fingerprint = report.token.as_ref().map(|token| token.fingerprint);
        }
        self.recorded(event, refreshed).await
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
        let mut event = call.event(Kind::AdminCall, Rpc::InvalidateCredentials);
        let invalidated = async {
            let caller = self.identify(call, &mut event).await?;
            let selected = self.catalog.iter().filter(|c| selects(&c.name, c.provider.kind()));
            let (mut names, mut tokens) = (Vec::new(), 0);
            for name in selected.map(|credential| credential.name.clone()) {
                let request = CredentialRequest { name: name.clone(), action: Action::Operate };
                let count = match authorize(&*self.policy, &caller, request) {
                    Ok(request) => call.within(self.cache.invalidate_all(&request, dry_run)).await?,
                    Err(error) if error.kind() == ErrorKind::NotAllowed => continue,
                    Err(error) => return Err(error),
                };
                if !dry_run {
                    let (credential, reason) = (Some(name.clone()), Some(Reason::Invalidated));
                    self.audit.note(AuditEvent { credential, reason, count: Some(count), ..event.clone() });
                }
                tokens += count;
                names.push(name);
            }
            Ok((names, tokens))
        };
        let invalidated = invalidated.await;
        event.count = invalidated.as_ref().ok().map(|(_, tokens)| *tokens);
        self.recorded(event, invalidated).await
    }

    /// Lets a caller see what concerns the broker itself.
    ///
    /// # Errors
    ///
    /// `NoIdentity`, `BadIdentity`, `NotAllowed`.
    pub async fn inspect_server(&self, call: &Call) -> Result<Authorized<ServerRequest>> {
        let mut event = call.event(Kind::AdminCall, Rpc::GetServerInfo);
        let admitted = self.admit(call, ServerRequest, &mut event).await;
        self.recorded(event, admitted).await
    }

    /// The replicas that share the store.
    ///
    /// # Errors
    ///
    /// `StoreDown`; `NoIdentity`, `BadIdentity`, `NotAllowed`.
    pub async fn list_replicas(&self, call: &Call) -> Result<Vec<Replica>> {
        let mut event = call.event(Kind::AdminCall, Rpc::ListReplicas);
        let listed = async {
            let request = self.admit(call, ServerRequest, &mut event).await?;
            self.cache.replicas(&request).await
        };
        let listed = listed.await;
        self.recorded(event, listed).await
    }

    /// What was recorded: events after the place `after`, at most `limit`, and where they were read.
    ///
    /// # Errors
    ///
    /// `StoreDown`; `NoIdentity`, `BadIdentity`, `NotAllowed`.
    pub async fn list_audit(
        &self,
        call: &Call,
        after: u64,
        filter: &AuditFilter,
        limit: u32,
    ) -> Result<(Source, Vec<AuditRow>)> {
        let mut event = call.event(Kind::AdminCall, Rpc::ListAuditEvents);
        let listed = async {
            self.admit(call, AuditRequest, &mut event).await?;
            let rows = call.within(self.records.page(after, filter, limit)).await?;
            Ok((self.records.source(), rows))
        };
        let listed = listed.await;
        self.recorded(event, listed).await
    }

    /// What is recorded from now on, or from `filter.from`, and where it is read.
    ///
    /// # Errors
    ///
    /// `NoIdentity`, `BadIdentity`, `NotAllowed`; in the stream `StoreDown`, which ends it.
    pub async fn tail_audit(
        &self,
        call: &Call,
        filter: AuditFilter,
    ) -> Result<(Source, impl Stream<Item = Result<AuditRow>> + Send + use<>)> {
        let mut event = call.event(Kind::AdminCall, Rpc::TailAuditEvents);
        let admitted = self.admit(call, AuditRequest, &mut event).await;
        self.recorded(event, admitted).await?;
        Ok((self.records.source(), self.records.tail(filter)))
    }

    /// Records a call that was turned away before it came here: its request was invalid. Returns the error.
    #[must_use]
    pub fn turn_away(&self, call: &Call, rpc: Rpc, error: Error) -> Error {
        self.audit.refuse(refusal(call.event(Kind::CallRefused, rpc), &error));
        error
    }

    /// Records a call of an operator before it is answered.
    async fn recorded<T>(&self, event: AuditEvent, result: Result<T>) -> Result<T> {
        let answer = self.refused(&event, result)?;
        self.audit.record(event).await?;
        Ok(answer)
    }

    /// Records a call that is answered with an error.
    fn refused<T>(&self, event: &AuditEvent, result: Result<T>) -> Result<T> {
        result.inspect_err(|error| self.audit.refuse(refusal(event.clone(), error)))
    }

    async fn identify(&self, call: &Call, event: &mut AuditEvent) -> Result<Caller> {
        let caller = self.authn.authenticate(&call.peer).await?;
        event.actor = Some(Actor::from(&caller));
        Ok(caller)
    }

    async fn admit<T: Ask>(&self, call: &Call, request: T, event: &mut AuditEvent) -> Result<Authorized<T>> {
        let caller = self.identify(call, event).await?;
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

/// An event about a token that is handed out.
fn about(event: AuditEvent, entry: &Entry) -> AuditEvent {
    AuditEvent {
        key: Some(entry.key.clone()),
        generation: Some(entry.token.generation),
        fingerprint: Some(entry.token.fingerprint),
        ..event
    }
}

/// The same call, answered with an error.
fn refusal(event: AuditEvent, error: &Error) -> AuditEvent {
    AuditEvent { kind: Kind::CallRefused, error: Some(error.kind()), ..event }
}
