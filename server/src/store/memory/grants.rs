//! Grants in memory: what a credential must not lose.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use crate::{
    bug::{self, Bug},
    store::{
        Grant, GrantCandidate, GrantLoss, GrantSecret, GrantSeed, GrantUpdate, OpenIntent, RotationIntent, StrayCall,
    },
    time::Timestamp,
    types::{CredentialName, Fingerprint},
};

/// All grants, each with its journal and the refresh tokens that came late.
#[derive(Debug, Default)]
pub(super) struct Grants {
    pub(super) grants: BTreeMap<CredentialName, Grant>,
    pub(super) prints: HashMap<CredentialName, Prints>,
    pub(super) candidates: HashMap<CredentialName, Vec<Late>>,
    last_candidate: u64,
    journals: HashMap<CredentialName, Journal>,
}

/// What the refresh tokens of a grant are told from others by.
#[derive(Debug)]
pub(super) struct Prints {
    pub(super) present: Fingerprint,
    pub(super) previous: Option<Fingerprint>,
}

/// A refresh token that came late, and its row.
#[derive(Debug)]
pub(super) struct Late {
    pub(super) id: u64,
    pub(super) candidate: GrantCandidate,
}

/// What a grant does not show of its journal.
#[derive(Debug)]
struct Journal {
    intent_at: Timestamp,
    stray_at: Timestamp,
    /// Its count at the last loss.
    lost_at: u64,
}

impl Default for Journal {
    fn default() -> Self {
        Self { intent_at: Timestamp::MIN, stray_at: Timestamp::MIN, lost_at: 0 }
    }
}

impl Grants {
    pub(super) fn candidates(&self, credential: &CredentialName) -> Vec<GrantCandidate> {
        let late = self.candidates.get(credential).into_iter().flatten();
        late.map(|late| late.candidate.clone()).collect()
    }

    pub(super) fn load(&self, credential: &CredentialName, now: Timestamp) -> Option<Grant> {
        let mut grant = self.grants.get(credential).cloned()?;
        if let Some(journal) = self.journals.get(credential) {
            grant.intent = grant.intent.map(|intent| OpenIntent { age: now.since(journal.intent_at), ..intent });
            grant.stray = grant.stray.map(|stray| StrayCall { age: now.since(journal.stray_at), ..stray });
        }
        Some(grant)
    }

    pub(super) fn plant(&mut self, seed: GrantSeed, expected: u64) -> bool {
        let old = self.grants.get(&seed.credential);
        if old.map_or(0, |grant| grant.version) != expected {
            return false;
        }
        let version = expected.saturating_add(1);
        let previous = seed.previous.filter(|_| old.is_some());
        let grant = Grant {
            version,
            planted: version,
            previous: previous.as_ref().map(|previous| previous.value.clone()),
            previous_since: if old.is_some() { version } else { 0 },
            journal: old.map_or(0, |grant| grant.journal),
            ..first(seed.credential.clone(), &seed.refresh_token, seed.at)
        };
        let previous = previous.map(|previous| previous.fingerprint);
        let prints = Prints { present: seed.refresh_token.fingerprint, previous };
        self.prints.insert(seed.credential.clone(), prints);
        self.grants.insert(seed.credential, grant);
        true
    }

    /// Stores a refresh token, come what may: as the grant's (true), or as a candidate.
    pub(super) fn keep(&mut self, credential: &CredentialName, update: GrantUpdate) -> bool {
        let intent = update.intent.clone();
        let replaced = match self.grants.get_mut(credential) {
            None if update.base_version == 0 => {
                let prints = Prints { present: update.refresh_token.fingerprint, previous: None };
                self.prints.insert(credential.clone(), prints);
                self.grants.insert(credential.clone(), first(credential.clone(), &update.refresh_token, update.at));
                true
            }
            Some(grant) if grant.version == update.base_version => {
                let lost_at = self.journals.get(credential).map_or(0, |journal| journal.lost_at);
                let prints = self.prints.get_mut(credential);
                rotate(grant, prints, &update, lost_at);
                true
            }
            _ => false,
        };
        if replaced {
            let done: Vec<_> =
                update.refused.iter().chain([&update.sent]).map(|known| Some(known.fingerprint)).collect();
            let late = self.candidates.entry(credential.clone()).or_default();
            late.retain(|late| !done.contains(&late.candidate.fingerprint));
        } else {
            self.keep_late(credential, update);
        }
        self.end_intent(credential, intent.as_deref());
        replaced
    }

    fn keep_late(&mut self, credential: &CredentialName, update: GrantUpdate) {
        let GrantUpdate { base_version, refresh_token: GrantSecret { value, fingerprint }, late, at, .. } = update;
        let candidates = self.candidates.entry(credential.clone()).or_default();
        let of_grant = |prints: &Prints| prints.present == fingerprint || prints.previous == Some(fingerprint);
        let known = self.prints.get(credential).is_some_and(of_grant);
        if bug::has(Bug::CandidateDropped) {
            return;
        }
        if known || candidates.iter().any(|other| other.candidate.fingerprint == Some(fingerprint)) {
            return;
        }
        let (refresh_token, fingerprint) = (late.unwrap_or(value), Some(fingerprint));
        self.last_candidate += 1;
        let candidate = GrantCandidate { base_version, refresh_token, fingerprint, at };
        candidates.push(Late { id: self.last_candidate, candidate });
        if let Some(grant) = self.grants.get_mut(credential) {
            grant.retry |= grant.needs_reauth.is_some() && grant.planted <= base_version.max(1);
        }
    }

    pub(super) fn begin(&mut self, intent: RotationIntent, now: Timestamp) -> bool {
        let Some(grant) = self.grants.get_mut(&intent.credential) else { return false };
        let journal = if bug::has(Bug::IntentFencedOnVersionAlone) { grant.journal } else { intent.journal };
        if (grant.version, grant.journal) != (intent.version, journal) {
            return false;
        }
        let journal = self.journals.entry(intent.credential).or_default();
        if let Some(before) = grant.intent.take().filter(|before| before.owner != intent.owner) {
            grant.stray = Some(StrayCall { token: before.token, age: Duration::ZERO });
            journal.stray_at = journal.intent_at;
        }
        grant.intent = Some(OpenIntent { owner: intent.owner, token: Some(intent.token), age: Duration::ZERO });
        grant.journal += 1;
        journal.intent_at = now;
        true
    }

    /// Ends the owner's own intent, never a successor's.
    pub(super) fn end_intent(&mut self, credential: &CredentialName, owner: Option<&str>) {
        if let (Some(grant), Some(owner)) = (self.grants.get_mut(credential), owner) {
            let any = bug::has(Bug::ForeignIntentEnded);
            grant.intent = grant.intent.take().filter(|open| open.owner != owner && !any);
        }
    }

    pub(super) fn lose(&mut self, loss: GrantLoss) -> bool {
        let grant = self
            .grants
            .get_mut(&loss.credential)
            .filter(|grant| grant.version == loss.version || bug::has(Bug::InvalidGrantAlwaysBelieved));
        let Some(grant) = grant else { return false };
        grant.needs_reauth = Some(loss.reason);
        grant.retry = false;
        grant.journal += 1;
        self.journals.entry(loss.credential.clone()).or_default().lost_at = grant.journal;
        self.end_intent(&loss.credential, loss.intent.as_deref());
        true
    }
}

/// A grant with its first refresh token.
fn first(credential: CredentialName, refresh_token: &GrantSecret, at: Timestamp) -> Grant {
    Grant {
        credential,
        version: 1,
        refresh_token: refresh_token.value.clone(),
        previous: None,
        previous_since: 0,
        seed: refresh_token.fingerprint,
        planted: 1,
        journal: 0,
        intent: None,
        stray: None,
        needs_reauth: None,
        retry: false,
        updated_at: at,
    }
}

/// Replaces the refresh token. A loss that was recorded after its call was begun stays.
fn rotate(grant: &mut Grant, prints: Option<&mut Prints>, update: &GrantUpdate, lost_at: u64) {
    let (sent, new) = (&update.sent, &update.refresh_token);
    let replaces = sent.fingerprint != new.fingerprint && !bug::has(Bug::PreviousDropped);
    grant.version += 1;
    if replaces {
        grant.previous = Some(sent.value.clone());
        grant.previous_since = grant.version;
    }
    if let Some(prints) = prints {
        prints.present = new.fingerprint;
        prints.previous = if replaces { Some(sent.fingerprint) } else { prints.previous };
    }
    grant.refresh_token = new.value.clone();
    let outdated = update.as_of < lost_at;
    grant.needs_reauth = grant.needs_reauth.take().filter(|_| outdated);
    grant.retry = grant.needs_reauth.is_some();
    grant.updated_at = update.at;
}
