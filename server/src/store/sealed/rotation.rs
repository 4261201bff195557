//! Sealing anew with the active key, page by page, while the store is in use.
//!
//! A row that is changed meanwhile stays as it was changed, for that sealed it as well. What is sealed with the active key
//! is passed over: a run that was broken off is simply begun again.

use std::collections::BTreeMap;

use super::{
    Unopened,
    blob::key_of,
    place::{GrantColumn, Place, TokenColumn},
    ring::KeyId,
    sealer::Sealer,
};
use crate::{
    error::{ErrorKind, Result},
    store::{Reseal, SecretCursor, SharedStore, StoredSecrets},
    types::{Fingerprint, Secret},
};

/// How many rows one transaction changes at most: whoever commits one of them waits for it.
const PAGE: u32 = 200;

/// What was found, and what was done about it, in rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyCensus {
    /// The active key.
    pub active: String,
    /// How many rows were, or would be, sealed anew.
    pub resealed: u64,
    /// How many were sealed with the active key already.
    pub current: u64,
    /// How many cannot be opened, by the reason; they stay as they are.
    pub unreadable: BTreeMap<&'static str, u64>,
    /// How many have a secret that is sealed with this key, when all was done. The name is empty for those in the clear.
    pub remaining: BTreeMap<String, u64>,
}

/// Which keys rows are sealed with.
#[derive(Debug, Default)]
pub(super) struct KeysInUse {
    pub(super) by_key: BTreeMap<KeyId, u64>,
    pub(super) plaintext: u64,
}

/// What there is to do about a row.
enum Look {
    Current,
    Stale(Box<StoredSecrets>),
    Unreadable(&'static str),
}

/// Seals everything with the active key; or tells what would be.
pub(super) async fn rotate(store: &SharedStore, sealer: &Sealer, dry_run: bool) -> Result<KeyCensus> {
    let mut census = KeyCensus { active: sealer.ring().active().to_string(), ..KeyCensus::default() };
    let mut from = Some(SecretCursor::default());
    while let Some(cursor) = from {
        let page = store.secrets(cursor, PAGE).await?;
        let mut changes = vec![];
        for old in page.rows {
            match look(sealer, &old)? {
                Look::Current => census.current += 1,
                Look::Stale(new) => changes.push(Reseal { old, new: *new }),
                Look::Unreadable(why) => *census.unreadable.entry(why).or_default() += 1,
            }
        }
        if page.unreadable > 0 {
            *census.unreadable.entry("INVALID_ROW").or_default() += page.unreadable;
        }
        let stale = changes.len() as u64;
        census.resealed += if dry_run || stale == 0 { stale } else { store.reseal(changes).await? };
        from = page.next;
    }
    let keys = keys_in_use(store).await?;
    census.remaining = keys.by_key.into_iter().map(|(id, rows)| (id.to_string(), rows)).collect();
    if keys.plaintext > 0 {
        census.remaining.insert(String::new(), keys.plaintext);
    }
    Ok(census)
}

/// Counts rows by their keys; opens none.
pub(super) async fn keys_in_use(store: &SharedStore) -> Result<KeysInUse> {
    let mut keys = KeysInUse::default();
    let mut from = Some(SecretCursor::default());
    while let Some(cursor) = from {
        let page = store.secrets(cursor, 1000).await?;
        for row in &page.rows {
            keys.count(row);
        }
        from = page.next;
    }
    Ok(keys)
}

impl KeysInUse {
    fn count(&mut self, row: &StoredSecrets) {
        let found: Vec<_> = values(row).into_iter().map(|value| key_of(&value)).collect();
        let mut ids: Vec<_> = found.iter().filter_map(|key| key.clone().ok()).collect();
        ids.sort();
        ids.dedup();
        for id in ids {
            *self.by_key.entry(id).or_default() += 1;
        }
        self.plaintext += u64::from(found.contains(&Err(Unopened::Plaintext)));
    }
}

/// The secrets of a row, each as it is kept.
fn values(row: &StoredSecrets) -> Vec<Secret> {
    match row {
        StoredSecrets::Token { access_token, attributes, .. } => {
            vec![access_token.clone(), unwrapped(attributes).unwrap_or_else(|| attributes.clone())]
        }
        StoredSecrets::Grant { refresh_token, previous, .. } => {
            [refresh_token.clone()].into_iter().chain(previous.clone()).collect()
        }
        StoredSecrets::Candidate { refresh_token, .. } => vec![refresh_token.clone()],
    }
}

/// What is sealed in a column of attributes: they stand in it as a JSON object with one nameless value.
fn unwrapped(attributes: &Secret) -> Option<Secret> {
    let object: BTreeMap<String, String> = serde_json::from_str(attributes.expose()).ok()?;
    object.get("").filter(|_| object.len() == 1).map(|sealed| sealed.as_str().into())
}

fn wrapped(sealed: &Secret) -> Secret {
    Secret::new(serde_json::json!({ "": sealed.expose() }).to_string())
}

fn look(sealer: &Sealer, row: &StoredSecrets) -> Result<Look> {
    let active = Ok(sealer.ring().active().clone());
    let is_current = values(row).iter().all(|value| key_of(value) == active);
    let resealed = match row {
        StoredSecrets::Token { .. } => reseal_token(sealer, row)?,
        StoredSecrets::Grant { .. } => reseal_grant(sealer, row)?,
        StoredSecrets::Candidate { .. } => reseal_candidate(sealer, row)?,
    };
    Ok(match resealed {
        Err(why) => Look::Unreadable(why),
        Ok(_) if is_current => Look::Current,
        Ok(new) => Look::Stale(Box::new(new)),
    })
}

fn reason(why: &Unopened) -> &'static str {
    match why {
        Unopened::Plaintext => "PLAINTEXT",
        Unopened::Malformed => "MALFORMED",
        Unopened::KeyMissing(_) => "KEY_MISSING",
        Unopened::Refused => "REFUSED",
    }
}

type Resealed = Result<StoredSecrets, &'static str>;

/// Opens a secret and seals it anew for the same place; and its fingerprint.
fn anew(sealer: &Sealer, place: &Place, kept: &Secret) -> Result<Result<(Secret, Fingerprint), &'static str>> {
    match sealer.open(place, kept) {
        Ok(clear) => Ok(Ok((sealer.seal(place, &clear)?, Fingerprint::of(&clear)))),
        Err(why) => Ok(Err(reason(&why))),
    }
}

/// The fingerprint of the configuration of a credential that may be gone.
fn config_of(sealer: &Sealer, credential: &crate::types::CredentialName) -> Result<Option<Fingerprint>> {
    match sealer.config_of(credential) {
        Ok(config) => Ok(Some(config)),
        Err(error) if error.kind() == ErrorKind::NoSuchCredential => Ok(None),
        Err(error) => Err(error),
    }
}

const UNCONFIGURED: &str = "NO_SUCH_CREDENTIAL";

fn reseal_token(sealer: &Sealer, row: &StoredSecrets) -> Result<Resealed> {
    let StoredSecrets::Token { key, generation, config, access_token, attributes } = row else { return Ok(Err("BUG")) };
    let place = |column| Place::of_token(*key, column, *generation, *config);
    let kept = unwrapped(attributes).unwrap_or_else(|| attributes.clone());
    let token = match anew(sealer, &place(TokenColumn::AccessToken), access_token)? {
        Ok((token, _)) => token,
        Err(why) => return Ok(Err(why)),
    };
    Ok(anew(sealer, &place(TokenColumn::Attributes), &kept)?.map(|(attributes, _)| StoredSecrets::Token {
        key: *key,
        generation: *generation,
        config: *config,
        access_token: token,
        attributes: wrapped(&attributes),
    }))
}

/// One before that does not open stays as it is: it is no reason to leave the refresh token with its key.
fn reseal_grant(sealer: &Sealer, row: &StoredSecrets) -> Result<Resealed> {
    let StoredSecrets::Grant {
        credential, version, refresh_token, previous, previous_fingerprint, previous_since, ..
    } = row
    else {
        return Ok(Err("BUG"));
    };
    let Some(config) = config_of(sealer, credential)? else { return Ok(Err(UNCONFIGURED)) };
    let place = |column, version| Place::of_grant(credential, column, version, config);
    let (own, fingerprint) = match anew(sealer, &place(GrantColumn::RefreshToken, *version), refresh_token)? {
        Ok(own) => own,
        Err(why) => return Ok(Err(why)),
    };
    let mut before = (previous.clone(), *previous_fingerprint);
    if let Some(previous) = previous
        && let Ok((sealed, fingerprint)) = anew(sealer, &place(GrantColumn::Previous, *previous_since), previous)?
    {
        before = (Some(sealed), Some(fingerprint));
    }
    Ok(Ok(StoredSecrets::Grant {
        credential: credential.clone(),
        version: *version,
        refresh_token: own,
        fingerprint: Some(fingerprint),
        previous: before.0,
        previous_fingerprint: before.1,
        previous_since: *previous_since,
    }))
}

fn reseal_candidate(sealer: &Sealer, row: &StoredSecrets) -> Result<Resealed> {
    let StoredSecrets::Candidate { id, credential, base_version, refresh_token, fingerprint } = row else {
        return Ok(Err("BUG"));
    };
    let Some(config) = config_of(sealer, credential)? else { return Ok(Err(UNCONFIGURED)) };
    let fingerprint = fingerprint.unwrap_or_else(|| Fingerprint::of(refresh_token));
    let place = Place::of_candidate(credential, fingerprint, *base_version, config);
    Ok(anew(sealer, &place, refresh_token)?.map(|(refresh_token, _)| StoredSecrets::Candidate {
        id: *id,
        credential: credential.clone(),
        base_version: *base_version,
        refresh_token,
        fingerprint: Some(fingerprint),
    }))
}
