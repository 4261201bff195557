//! The upstream's token endpoint: how it treats refresh tokens.

use super::state::{RefreshToken, Set, set_of};

/// What the upstream does with a refresh token that is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rotation {
    /// It stays as it is.
    None,
    /// It is replaced; a replay is forgiven, as the most careful of such upstreams do it: only the newest refresh token's
    /// direct predecessor may be replayed, the newest is then replaced and refused from now on, and any older one ends the
    /// family. (That the period of grace ends is not modelled: it must be longer than a call's deadline and a lease.)
    Grace,
    /// It is replaced; a replay ends the family.
    Strict,
}

/// What the upstream answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// An access token, and a refresh token if they rotate.
    Token(Option<RefreshToken>),
    /// `invalid_grant`.
    InvalidGrant,
}

/// What the upstream knows of the one family of refresh tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Upstream {
    /// The newest refresh token; they are numbered from 1.
    pub issued: RefreshToken,
    /// The one whose use brought the newest.
    pub parent: RefreshToken,
    /// Those that were used.
    pub used: Set,
    /// Whether the family is dead.
    pub ended: bool,
}

impl Upstream {
    /// A family with its first refresh token.
    pub(super) const fn new() -> Self {
        Self { issued: 1, parent: 0, used: 0, ended: false }
    }

    /// Which refresh tokens would bring an access token now.
    #[must_use]
    pub fn accepted(&self, rotation: Rotation) -> Set {
        match rotation {
            _ if self.ended => 0,
            Rotation::None | Rotation::Strict => set_of(self.issued),
            Rotation::Grace => set_of(self.issued) | set_of(self.parent),
        }
    }

    /// Handles a request.
    pub(super) fn redeem(&mut self, rotation: Rotation, token: RefreshToken) -> Answer {
        if self.accepted(rotation) & set_of(token) == 0 {
            // One that was replaced before it was ever used is refused and no more.
            self.ended |= self.used & set_of(token) != 0;
            return Answer::InvalidGrant;
        }
        if rotation == Rotation::None {
            return Answer::Token(None);
        }
        self.used |= set_of(token);
        self.parent = token;
        self.issued += 1;
        Answer::Token(Some(self.issued))
    }
}
