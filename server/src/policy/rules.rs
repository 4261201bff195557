//! The policy of the configuration: grants, of which the first that covers a question decides. Nothing else allows.

use std::{collections::BTreeMap, fmt, sync::Arc};

use super::{Action, Decision, Pattern, Policy, Question};
use crate::types::{ANONYMOUS, Caller, Selector};

/// Actions, as a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Actions(u8);

impl Actions {
    /// The set with one more.
    #[must_use]
    pub const fn with(self, action: Action) -> Self {
        Self(self.0 | 1 << action as u8)
    }

    /// Whether it has this one.
    #[must_use]
    pub const fn contains(self, action: Action) -> bool {
        self.0 & 1 << action as u8 != 0
    }
}

/// Whom a grant is for: a kind of subject that is spelt out, and a pattern for the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubjectPattern(Pattern);

impl SubjectPattern {
    /// Reads `spiffe://DOMAIN/…`, `dns:…`, `jwt:ISSUER/…`, `key:…`, `uid:…` or `anonymous`. What says how somebody was
    /// authenticated, and by whom, is never left to a star.
    ///
    /// # Errors
    ///
    /// If it is none of these.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let literal_until = |prefix: &str, end: char| {
            let rest = text.strip_prefix(prefix)?;
            let authority = rest.split(end).next().filter(|part| !part.is_empty() && !part.contains('*'));
            (rest.contains(end) && authority.is_some()).then_some(())
        };
        if text.starts_with("spiffe:") && literal_until("spiffe://", '/').is_none() {
            return Err("a SPIFFE ID names its trust domain without a star: \"spiffe://DOMAIN/PATH\"");
        }
        if text.starts_with("jwt:") && literal_until("jwt:", '/').is_none() {
            return Err("the subject of a JWT names its issuer, as in [authn.jwt.ISSUER], without a star: \
                        \"jwt:ISSUER/SUB\"");
        }
        let known = ["spiffe:", "jwt:", "dns:", "key:", "uid:"]
            .iter()
            .any(|kind| text.strip_prefix(kind).is_some_and(|rest| !rest.is_empty()));
        if !known && text != ANONYMOUS {
            return Err("a subject is \"spiffe://DOMAIN/PATH\", \"dns:NAME\", \"jwt:ISSUER/SUB\", \"key:NAME\", \
                        \"uid:NUMBER\" or \"anonymous\"; `*` and `**` stand for the rest of one");
        }
        let separator = if text.starts_with("dns:") { b'.' } else { b'/' };
        Pattern::parse(text, separator).map(Self)
    }

    /// Whether the subject is meant.
    #[must_use]
    pub fn matches(&self, subject: &str) -> bool {
        self.0.matches(subject)
    }
}

impl fmt::Display for SubjectPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What is given to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// What operators call it.
    pub name: Arc<str>,
    /// For whom: any of these.
    pub subjects: Vec<SubjectPattern>,
    /// What they must have besides: of each claim, one of these values.
    pub claims: BTreeMap<String, Vec<String>>,
    /// With which credentials: any of these.
    pub credentials: Vec<Pattern>,
    /// To do what.
    pub actions: Actions,
    /// With which scopes at most. `None`: no limit.
    pub scopes: Option<Vec<Pattern>>,
    /// For which audiences. `None`: no limit.
    pub audiences: Option<Vec<Pattern>>,
    /// For which resources at most. `None`: no limit.
    pub resources: Option<Vec<Pattern>>,
}

/// Where a grant first fails to cover a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Miss {
    /// It is not for this subject.
    Subject,
    /// The caller lacks a claim.
    Claims,
    /// It is not for this credential; or, of the broker itself, not for all credentials.
    Credential,
    /// It does not allow the action.
    Action,
    /// A scope is not allowed, or none was asked for where the grant limits them.
    Scopes,
    /// The audience is not allowed, or none was asked for where the grant limits them.
    Audience,
    /// A resource is not allowed, or none was asked for where the grant limits them.
    Resources,
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Subject => "it is not for this subject",
            Self::Claims => "the caller lacks a claim that it demands",
            Self::Credential => "it is not for this credential",
            Self::Action => "it does not allow this action",
            Self::Scopes => "it limits the scopes, and the request asks for others, or names none",
            Self::Audience => "it limits the audiences, and the request asks for another one, or names none",
            Self::Resources => "it limits the resources, and the request asks for others, or names none",
        })
    }
}

impl Grant {
    /// Whether it covers the question, and if not, why.
    ///
    /// # Errors
    ///
    /// The first thing that it does not cover.
    pub fn covers(&self, caller: &Caller, question: &Question<'_>) -> Result<(), Miss> {
        self.check_caller(caller)?;
        let credential = match question.credential {
            Some(name) => self.credentials.iter().any(|pattern| pattern.matches(name.as_str())),
            // What concerns the broker itself concerns every credential.
            None => self.credentials.iter().any(Pattern::is_universal),
        };
        let selector = question.selector;
        let audience = selector.map(Selector::audience);
        let holds = [
            (credential, Miss::Credential),
            (self.actions.contains(question.action), Miss::Action),
            (within(self.scopes.as_deref(), selector.map(|s| s.scopes())), Miss::Scopes),
            (within(self.audiences.as_deref(), audience.as_ref().map(Option::as_slice)), Miss::Audience),
            (within(self.resources.as_deref(), selector.map(|s| s.resources())), Miss::Resources),
        ];
        holds.into_iter().find(|(held, _)| !held).map_or(Ok(()), |(_, miss)| Err(miss))
    }

    fn check_caller(&self, caller: &Caller) -> Result<(), Miss> {
        if !self.subjects.iter().any(|pattern| pattern.matches(caller.subject())) {
            return Err(Miss::Subject);
        }
        let has = |(name, values): (&String, &Vec<String>)| caller.claim(name).iter().any(|held| values.contains(held));
        if self.claims.iter().all(has) { Ok(()) } else { Err(Miss::Claims) }
    }
}

/// Whether everything that is asked for is allowed. Where there is a limit, asking for nothing in particular is not within
/// it: the upstream would choose, and might choose everything (RFC 6749 section 3.3).
fn within(limit: Option<&[Pattern]>, asked: Option<&[impl AsRef<str>]>) -> bool {
    match (limit, asked) {
        (None, _) | (_, None) => true,
        (Some(limit), Some(asked)) => {
            !asked.is_empty() && asked.iter().all(|item| limit.iter().any(|pattern| pattern.matches(item.as_ref())))
        }
    }
}

/// The policy of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    grants: Vec<Grant>,
}

impl Rules {
    /// A policy of these grants, the first first.
    #[must_use]
    pub fn new(grants: Vec<Grant>) -> Self {
        Self { grants }
    }

    /// The grants, the first first.
    #[must_use]
    pub fn grants(&self) -> &[Grant] {
        &self.grants
    }
}

impl Policy for Rules {
    fn decide(&self, caller: &Caller, question: &Question<'_>) -> Decision {
        let grant = self.grants.iter().find(|grant| grant.covers(caller, question).is_ok());
        grant.map_or(Decision::Denied, |grant| Decision::Allowed(Arc::clone(&grant.name)))
    }
}

#[cfg(test)]
mod tests;
