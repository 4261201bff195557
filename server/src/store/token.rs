//! What a store knows of a token key, and what changes it.

use super::GrantUpdate;
use crate::{
    error::ErrorKind,
    time::Timestamp,
    types::{CredentialName, Fingerprint, Generation, Token, TokenKey},
};

/// What a store knows of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRow {
    /// The key.
    pub key: TokenKey,
    /// The generation of the last token minted.
    pub generation: Generation,
    /// The lowest generation that may be served.
    pub min_generation: Generation,
    /// The last token minted, valid or not.
    pub token: Option<Token>,
    /// Fingerprint of the configuration that the last token was minted with; before the first one, of the first attempt.
    pub config: Fingerprint,
    /// Failed attempts since the last success.
    pub failures: Option<Failures>,
    /// When a client last asked for it, as far as it was known when the last token was minted.
    pub last_used_at: Timestamp,
}

/// The failed attempts since the last success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failures {
    /// How many.
    pub count: u32,
    /// What the last one failed with.
    pub kind: ErrorKind,
    /// The last one's text for people.
    pub message: String,
    /// When the last one ended.
    pub at: Timestamp,
    /// Not before this time is the upstream asked again.
    pub next_attempt_at: Timestamp,
    /// Fingerprint of the configuration that the last one was made with.
    pub config: Fingerprint,
}

/// A token that was minted, to be stored.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Its key.
    pub key: TokenKey,
    /// The token.
    pub token: Token,
    /// To which generations of the row it may be a successor.
    pub fence: Fence,
    /// Fingerprint of the configuration that it was minted with.
    pub config: Fingerprint,
    /// When a client last asked for the key.
    pub last_used_at: Timestamp,
    /// The refresh token that came with it, if any.
    pub grant: Option<GrantUpdate>,
}

/// To which generations of a row a token may be a successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fence {
    /// To the one just before its own: of several that were begun from one generation, the first is stored.
    Next,
    /// To every lower one, and to none. For a token that was served before it could be stored: its generation has been
    /// seen, and those between are never given out.
    Above,
}

/// What became of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Committed {
    /// It is stored.
    Stored,
    /// Somebody else's token came first; a refresh token that came with this one was kept all the same: as the grant's
    /// if its version had not moved, else as a candidate.
    Superseded,
}

/// An attempt that failed, to be recorded.
#[derive(Clone, Debug)]
pub struct FailedAttempt {
    /// Its key.
    pub key: TokenKey,
    /// The generation that the attempt was begun from.
    pub base: Generation,
    /// What the row is to say.
    pub failures: Failures,
}

/// What became of a rejection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rejected {
    /// Whether this call raised the floor.
    pub invalidated: bool,
    /// The lowest generation that may be served from now on.
    pub min_generation: Generation,
    /// The generation of the row's last token.
    pub generation: Generation,
    /// The event of the key's last rejection, this one or an earlier one. 0: there was none.
    pub event: u64,
}

/// Something that the upstream has given away and that the store has yet to take.
#[derive(Clone, Debug)]
pub enum Write {
    /// A token, and the refresh token that came with it.
    Token(Commit),
    /// A refresh token that came alone.
    Grant(CredentialName, GrantUpdate),
}

impl Write {
    /// Whose it is.
    #[must_use]
    pub fn credential(&self) -> &CredentialName {
        match self {
            Self::Token(commit) => commit.key.credential(),
            Self::Grant(credential, _) => credential,
        }
    }
}
