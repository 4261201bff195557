//! Who may do what: the seam, and the proof that it was asked.
//!
//! [`Authorized`] has no public constructor: a value of it exists only because a policy said yes. The cache takes
//! nothing else, so a look-up that nobody authorized does not compile. A policy is synchronous and does no IO.

use std::{fmt, ops::Deref};

use crate::{
    error::{Error, ErrorKind, Result},
    types::{Caller, CredentialName, Rejection, Selector, TokenRequest},
};

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

/// Decides.
pub trait Policy: fmt::Debug + Send + Sync + 'static {
    /// Whether the caller may.
    fn allows(&self, caller: &Caller, question: &Question<'_>) -> bool;
}

/// A request about which a policy can be asked.
pub trait Ask {
    /// What is asked.
    fn question(&self) -> Question<'_>;
}

impl Ask for TokenRequest {
    fn question(&self) -> Question<'_> {
        Question::about_token(Action::Get, &self.selector)
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
        Self { action, credential: Some(&selector.credential), selector: Some(selector) }
    }
}

/// A request that a policy has allowed.
#[derive(Clone, Debug)]
pub struct Authorized<T>(T);

impl<T> Deref for Authorized<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// Asks the policy.
///
/// # Errors
///
/// `NotAllowed`, in the same words whether or not the credential exists.
pub fn authorize<T: Ask>(policy: &dyn Policy, caller: &Caller, request: T) -> Result<Authorized<T>> {
    if policy.allows(caller, &request.question()) {
        Ok(Authorized(request))
    } else {
        Err(Error::new(ErrorKind::NotAllowed, "the caller may not do this, or there is no such credential"))
    }
}

/// Allows everything: dev mode, and deployments that say so in as many words.
#[derive(Debug)]
pub struct AllowAll;

impl Policy for AllowAll {
    fn allows(&self, _caller: &Caller, _question: &Question<'_>) -> bool {
        true
    }
}
