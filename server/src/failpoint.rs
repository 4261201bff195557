//! The points of a refresh at which a test can have the process die or stall.
//!
//! Without the cargo feature `failpoints`, and so in every release build, there is nothing here: [`Failpoints`] is empty
//! and reaching a point is no code. With it the environment variable `TOKENCACHE_FAILPOINTS` says what happens where.

use std::fmt;

#[cfg(feature = "failpoints")]
mod armed;
#[cfg(feature = "failpoints")]
pub use armed::Failpoints;

/// The steps of a refresh: before and after each transaction and the upstream call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// The lease is about to be claimed.
    BeforeClaim,
    /// The lease is held.
    AfterClaim,
    /// The intent is about to be journalled.
    BeforeIntent,
    /// The intent is journalled; the time from there to the call is yet to be checked.
    AfterIntent,
    /// The upstream is about to be called.
    BeforePost,
    /// The upstream has answered, and nothing of it is stored.
    AfterPost,
    /// The token is about to be committed.
    BeforeCommit,
    /// The token is committed, and nobody has it.
    AfterCommit,
    /// The lease is about to be given back.
    BeforeRelease,
}

impl Point {
    /// All of them in the order in which a refresh comes to them.
    pub const ALL: [Self; 9] = [
        Self::BeforeClaim,
        Self::AfterClaim,
        Self::BeforeIntent,
        Self::AfterIntent,
        Self::BeforePost,
        Self::AfterPost,
        Self::BeforeCommit,
        Self::AfterCommit,
        Self::BeforeRelease,
    ];
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BeforeClaim => "before-claim",
            Self::AfterClaim => "after-claim",
            Self::BeforeIntent => "before-intent",
            Self::AfterIntent => "after-intent",
            Self::BeforePost => "before-post",
            Self::AfterPost => "after-post",
            Self::BeforeCommit => "before-commit",
            Self::AfterCommit => "after-commit",
            Self::BeforeRelease => "before-release",
        })
    }
}

/// What happens at the points: nothing, for they are compiled out.
#[cfg(not(feature = "failpoints"))]
#[derive(Debug)]
pub struct Failpoints;

#[cfg(not(feature = "failpoints"))]
impl Failpoints {
    /// Nothing happens.
    #[must_use]
    pub fn none() -> Self {
        Self
    }

    /// Nothing happens, whatever the environment says.
    #[must_use]
    pub fn from_environment() -> Self {
        Self
    }

    /// Passes a point.
    #[inline]
    pub async fn reach(&self, _point: Point) {}
}
