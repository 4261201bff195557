//! Who may do what: the seam, and the proof that it was asked.
//!
//! [`Authorized`] has no public constructor: a value of it exists only because a policy said yes. The cache takes
//! nothing else, so a look-up that nobody authorized does not compile. A policy is synchronous and does no IO.

use std::{
    fmt,
    ops::Deref,
    sync::{Arc, LazyLock},
};

use arc_swap::ArcSwap;

use crate::{
    error::{Error, ErrorKind, Result},
    types::{Caller, CredentialName, Rejection, Selector, TokenRequest},
};

mod pattern;
pub mod rules;

pub use pattern::Pattern;

/// What a caller wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Get a token.
    Get,
    /// Be told of tokens.
    Watch,
    /// Report a token as refused.
    Invalidate,
    /// See states, never secrets.
    Inspect,
    /// Refresh and invalidate as an operator.
    Operate,
    /// Read who had which token.
    Audit,
}

impl Action {
    /// Every action, with its word in the configuration.
    pub const ALL: [(&str, Self); 6] = [
        ("get", Self::Get),
        ("watch", Self::Watch),
        ("invalidate", Self::Invalidate),
        ("inspect", Self::Inspect),
        ("operate", Self::Operate),
        ("audit", Self::Audit),
    ];
}

/// What the policy decides about.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// What the caller wants to do.
    pub action: Action,
    /// With which credential. `None`: with the broker itself.
    pub credential: Option<&'a CredentialName>,
    /// With which scopes, audience and resources, where the action is about a token.
    pub selector: Option<&'a Selector>,
}

/// What a policy says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Yes, by the grant of this name.
    Allowed(Arc<str>),
    /// No: nothing allows it.
    Denied,
}

/// Decides. Pure: the same question has the same answer until the configuration changes.
pub trait Policy: fmt::Debug + Send + Sync + 'static {
    /// Whether the caller may.
    fn decide(&self, caller: &Caller, question: &Question<'_>) -> Decision;
}

/// A request about which a policy can be asked.
pub trait Ask {
    /// What is asked.
    fn question(&self) -> Question<'_>;

    /// What the caller wants to do by the way, and must be allowed to as well.
    fn further_action(&self) -> Option<Action> {
        None
    }
}

impl Ask for TokenRequest {
    fn question(&self) -> Question<'_> {
        Question::about_token(Action::Get, &self.selector)
    }

    /// To say that the upstream refused a generation is a report, whichever rpc carries it.
    fn further_action(&self) -> Option<Action> {
        self.rejected.map(|_| Action::Invalidate)
    }
}

impl Ask for Rejection {
    fn question(&self) -> Question<'_> {
        Question::about_token(Action::Invalidate, &self.selector)
    }
}

/// A request to be told of a token.
#[derive(Clone, Debug)]
pub struct WatchRequest(pub Selector);

impl Ask for WatchRequest {
    fn question(&self) -> Question<'_> {
        Question::about_token(Action::Watch, &self.0)
    }
}

/// An operator's request to replace a token.
#[derive(Clone, Debug)]
pub struct RefreshRequest(pub Selector);

impl Ask for RefreshRequest {
    fn question(&self) -> Question<'_> {
        Question::about_token(Action::Operate, &self.0)
    }
}

/// A request to see the state of a credential, or to operate on all of its tokens.
#[derive(Clone, Debug)]
pub struct CredentialRequest {
    /// The credential.
    pub name: CredentialName,
    /// [`Action::Inspect`] or [`Action::Operate`].
    pub action: Action,
}

impl Ask for CredentialRequest {
    fn question(&self) -> Question<'_> {
        Question { action: self.action, credential: Some(&self.name), selector: None }
    }
}

/// A request about the broker itself.
#[derive(Clone, Copy, Debug)]
pub struct ServerRequest;

impl Ask for ServerRequest {
    fn question(&self) -> Question<'_> {
        Question { action: Action::Inspect, credential: None, selector: None }
    }
}

/// A request to read the audit log.
#[derive(Clone, Copy, Debug)]
pub struct AuditRequest;

impl Ask for AuditRequest {
    fn question(&self) -> Question<'_> {
        Question { action: Action::Audit, credential: None, selector: None }
    }
}

/// An operator's request to seal the whole store anew.
#[derive(Clone, Copy, Debug)]
pub struct RotateKeyRequest {
    /// Only count.
    pub dry_run: bool,
}

impl Ask for RotateKeyRequest {
    fn question(&self) -> Question<'_> {
        Question { action: Action::Operate, credential: None, selector: None }
    }
}

impl<'a> Question<'a> {
    fn about_token(action: Action, selector: &'a Selector) -> Self {
        Self { action, credential: Some(selector.credential()), selector: Some(selector) }
    }
}

/// A request that a policy has allowed.
#[derive(Clone, Debug)]
pub struct Authorized<T> {
    request: T,
    grant: Arc<str>,
}

impl<T> Authorized<T> {
    /// The grant that allowed it.
    #[must_use]
    pub fn grant(&self) -> &Arc<str> {
        &self.grant
    }
}

impl<T> Deref for Authorized<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.request
    }
}

/// Asks the policy.
///
/// # Errors
///
/// `NotAllowed`, in the same words whether or not the credential exists.
pub fn authorize<T: Ask>(policy: &dyn Policy, caller: &Caller, request: T) -> Result<Authorized<T>> {
    let question = request.question();
    let further = request.further_action().map(|action| policy.decide(caller, &Question { action, ..question }));
    match policy.decide(caller, &question) {
        Decision::Allowed(grant) if further != Some(Decision::Denied) => Ok(Authorized { request, grant }),
        _ => Err(Error::new(ErrorKind::NotAllowed, "the caller may not do this, or there is no such credential")),
    }
}

/// The policy that is configured now: a reload replaces it as a whole.
#[derive(Debug)]
pub struct Live(ArcSwap<Arc<dyn Policy>>);

impl Live {
    /// This one, until it is replaced.
    #[must_use]
    pub fn new(policy: Arc<dyn Policy>) -> Self {
        Self(ArcSwap::from_pointee(policy))
    }

    /// From now on another one.
    pub fn replace(&self, policy: Arc<dyn Policy>) {
        self.0.store(Arc::new(policy));
    }
}

impl Policy for Live {
    fn decide(&self, caller: &Caller, question: &Question<'_>) -> Decision {
        self.0.load().decide(caller, question)
    }
}

/// Allows everything: dev mode, and deployments that say so in as many words.
#[derive(Debug)]
pub struct AllowAll;

impl Policy for AllowAll {
    fn decide(&self, _caller: &Caller, _question: &Question<'_>) -> Decision {
        static GRANT: LazyLock<Arc<str>> = LazyLock::new(|| "any".into());
        Decision::Allowed(Arc::clone(&GRANT))
    }
}
