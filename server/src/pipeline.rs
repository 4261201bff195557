//! The service, step by step: who calls, whether they may, and what they get.
//!
//! Each step returns a new type, and the next takes nothing else: a [`Call`] becomes [`Identified`], its request becomes
//! [`Authorized`], and only that opens the cache.

use std::{sync::Arc, time::Duration};

use futures::{
    FutureExt as _, Stream, StreamExt as _,
    future::{Either, ready},
};
use tokio::time::{Instant, sleep};

use crate::{
    audit::{Actor, AuditEvent, AuditLog, AuditReader, Kind, Reason, Receipt, Rpc, Source, TraceId},
    authn::{Authenticator, rate::CallerRate},
    cache::{
        Served, TokenCache,
        hub::Change,
        inspect::{CredentialReport, TokenReport},
        memory::Entry,
        within,
    },
    credential::Catalog,
    error::{Error, ErrorKind, Result},
    metrics::Counted,
    policy::{
        Action, Ask, AuditRequest, Authorized, CredentialRequest, Policy, RefreshRequest, RotateKeyRequest,
        ServerRequest, WatchRequest, authorize,
    },
    store::{AuditFilter, AuditRow, Rejected, Replica, sealed::KeyCensus},
    types::{Caller, CredentialName, Evidence, RejectedToken, Rejection, Selector, TokenKey, TokenRequest},
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
    /// The trace that the call belongs to.
    pub trace: Option<TraceId>,
}

/// A call whose caller is known: what everything else begins with.
#[derive(Clone, Debug)]
pub struct Identified {
    /// Who calls.
    pub caller: Caller,
    call: Call,
}

impl Identified {
    /// What is to be recorded of it, as far as it is known at once.
    fn event(&self, kind: Kind, rpc: Rpc) -> AuditEvent {
        let actor = Some(Actor::new(self.caller.clone(), self.call.evidence.peer));
        AuditEvent { rpc: Some(rpc), actor, trace: self.call.trace, ..AuditEvent::new(kind) }
    }

    /// Ends a piece of work at the caller's deadline. The transport would do so as well, but in words of its own.
    async fn within<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        match self.call.deadline {
            Some(deadline) => within(deadline, work).await,
            None => work.await,
        }
    }
}

/// A token, and the receipt of its event. `None`: that is written.
pub type Issued = (Served, Option<Receipt>);

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
    /// Records every call before it is answered.
    pub audit: AuditLog,
    /// Reads what was recorded.
    pub records: AuditReader,
}

impl Pipeline {
    /// Who calls. Nothing else is looked at before; a call that gets no further is recorded.
    ///
    /// # Errors
    ///
    /// `NoIdentity`, `BadIdentity`, `TooManyRequests`; `StoreDown` or `UpstreamDown` where nobody can tell now.
    pub async fn identify(&self, call: Call, rpc: Rpc) -> Result<Identified> {
        let caller = match self.authn.authenticate_now(&call.evidence) {
            Some(caller) => caller,
            None => self.authn.authenticate(&call.evidence).await,
        };
        let caller = caller.inspect_err(|error| {
            let actor = Some(Actor::unknown(call.evidence.peer));
            let event = AuditEvent { rpc: Some(rpc), actor, trace: call.trace, ..AuditEvent::new(Kind::CallRefused) };
            self.audit.refuse(refusal(event, error));
        })?;
        let call = Identified { caller, call };
        let within_rate = self.rate.as_ref().map_or(Ok(()), |rate| rate.check(&call.caller));
        within_rate.map_err(|error| self.turn_away(&call, rpc, error))?;
        Ok(call)
    }

    /// A token, which must not leave before its event is written.
    ///
    /// # Errors
    ///
    /// As [`TokenCache::get`]; `NotAllowed`; `AuditDown`, here and below.
    pub async fn get_token(&self, call: &Identified, request: TokenRequest) -> Result<Issued> {
        let (begun, metrics) = (Instant::now(), self.cache.token_metrics());
        let issued = self.issue(call, request).await;
        match &issued {
            Ok((served, _)) => {
                let remaining = served.current.token.expires_at.since(served.at);
                metrics.served(served.hit, begun.elapsed(), remaining);
            }
            Err(_) => metrics.not_served(begun.elapsed()),
        }
        issued
    }

    /// The same where nothing is unusual and nothing has to wait, as with nearly every hit. Else nothing has happened yet,
    /// and the request comes back, completed: [`Pipeline::get_token`] is to be asked. Only where the audit log stalls the
    /// call then counts twice for its caller's rate, which is looked at last, when it is known that this will be the answer.
    ///
    /// It takes the same steps in a plain function, of a call that has `begun`. A future has room for whatever any call may
    /// need, and is moved about with it.
    ///
    /// # Errors
    ///
    /// The request, if it cannot be served at once.
    pub fn get_token_at_once(
        &self,
        begun: Instant,
        call: &Call,
        request: TokenRequest,
    ) -> std::result::Result<Issued, TokenRequest> {
        let request = TokenRequest { selector: self.complete(request.selector), ..request };
        self.issue_at_once(begun, call, request.clone()).ok_or(request)
    }

    fn issue_at_once(&self, begun: Instant, call: &Call, request: TokenRequest) -> Option<Issued> {
        let caller = self.authn.authenticate_now(&call.evidence)?.ok()?;
        let request = authorize(&*self.policy, &caller, request).ok()?;
        let served = self.cache.peek(&request)?;
        // From here on it counts.
        self.rate.as_ref().is_none_or(|rate| rate.check(&caller).is_ok()).then_some(())?;
        let event = AuditEvent {
            rpc: Some(Rpc::GetToken),
            actor: Some(Actor::new(caller, call.evidence.peer)),
            trace: call.trace,
            grant: Some(Arc::clone(request.grant())),
            reason: Some(Reason::Hit),
            ..AuditEvent::new(if served.entry.is_some() { Kind::TokenIssued } else { Kind::NotModified })
        };
        let receipt = self.audit.record_if_flowing(served.at, about(event, &served.current))?;
        self.cache.note_hit(&served);
        let remaining = served.current.token.expires_at.since(served.at);
        self.cache.token_metrics().served(true, begun.elapsed(), remaining);
        Some((served, receipt))
    }

    /// Serves a token, and records it.
    async fn issue(&self, call: &Identified, request: TokenRequest) -> Result<Issued> {
        let mut event = call.event(Kind::TokenIssued, Rpc::GetToken);
        event.credential = Some(request.selector.credential().clone());
        let served = match self.ask(call, request, &mut event) {
            Ok(request) => self.cache.get(&request, call.call.deadline).await,
            Err(error) => Err(error),
        };
        let served = self.refused(&event, served)?;
        if served.entry.is_none() {
            event.kind = Kind::NotModified;
        }
        event.reason = Some(if served.hit { Reason::Hit } else { Reason::Miss });
        match self.audit.record_later(about(event, &served.current))? {
            // Boxed, for it is rare.
            Some(receipt) if receipt.is_doubtful() => Box::pin(receipt.written()).await.map(|()| (served, None)),
            receipt => Ok((served, receipt)),
        }
    }

    /// What the cache may be asked for.
    fn ask(
        &self,
        call: &Identified,
        request: TokenRequest,
        event: &mut AuditEvent,
    ) -> Result<Authorized<TokenRequest>> {
        let request = TokenRequest { selector: self.complete(request.selector), ..request };
        let request = self.admit(call, request, event)?;
        if let Some(rejected) = request.rejected {
            // Queued before the token that takes its place, and so written no later.
            let (kind, generation) = (Kind::Rejection, Some(rejected));
            self.audit.note(AuditEvent { kind, generation, reason: Some(Reason::Report), ..event.clone() });
        }
        Ok(request)
    }

    /// The changes of a token, the current one first, none of which must leave before its event is written. Ends with the
    /// first that cannot be recorded.
    ///
    /// # Errors
    ///
    /// As [`TokenCache::watch`]; `NotAllowed`.
    pub fn watch(
        &self,
        call: &Identified,
        selector: Selector,
    ) -> Result<impl Stream<Item = Result<(Change, Option<Receipt>)>> + use<>> {
        let mut event = call.event(Kind::WatchOpened, Rpc::WatchTokens);
        event.credential = Some(selector.credential().clone());
        let watched = self
            .admit(call, WatchRequest(self.complete(selector)), &mut event)
            .and_then(|request| self.cache.watch(&request).map(|changes| (changes, TokenKey::new(request.0.clone()))));
        let (changes, key) = self.refused(&event, watched)?;
        event.key = Some(key);
        // No token leaves with this answer; each that follows has a receipt.
        self.audit.note(event.clone());
        let (audit, event) = (self.audit.clone(), AuditEvent { kind: Kind::TokenPushed, ..event });
        Ok(changes.then(move |change| {
            let receipt = match &change {
                Change::Token(entry) => audit.record_later(about(event.clone(), entry)),
                Change::Invalidated(_) | Change::Unavailable(_) => Ok(None),
            };
            match receipt {
                Ok(Some(receipt)) if receipt.is_doubtful() => {
                    Either::Left(receipt.written().map(|written| written.map(|()| (change, None))).boxed())
                }
                receipt => Either::Right(ready(receipt.map(|receipt| (change, receipt)))),
            }
        }))
    }

    /// Waits until the caller may no longer be told of these tokens, and says why.
    pub async fn loses_watch(&self, call: &Identified, selectors: Vec<Selector>) -> Error {
        // It is waited for as long as the stream is open.
        let _open = Counted::by(&self.cache.token_metrics().watch_streams);
        let requests = selectors.into_iter().map(|selector| WatchRequest(self.complete(selector)));
        self.loses_right(call, requests.collect()).await
    }

    /// Waits until the caller may no longer read the audit log, and says why.
    pub async fn loses_audit(&self, call: &Identified) -> Error {
        self.loses_right(call, vec![AuditRequest]).await
    }

    /// Waits until the caller may no longer do all of this: its identity has expired or was revoked, or the policy has
    /// changed. Whoever cannot be judged now is judged later.
    async fn loses_right<T: Ask + Clone>(&self, call: &Identified, requests: Vec<T>) -> Error {
        loop {
            sleep(SECOND_LOOK).await;
            let caller = match self.authn.authenticate(&call.call.evidence).await {
                Ok(caller) => caller,
                Err(error) if matches!(error.kind(), ErrorKind::NoIdentity | ErrorKind::BadIdentity) => return error,
                Err(_) => continue,
            };
            let denied = |request: &T| authorize(&*self.policy, &caller, request.clone()).err();
            if let Some(error) = requests.iter().find_map(denied) {
                return error;
            }
        }
    }

    /// A report that the upstream refused a token.
    ///
    /// # Errors
    ///
    /// As [`TokenCache::reject`]; `NotAllowed`.
    pub async fn invalidate(&self, call: &Identified, rejection: Rejection) -> Result<Rejected> {
        let mut event = call.event(Kind::Rejection, Rpc::InvalidateToken);
        event.credential = Some(rejection.selector.credential().clone());
        event.http_status = rejection.http_status;
        match rejection.rejected {
            RejectedToken::Generation(generation) => event.generation = Some(generation),
            RejectedToken::Fingerprint(fingerprint) => event.fingerprint = Some(fingerprint),
        }
        let rejected = async {
            let rejection = Rejection { selector: self.complete(rejection.selector), ..rejection };
            let rejection = self.admit(call, rejection, &mut event)?;
            event.key = Some(TokenKey::new(rejection.selector.clone()));
            call.within(self.cache.reject(&rejection)).await
        };
        let rejected = rejected.await;
        let outcome = rejected.as_ref().map(|rejected| rejected.invalidated).map_err(Error::kind);
        self.cache.token_metrics().report(outcome);
        let rejected = self.refused(&event, rejected)?;
        event.reason = Some(if rejected.invalidated { Reason::Invalidated } else { Reason::Unchanged });
        self.audit.record(event).await?;
        Ok(rejected)
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
        let event = call.event(Kind::AdminCall, Rpc::ListCredentials);
        let listed = async {
            let names = self.catalog.iter().map(|credential| &credential.name);
            let later = names.filter(|name| after.is_none_or(|after| *name > after));
            let visible = later.filter_map(|name| self.visible(&call.caller, name));
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
    /// As [`TokenCache::describe`]; `NotAllowed`.
    pub async fn describe(&self, call: &Identified, name: CredentialName) -> Result<CredentialReport> {
        let mut event = call.event(Kind::AdminCall, Rpc::DescribeCredential);
        event.credential = Some(name.clone());
        let described = async {
            let request = self.admit(call, CredentialRequest { name, action: Action::Inspect }, &mut event)?;
            call.within(self.cache.describe(&request)).await
        };
        let described = described.await;
        self.recorded(event, described).await
    }

    /// Replaces a token at an operator's order.
    ///
    /// # Errors
    ///
    /// As [`TokenCache::refresh`]; `NotAllowed`.
    pub async fn refresh(&self, call: &Identified, selector: Selector) -> Result<TokenReport> {
        let mut event = call.event(Kind::AdminCall, Rpc::RefreshToken);
        event.credential = Some(selector.credential().clone());
        let refreshed = async {
            let request = self.admit(call, RefreshRequest(self.complete(selector)), &mut event)?;
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
    /// `StoreDown`. What was invalidated before stays so.
    pub async fn invalidate_credentials(
        &self,
        call: &Identified,
        selects: impl Fn(&CredentialName, &str) -> bool,
        dry_run: bool,
    ) -> Result<(Vec<CredentialName>, u64)> {
        let mut event = call.event(Kind::AdminCall, Rpc::InvalidateCredentials);
        let invalidated = async {
            let selected = self.catalog.iter().filter(|c| selects(&c.name, c.provider.kind()));
            let (mut names, mut tokens) = (Vec::new(), 0);
            for name in selected.map(|credential| credential.name.clone()) {
                let request = CredentialRequest { name: name.clone(), action: Action::Operate };
                let count = match authorize(&*self.policy, &call.caller, request) {
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
    /// `NotAllowed`.
    pub async fn inspect_server(&self, call: &Identified) -> Result<Authorized<ServerRequest>> {
        let mut event = call.event(Kind::AdminCall, Rpc::GetServerInfo);
        let admitted = self.admit(call, ServerRequest, &mut event);
        self.recorded(event, admitted).await
    }

    /// The replicas that share the store.
    ///
    /// # Errors
    ///
    /// `StoreDown`; `NotAllowed`.
    pub async fn list_replicas(&self, call: &Identified) -> Result<Vec<Replica>> {
        let mut event = call.event(Kind::AdminCall, Rpc::ListReplicas);
        let listed = async {
            let request = self.admit(call, ServerRequest, &mut event)?;
            self.cache.replicas(&request).await
        };
        let listed = listed.await;
        self.recorded(event, listed).await
    }

    /// Seals everything in the store with the active key; with `dry_run` only counts.
    ///
    /// # Errors
    ///
    /// `Misconfigured` where there is no key, `StoreDown`; `NotAllowed`.
    pub async fn rotate_key(&self, call: &Identified, dry_run: bool) -> Result<KeyCensus> {
        let mut event = call.event(Kind::AdminCall, Rpc::RotateEncryptionKey);
        let rotated = async {
            let request = self.admit(call, RotateKeyRequest { dry_run }, &mut event)?;
            call.within(self.cache.rotate_key(&request)).await
        };
        let rotated = rotated.await;
        self.recorded(event, rotated).await
    }

    /// What was recorded: events after the place `after`, at most `limit`, and where they were read.
    ///
    /// # Errors
    ///
    /// `StoreDown`; `NotAllowed`.
    pub async fn list_audit(
        &self,
        call: &Identified,
        after: u64,
        filter: &AuditFilter,
        limit: u32,
    ) -> Result<(Source, Vec<AuditRow>)> {
        let mut event = call.event(Kind::AdminCall, Rpc::ListAuditEvents);
        let listed = async {
            self.admit(call, AuditRequest, &mut event)?;
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
    /// `NotAllowed`; in the stream `StoreDown`, which ends it.
    pub async fn tail_audit(
        &self,
        call: &Identified,
        filter: AuditFilter,
    ) -> Result<(Source, impl Stream<Item = Result<AuditRow>> + Send + use<>)> {
        let mut event = call.event(Kind::AdminCall, Rpc::TailAuditEvents);
        let admitted = self.admit(call, AuditRequest, &mut event);
        self.recorded(event, admitted).await?;
        Ok((self.records.source(), self.records.tail(filter)))
    }

    /// Records a call that was turned away before it came here: its request was invalid. Returns the error.
    #[must_use]
    pub fn turn_away(&self, call: &Identified, rpc: Rpc, error: Error) -> Error {
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

    fn admit<T: Ask>(&self, call: &Identified, request: T, event: &mut AuditEvent) -> Result<Authorized<T>> {
        let admitted = authorize(&*self.policy, &call.caller, request)?;
        event.grant = Some(Arc::clone(admitted.grant()));
        Ok(admitted)
    }

    fn visible(&self, caller: &Caller, name: &CredentialName) -> Option<Authorized<CredentialRequest>> {
        let request = CredentialRequest { name: name.clone(), action: Action::Inspect };
        authorize(&*self.policy, caller, request).ok()
    }

    /// Fills in what the credential's configuration says, so that the policy sees what will really be asked for. An
    /// unknown credential stays as it is: whether it exists is told to those alone who may know.
    fn complete(&self, selector: Selector) -> Selector {
        self.catalog.complete(selector)
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
