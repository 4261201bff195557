//! Seals and opens the words of the store, each secret for its place.

use std::{collections::BTreeMap, fmt, sync::Arc};

use tracing::warn;

use super::{
    blob::{self, Unopened},
    place::{GrantColumn, Place, TokenColumn},
    ring::KeyRing,
};
use crate::{
    error::{Error, ErrorKind, Result},
    store::{Commit, Grant, GrantCandidate, GrantSeed, GrantUpdate, TokenRow},
    types::{CredentialName, Fingerprint, KeyHash, Secret, Token},
};

/// The name under which sealed attributes stand, all in one: neither a name nor a value can be swapped or left out.
const SEALED_ATTRIBUTES: &str = "";

/// The fingerprint of a credential's present configuration. `None`: there is no such credential.
type ConfigOf = dyn Fn(&CredentialName) -> Option<Fingerprint> + Send + Sync;

/// Seals with the active key of a ring, and opens with all of them.
pub struct Sealer {
    ring: KeyRing,
    config_of: Arc<ConfigOf>,
    accept_plaintext: bool,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("active", self.ring.active()).finish_non_exhaustive()
    }
}

impl Sealer {
    /// Binds refresh tokens to the configuration of their credential, as `config_of` tells its fingerprint.
    pub fn new(
        ring: KeyRing,
        config_of: impl Fn(&CredentialName) -> Option<Fingerprint> + Send + Sync + 'static,
    ) -> Self {
        Self { ring, config_of: Arc::new(config_of), accept_plaintext: false }
    }

    /// Whether secrets that were kept in the clear are taken for what they are. Nothing is written so.
    #[must_use]
    pub fn accepting_plaintext(self, accept_plaintext: bool) -> Self {
        Self { accept_plaintext, ..self }
    }

    /// The keys.
    #[must_use]
    pub fn ring(&self) -> &KeyRing {
        &self.ring
    }

    pub(in crate::store) fn accepts_plaintext(&self) -> bool {
        self.accept_plaintext
    }

    /// The fingerprint of a credential's configuration.
    pub(in crate::store) fn config_of(&self, credential: &CredentialName) -> Result<Fingerprint> {
        let unknown = || Error::new(ErrorKind::NoSuchCredential, format!("no credential {credential} is configured"));
        (self.config_of)(credential).ok_or_else(unknown)
    }

    pub(in crate::store) fn seal(&self, place: &Place, clear: &Secret) -> Result<Secret> {
        let sealed = blob::seal(self.ring.active_key(), place, clear.expose());
        sealed.ok_or_else(|| Error::bug("a secret cannot be sealed"))
    }

    pub(in crate::store) fn open(&self, place: &Place, kept: &Secret) -> Result<Secret, Unopened> {
        match blob::open(&self.ring, place, kept) {
            Err(Unopened::Plaintext) if self.accept_plaintext => Ok(kept.clone()),
            opened => opened,
        }
    }

    pub(super) fn seal_commit(&self, mut commit: Commit) -> Result<Commit> {
        let (key, config) = (commit.key.hash(), commit.config);
        let place = |column| Place::of_token(key, column, commit.token.generation, config);
        let access_token = self.seal(&place(TokenColumn::AccessToken), &commit.token.access_token)?;
        let attributes = attributes_as_text(commit.token.terms.attributes());
        let attributes = self.seal(&place(TokenColumn::Attributes), &attributes)?;
        commit.token.access_token = access_token;
        let attributes = [(SEALED_ATTRIBUTES.to_owned(), attributes.expose().clone())];
        commit.token.terms = commit.token.terms.with_attributes(attributes.into());
        commit.grant = match commit.grant {
            Some(update) => Some(self.seal_update(commit.key.credential(), update)?),
            None => None,
        };
        Ok(commit)
    }

    /// Nobody knows yet whether it becomes the grant's or a candidate: it is sealed for both places.
    pub(super) fn seal_update(&self, credential: &CredentialName, mut update: GrantUpdate) -> Result<GrantUpdate> {
        let (config, base) = (self.config_of(credential)?, update.base_version);
        let version = base.saturating_add(1);
        let grant = |column| Place::of_grant(credential, column, version, config);
        let candidate = Place::of_candidate(credential, update.refresh_token.fingerprint, base, config);
        update.late = Some(self.seal(&candidate, &update.refresh_token.value)?);
        update.refresh_token.value = self.seal(&grant(GrantColumn::RefreshToken), &update.refresh_token.value)?;
        update.sent.value = self.seal(&grant(GrantColumn::Previous), &update.sent.value)?;
        if !self.accept_plaintext {
            // They are compared and not kept: by their values with what was kept in the clear alone.
            update.refused.iter_mut().for_each(|refused| refused.value = Secret::from(""));
        }
        Ok(update)
    }

    pub(super) fn seal_seed(&self, mut seed: GrantSeed, expected: u64) -> Result<GrantSeed> {
        let (config, version) = (self.config_of(&seed.credential)?, expected.saturating_add(1));
        let place = |column| Place::of_grant(&seed.credential, column, version, config);
        let refresh_token = self.seal(&place(GrantColumn::RefreshToken), &seed.refresh_token.value)?;
        if let Some(mut previous) = seed.previous.take() {
            previous.value = self.seal(&place(GrantColumn::Previous), &previous.value)?;
            seed.previous = Some(previous);
        }
        seed.refresh_token.value = refresh_token;
        Ok(seed)
    }

    /// A row whose token does not open is one without: a new token is minted under the next generation. One whose key is
    /// missing is an error.
    pub(super) fn open_row(&self, mut row: TokenRow) -> Result<TokenRow> {
        let Some(token) = row.token.take() else { return Ok(row) };
        match self.open_token(row.key.hash(), row.config, token) {
            Ok(token) => row.token = Some(token),
            Err(Unopened::KeyMissing(key)) => {
                let text = format!("the stored token is sealed with the key {key}: add it to [encryption.keys]");
                return Err(Error::new(ErrorKind::KeyMissing, text));
            }
            Err(why) => warn!(
                credential = %row.key.credential(), generation = %row.generation, ?why,
                "a stored token does not open and is not served"
            ),
        }
        Ok(row)
    }

    fn open_token(&self, key: KeyHash, config: Fingerprint, mut token: Token) -> Result<Token, Unopened> {
        let place = |column| Place::of_token(key, column, token.generation, config);
        let access_token = self.open(&place(TokenColumn::AccessToken), &token.access_token)?;
        let kept = token.terms.attributes();
        let attributes = match kept.get(SEALED_ATTRIBUTES).filter(|_| kept.len() == 1) {
            Some(sealed) => self.open(&place(TokenColumn::Attributes), &sealed.as_str().into())?,
            None if self.accept_plaintext => attributes_as_text(kept),
            None => return Err(Unopened::Plaintext),
        };
        let attributes = serde_json::from_str(attributes.expose()).map_err(|_| Unopened::Malformed)?;
        token.terms = token.terms.with_attributes(attributes);
        token.access_token = access_token;
        Ok(token)
    }

    pub(super) fn open_grant(&self, mut grant: Grant) -> Result<Grant> {
        let (name, config) = (&grant.credential, self.config_of(&grant.credential)?);
        let place = |column, version| Place::of_grant(name, column, version, config);
        let own = self.open(&place(GrantColumn::RefreshToken, grant.version), &grant.refresh_token);
        let own = own.map_err(|why| unopened_grant(&why))?;
        let previous = grant.previous.take().and_then(|previous| {
            let opened = self.open(&place(GrantColumn::Previous, grant.previous_since), &previous);
            let told = |why: &Unopened| warn!(credential = %name, ?why, "the refresh token of before does not open");
            opened.inspect_err(told).ok()
        });
        (grant.refresh_token, grant.previous) = (own, previous);
        Ok(grant)
    }

    /// Those that open. One whose key is missing is an error: the upstream may hold it for the live one.
    pub(super) fn open_candidates(
        &self,
        credential: &CredentialName,
        candidates: Vec<GrantCandidate>,
    ) -> Result<Vec<GrantCandidate>> {
        let config = self.config_of(credential)?;
        let mut opened = Vec::with_capacity(candidates.len());
        for mut candidate in candidates {
            let fingerprint = candidate.fingerprint.unwrap_or_else(|| Fingerprint::of(&candidate.refresh_token));
            let place = Place::of_candidate(credential, fingerprint, candidate.base_version, config);
            match self.open(&place, &candidate.refresh_token) {
                Ok(refresh_token) => {
                    candidate.refresh_token = refresh_token;
                    candidate.fingerprint = Some(fingerprint);
                    opened.push(candidate);
                }
                Err(why @ Unopened::KeyMissing(_)) => return Err(unopened_grant(&why)),
                Err(why) => warn!(%credential, %fingerprint, ?why, "a refresh token that came late does not open"),
            }
        }
        Ok(opened)
    }
}

/// What a person can do about a refresh token that does not open.
fn unopened_grant(why: &Unopened) -> Error {
    let tampered = |text: &'static str| Error::new(ErrorKind::ConfigTampered, text);
    match why {
        Unopened::KeyMissing(key) => Error::new(
            ErrorKind::KeyMissing,
            format!(
                "the stored refresh token is sealed with the key {key}: add it to [encryption.keys], or configure a new \
                 refresh token"
            ),
        ),
        Unopened::Refused => tampered(
            "the stored refresh token does not open under the present configuration of its credential: restore what was \
             changed of the two, or configure a new refresh token",
        ),
        Unopened::Malformed => {
            tampered("the stored refresh token is damaged: restore it, or configure a new refresh token")
        }
        Unopened::Plaintext => tampered(
            "the stored refresh token is in the clear: set encryption.accept_plaintext = true until `tokencached key \
             rotate` has sealed it, or configure a new refresh token",
        ),
    }
}

fn attributes_as_text(attributes: &BTreeMap<String, String>) -> Secret {
    let object = attributes.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
    Secret::new(serde_json::Value::Object(object).to_string())
}
