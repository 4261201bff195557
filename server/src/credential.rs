//! A configured credential: who mints its tokens and by which rules, and the catalogue of all of them.

use std::{collections::HashMap, sync::Arc, time::Duration};

use foldhash::quality::RandomState;

use crate::{
    provider::{GrantUse, Rotation, SharedProvider},
    types::{CredentialName, Fingerprint, Origin, Selector, TokenKey},
};

/// A credential as configured.
#[derive(Clone, Debug)]
pub struct Credential {
    /// Its name.
    pub name: CredentialName,
    /// Who mints its tokens.
    pub provider: SharedProvider,
    /// What is asked of the upstream where the request does not say.
    pub defaults: AskDefaults,
    /// When its tokens are replaced.
    pub refresh: RefreshRules,
    /// Which answers of an upstream mean a dead token.
    pub reject_on: RejectOn,
    /// What a replica that has lost touch with the fleet does.
    pub when_degraded: WhenDegraded,
    /// The token endpoint whose budget its calls share. `None`: there is none to share.
    pub endpoint: Option<Endpoint>,
    /// How long one attempt to get a token may take, everything included. The provider keeps to it.
    pub timeout: Duration,
    /// Fingerprint of all that decides whom the broker authenticates to and as whom: kind of provider, endpoints, client
    /// id. A token minted under another one is not served.
    pub config: Fingerprint,
}

/// A token endpoint, and how it may be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Which one: what names it in the store, in metrics and to operators.
    pub origin: Origin,
    /// How it may be called.
    pub rules: EndpointRules,
}

/// How a token endpoint may be called, by all replicas together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointRules {
    /// How many calls may be under way at once.
    pub max_concurrent: u32,
    /// After how many transient failures in a row it is left alone for a while.
    pub failures_to_open: u32,
}

impl Default for EndpointRules {
    fn default() -> Self {
        Self { max_concurrent: 32, failures_to_open: 5 }
    }
}

impl Credential {
    /// Whether its refresh token is replaced with each use.
    #[must_use]
    pub fn rotates(&self) -> bool {
        matches!(self.provider.capabilities().grant, GrantUse::Refresh(Rotation::Grace(_) | Rotation::Strict))
    }
}

/// What is asked of the upstream where the request does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AskDefaults {
    /// Scopes.
    pub scopes: Vec<String>,
    /// Audience.
    pub audience: Option<String>,
    /// Resource indicators.
    pub resources: Vec<String>,
}

impl AskDefaults {
    /// Fills in what `selector` leaves open. One that leaves nothing open stays the one it is, and its key's hash known.
    #[must_use]
    pub fn complete(&self, selector: Selector) -> Selector {
        let fills = |asked: &[String], default: &[String]| asked.is_empty() && !default.is_empty();
        let is_complete = !fills(selector.scopes(), &self.scopes)
            && !fills(selector.resources(), &self.resources)
            && (selector.audience().is_some() || self.audience.is_none());
        if is_complete {
            return selector;
        }
        let or_default =
            |asked: &[String], default: &[String]| if asked.is_empty() { default.to_vec() } else { asked.to_vec() };
        let scopes = or_default(selector.scopes(), &self.scopes);
        let resources = or_default(selector.resources(), &self.resources);
        let audience = selector.audience().or(self.audience.as_deref()).map(str::to_owned);
        Selector::new(selector.credential().clone(), scopes, audience, resources)
    }
}

/// When tokens are replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RefreshRules {
    /// How long before its expiry a token is replaced. `None`: by its lifetime.
    pub window: Option<Duration>,
    /// How long a key that nobody asks for is refreshed ahead. `None`: twice the token's lifetime, at least 1 h.
    pub idle_window: Option<Duration>,
}

/// Which answers of an upstream mean a dead token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectOn {
    /// HTTP statuses.
    pub statuses: Vec<u16>,
    /// Error codes, compared to the letter.
    pub errors: Vec<String>,
}

impl Default for RejectOn {
    /// 401 alone: a 403 is a matter of permissions, and a new token would be refused as well (RFC 9110 section 15.5.4).
    fn default() -> Self {
        Self { statuses: vec![401], errors: vec![] }
    }
}

impl RejectOn {
    /// Whether a report means that the token is dead. A status that is not told counts as 401.
    ///
    /// `insufficient_scope` (RFC 6750 section 3.1) does not, unless it is listed: a new token would have the same scopes.
    #[must_use]
    pub fn matches(&self, status: Option<u16>, error: Option<&str>) -> bool {
        if error.is_some_and(|error| self.errors.iter().any(|e| e == error)) {
            return true;
        }
        error != Some("insufficient_scope") && self.statuses.contains(&status.unwrap_or(401))
    }
}

/// What a replica that has lost touch with the fleet does with a token that may have been rejected elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenDegraded {
    /// Serves it, marked as degraded.
    #[default]
    Serve,
    /// Refuses.
    Refuse,
}

/// All configured credentials. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Catalog(Arc<Configured>);

#[derive(Debug, Default)]
struct Configured {
    /// By a fast hasher: the names are the operator's, and callers only ask for them.
    by_name: HashMap<CredentialName, Listed, RandomState>,
    /// In the order of their names.
    sorted: Vec<Arc<Credential>>,
}

#[derive(Debug)]
struct Listed {
    credential: Arc<Credential>,
    /// What a request that asks nothing of it is completed to, as nearly all requests are: made once, and the hash of its
    /// key with it.
    bare: Selector,
}

impl Listed {
    fn new(credential: Credential) -> Self {
        let nothing = Selector::new(credential.name.clone(), vec![], None, vec![]);
        Self { bare: credential.defaults.complete(nothing), credential: Arc::new(credential) }
    }
}

impl Catalog {
    /// A catalogue of these; a later one of the same name replaces an earlier one.
    #[must_use]
    pub fn new(credentials: impl IntoIterator<Item = Credential>) -> Self {
        let by_name: HashMap<_, _, _> = credentials.into_iter().map(|c| (c.name.clone(), Listed::new(c))).collect();
        let mut sorted: Vec<_> = by_name.values().map(|listed| Arc::clone(&listed.credential)).collect();
        sorted.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        Self(Arc::new(Configured { by_name, sorted }))
    }

    /// The credential of this name.
    #[must_use]
    pub fn get(&self, name: &CredentialName) -> Option<&Arc<Credential>> {
        self.0.by_name.get(name).map(|listed| &listed.credential)
    }

    /// Fills in what the credential's configuration says. What names no credential stays as it is.
    #[must_use]
    pub fn complete(&self, selector: Selector) -> Selector {
        match self.0.by_name.get(selector.credential()) {
            Some(listed) if selector.is_bare() => listed.bare.clone(),
            Some(listed) => listed.credential.defaults.complete(selector),
            None => selector,
        }
    }

    /// The same key, sharing with others of its credential what is the same of them.
    #[must_use]
    pub fn shared(&self, key: TokenKey) -> TokenKey {
        match self.0.by_name.get(key.credential()) {
            Some(listed) if *key.selector() == listed.bare => TokenKey::new(listed.bare.clone()),
            Some(listed) => key.named(&listed.credential.name),
            None => key,
        }
    }

    /// All of them in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Credential>> {
        self.0.sorted.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.sorted.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.sorted.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_default_a_401_alone_means_a_dead_token() {
        let rule = RejectOn::default();
        assert!(rule.matches(None, None));
        assert!(rule.matches(Some(401), Some("invalid_token")));
        assert!(!rule.matches(Some(401), Some("insufficient_scope")));
        assert!(!rule.matches(Some(403), None));
        assert!(!rule.matches(Some(200), Some("SESSION_EXPIRED")));
    }

    #[test]
    fn a_listed_error_code_means_a_dead_token_whatever_the_status() {
        let rule = RejectOn { statuses: vec![401], errors: vec!["SESSION_EXPIRED".into()] };
        assert!(rule.matches(Some(200), Some("SESSION_EXPIRED")));
        assert!(!rule.matches(Some(200), Some("session_expired")));
    }

    #[test]
    fn defaults_fill_in_what_a_request_leaves_open() {
        let defaults =
            AskDefaults { scopes: vec!["b".into(), "a".into()], audience: Some("x".into()), resources: vec![] };
        let name = CredentialName::parse("c").expect("a valid name");
        let open = defaults.complete(Selector::new(name.clone(), vec![], None, vec![]));
        assert_eq!((open.scopes(), open.audience()), (&["a".into(), "b".into()][..], Some("x")));
        let asked = defaults.complete(Selector::new(name, vec!["c".into()], Some("y".into()), vec![]));
        assert_eq!((asked.scopes(), asked.audience()), (&["c".into()][..], Some("y")));
    }

    #[test]
    fn what_leaves_nothing_open_stays_the_one_it_is() {
        let name = CredentialName::parse("c").expect("a valid name");
        let full = Selector::new(name, vec!["c".into()], Some("y".into()), vec![]);
        let scopes = full.scopes().as_ptr();
        for scopes_by_default in [vec![], vec!["a".into()]] {
            let defaults = AskDefaults { scopes: scopes_by_default, audience: Some("x".into()), resources: vec![] };
            assert_eq!(defaults.complete(full.clone()).scopes().as_ptr(), scopes, "not made anew");
        }
    }
}
