//! A door for the fuzzer in `fuzz/`: seals and opens single secrets.

use super::{
    KeyId, Place, Sealer, Unopened, blob,
    place::{GrantColumn, TokenColumn},
};
use crate::{
    error::Result,
    types::{CredentialName, Fingerprint, Generation, Secret, Selector, TokenKey},
};

/// What is kept sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Kept {
    AccessToken,
    Attributes,
    RefreshToken,
    Previous,
    Candidate,
    Spilled,
}

/// Where it is kept; `number` is the generation or what stands for it.
#[must_use]
pub fn place(kept: Kept, credential: &CredentialName, number: u64, config: Fingerprint) -> Place {
    let key = || TokenKey::new(Selector::new(credential.clone(), vec![], None, vec![])).hash();
    let of_token = |column| Place::of_token(key(), column, Generation::new(number), config);
    let of_grant = |column| Place::of_grant(credential, column, number, config);
    match kept {
        Kept::AccessToken => of_token(TokenColumn::AccessToken),
        Kept::Attributes => of_token(TokenColumn::Attributes),
        Kept::RefreshToken => of_grant(GrantColumn::RefreshToken),
        Kept::Previous => of_grant(GrantColumn::Previous),
        Kept::Candidate => Place::of_candidate(credential, config, number, config),
        Kept::Spilled => Place::of_spilled("spill-1", credential, number, config),
    }
}

/// Seals a secret for a place.
///
/// # Errors
///
/// If the cryptographic library fails.
pub fn seal(sealer: &Sealer, place: &Place, clear: &Secret) -> Result<Secret> {
    sealer.seal(place, clear)
}

/// Opens what was sealed for a place.
///
/// # Errors
///
/// Why it does not open.
pub fn open(sealer: &Sealer, place: &Place, kept: &Secret) -> std::result::Result<Secret, Unopened> {
    sealer.open(place, kept)
}

/// The name of the key that a text is sealed with.
///
/// # Errors
///
/// If it is not sealed.
pub fn key_of(kept: &Secret) -> std::result::Result<KeyId, Unopened> {
    blob::key_of(kept)
}
