//! The secrets in memory row by row, as the tables have them.

use super::State;
use crate::{
    store::{Reseal, SecretCursor, SecretPage, StoredSecrets, sql::rows::json_of},
    types::{CredentialName, KeyHash, Secret},
};

impl State {
    pub(super) fn secrets(&self, from: &SecretCursor, limit: usize) -> SecretPage {
        let rows = match from {
            SecretCursor::Tokens(after) => self.token_secrets(after, limit),
            SecretCursor::Grants(after) => self.grant_secrets(after, limit),
            SecretCursor::Candidates(after) => self.candidate_secrets(*after, limit),
        };
        let next = if rows.len() < limit { from.next_table() } else { rows.last().map(cursor_after) };
        SecretPage { rows, unreadable: 0, next }
    }

    fn token_secrets(&self, after: &[u8], limit: usize) -> Vec<StoredSecrets> {
        let rows = self.tokens.iter().filter(|(key, _)| &key.as_bytes()[..] > after);
        let secrets = rows.filter_map(|(key, row)| {
            let token = row.token.as_ref()?;
            Some(StoredSecrets::Token {
                key: *key,
                generation: token.generation,
                config: row.config,
                access_token: token.access_token.clone(),
                attributes: Secret::new(String::from_utf8(json_of(token.terms.attributes())).unwrap_or_default()),
            })
        });
        secrets.take(limit).collect()
    }

    fn grant_secrets(&self, after: &str, limit: usize) -> Vec<StoredSecrets> {
        let grants = self.grants.grants.iter().filter(|(name, _)| name.as_str() > after).take(limit);
        let secrets = grants.map(|(name, grant)| {
            let prints = self.grants.prints.get(name);
            StoredSecrets::Grant {
                credential: name.clone(),
                version: grant.version,
                refresh_token: grant.refresh_token.clone(),
                fingerprint: prints.map(|prints| prints.present),
                previous: grant.previous.clone(),
                previous_fingerprint: prints.and_then(|prints| prints.previous),
                previous_since: grant.previous_since,
            }
        });
        secrets.collect()
    }

    fn candidate_secrets(&self, after: u64, limit: usize) -> Vec<StoredSecrets> {
        let all = self.grants.candidates.iter().flat_map(|(name, late)| late.iter().map(move |late| (name, late)));
        let mut later: Vec<_> = all.filter(|(_, late)| late.id > after).collect();
        later.sort_by_key(|(_, late)| late.id);
        let secrets = later.into_iter().take(limit).map(|(name, late)| StoredSecrets::Candidate {
            id: late.id,
            credential: name.clone(),
            base_version: late.candidate.base_version,
            refresh_token: late.candidate.refresh_token.clone(),
            fingerprint: late.candidate.fingerprint,
        });
        secrets.collect()
    }

    /// `None`: the row has changed since.
    pub(super) fn reseal(&mut self, change: Reseal) -> Option<()> {
        match (change.old, change.new) {
            (StoredSecrets::Token { key, generation, access_token: old, .. }, new) => {
                self.reseal_token(key, generation, &old, new)
            }
            (StoredSecrets::Grant { credential, version, refresh_token: old, .. }, new) => {
                self.reseal_grant(&credential, version, &old, new)
            }
            (StoredSecrets::Candidate { id, credential, refresh_token: old, .. }, new) => {
                self.reseal_candidate(id, &credential, &old, new)
            }
        }
    }

    fn reseal_token(
        &mut self,
        key: KeyHash,
        generation: crate::types::Generation,
        old: &Secret,
        new: StoredSecrets,
    ) -> Option<()> {
        let StoredSecrets::Token { access_token, attributes, .. } = new else { return None };
        let token = self.tokens.get_mut(&key)?.token.as_mut()?;
        let same = token.generation == generation && token.access_token == *old;
        let attributes = serde_json::from_str(attributes.expose()).ok().filter(|_| same)?;
        token.access_token = access_token;
        token.terms = std::mem::take(&mut token.terms).with_attributes(attributes);
        Some(())
    }

    fn reseal_grant(
        &mut self,
        credential: &CredentialName,
        version: u64,
        old: &Secret,
        new: StoredSecrets,
    ) -> Option<()> {
        let StoredSecrets::Grant { refresh_token, previous, .. } = new else { return None };
        let grant = self.grants.grants.get_mut(credential);
        let grant = grant.filter(|grant| grant.version == version && grant.refresh_token == *old)?;
        (grant.refresh_token, grant.previous) = (refresh_token, previous);
        Some(())
    }

    fn reseal_candidate(
        &mut self,
        id: u64,
        credential: &CredentialName,
        old: &Secret,
        new: StoredSecrets,
    ) -> Option<()> {
        let StoredSecrets::Candidate { refresh_token, .. } = new else { return None };
        let late = self.grants.candidates.get_mut(credential)?.iter_mut().find(|late| late.id == id)?;
        let candidate = Some(&mut late.candidate).filter(|candidate| candidate.refresh_token == *old)?;
        candidate.refresh_token = refresh_token;
        Some(())
    }
}

fn cursor_after(row: &StoredSecrets) -> SecretCursor {
    match row {
        StoredSecrets::Token { key, .. } => SecretCursor::Tokens(key.as_bytes().to_vec()),
        StoredSecrets::Grant { credential, .. } => SecretCursor::Grants(credential.to_string()),
        StoredSecrets::Candidate { id, .. } => SecretCursor::Candidates(*id),
    }
}
