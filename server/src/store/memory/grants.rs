//! Grants in memory: what a credential must not lose.

use std::{collections::HashMap, time::Duration};

use crate::{
    bug::{self, Bug},
    store::{Grant, GrantCandidate, GrantLoss, GrantSeed, GrantUpdate, OpenIntent, RotationIntent, StrayCall},
    time::Timestamp,
    types::{CredentialName, Fingerprint},
};

/// All grants, each with its journal and the refresh tokens that came late.
#[derive(Debug, Default)]
pub(super) struct Grants {
    grants: HashMap<CredentialName, Grant>,
    candidates: HashMap<CredentialName, Vec<GrantCandidate>>,
    journals: HashMap<CredentialName, Journal>,
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
        self.candidates.get(credential).cloned().unwrap_or_default()
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
        let grant = Grant {
            version,
            planted: version,
            previous: old.map(|grant| grant.refresh_token.clone()),
            journal: old.map_or(0, |grant| grant.journal),
            ..first(seed.credential.clone(), &seed.refresh_token, seed.at)
        };
        self.grants.insert(seed.credential, grant);
        true
    }

    /// Stores a refresh token, come what may: as the grant's (true), or as a candidate.
    pub(super) fn keep(&mut self, credential: &CredentialName, update: GrantUpdate) -> bool {
        let intent = update.intent.clone();
        let replaced = match self.grants.get_mut(credential) {
            None if update.base_version == 0 => {
                self.grants.insert(credential.clone(), first(credential.clone(), &update.refresh_token, update.at));
                true
            }
            Some(grant) if grant.version == update.base_version => {
                let lost_at = self.journals.get(credential).map_or(0, |journal| journal.lost_at);
                rotate(grant, &update, lost_at);
                true
            }
            _ => false,
        };
        if replaced {
            let dead = |late: &GrantCandidate| update.refused.contains(&late.refresh_token);
            let used = |late: &GrantCandidate| update.sent == late.refresh_token;
            self.candidates.entry(credential.clone()).or_default().retain(|late| !dead(late) && !used(late));
        } else {
            self.keep_late(credential, update);
        }
        self.end_intent(credential, intent.as_deref());
        replaced
    }

    fn keep_late(&mut self, credential: &CredentialName, update: GrantUpdate) {
        let GrantUpdate { base_version, refresh_token, at, .. } = update;
        let candidates = self.candidates.entry(credential.clone()).or_default();
        let of_grant =
            |grant: &Grant| grant.refresh_token == refresh_token || grant.previous.as_ref() == Some(&refresh_token);
        let known = self.grants.get(credential).is_some_and(of_grant);
        if bug::has(Bug::CandidateDropped) {
            return;
        }
        if known || candidates.iter().any(|other| other.refresh_token == refresh_token) {
            return;
        }
        candidates.push(GrantCandidate { base_version, refresh_token, at });
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
fn first(credential: CredentialName, refresh_token: &crate::types::Secret, at: Timestamp) -> Grant {
    Grant {
        credential,
        version: 1,
        refresh_token: refresh_token.clone(),
        previous: None,
        seed: Fingerprint::of(refresh_token),
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
fn rotate(grant: &mut Grant, update: &GrantUpdate, lost_at: u64) {
    if update.sent != update.refresh_token && !bug::has(Bug::PreviousDropped) {
        grant.previous = Some(update.sent.clone());
    }
    grant.version += 1;
    grant.refresh_token = update.refresh_token.clone();
    let outdated = update.as_of < lost_at;
    grant.needs_reauth = grant.needs_reauth.take().filter(|_| outdated);
    grant.retry = grant.needs_reauth.is_some();
    grant.updated_at = update.at;
}
