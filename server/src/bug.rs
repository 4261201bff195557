//! Rules that a test run can leave out, to see that the tests would miss them.
//!
//! Without the cargo feature `seeded-bugs`, and so in every release build, [`has`] is `false` at compile time and nothing
//! of this is left. With it the environment variable `TOKENCACHE_BUG` names the rule that is left out. A switch at run
//! time, not a `cfg` for each: one build serves all of them, where rustc would be run anew for each. `cargo xtask bugs`
//! runs them all.

#[cfg(feature = "seeded-bugs")]
mod chosen;
#[cfg(feature = "seeded-bugs")]
pub(crate) use chosen::has;

/// A rule that is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// A commit overwrites the row, whatever its generation.
    NoFence,
    /// Whoever calls gives a lease back, also one that is another's.
    ForeignLeaseReleased,
    /// The rejection is acknowledged before its transaction has committed.
    AckBeforeCommit,
    /// The rejection is acknowledged without waiting for the live replicas.
    AckWithoutWaiting,
    /// The freshness lease is counted from the answer to its sign of life, on the replica's own clock.
    LeaseFromAnswer,
    /// A freshness lease that was renewed after a lapse counts before the events were read.
    NoCatchUp,
    /// Events are looked at only when a notification says so.
    NotifyOnly,
    /// Ids that are missing below the highest one read are taken for applied.
    GapsIgnored,
    /// A rejected token that is put into memory again is served.
    OldTokenReinserted,
    /// What a flight loaded is handed out without looking at the floor again.
    FlightPastFloor,
    /// A failed attempt is told to callers although there is a valid token.
    FailureDisplacesToken,
    /// The upstream is asked again although the last failure has set a time for it.
    NextAttemptIgnored,
    /// A refresh token that rotates is sent while the store does not answer.
    RotatesWithoutTheStore,
    /// The refresh token before the present one is not kept.
    PreviousDropped,
    /// A refresh token that came too late is thrown away.
    CandidateDropped,
    /// `invalid_grant` is believed without trying the refresh tokens that came late.
    CandidatesNotTried,
    /// An intent is fenced on the grant's version, but not on what was journalled since the grant was loaded.
    IntentFencedOnVersionAlone,
    /// Whoever ends its intent ends a successor's as well.
    ForeignIntentEnded,
    /// With a strict upstream a successor does not wait until its predecessor's call is over.
    TakeoverWithoutWaiting,
    /// `invalid_grant` is believed although the grant's version has moved.
    InvalidGrantAlwaysBelieved,
    /// The access token is handed out before the refresh token that came with it is stored.
    ServedBeforeCommit,
    /// A token that was served unstored is stored only if nothing was skipped.
    ServedTokenLost,
}

/// Whether a rule is left out.
#[cfg(not(feature = "seeded-bugs"))]
pub(crate) const fn has(_: Bug) -> bool {
    false
}
