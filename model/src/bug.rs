//! The rules of the protocol that can be left out, to see that the checker misses them.

/// A rule that is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A commit overwrites the row, whatever its generation.
    NoFence,
    /// The intent is committed only after the POST was sent.
    IntentAfterPost,
    /// An intent is fenced on the grant's version, but not on an intent that was committed since the grant was loaded.
    IntentFencedOnVersionAlone,
    /// With a strict upstream a successor does not wait until its predecessor's call is over.
    TakeoverWithoutWaiting,
    /// The time of an intent comes from its replica's clock, which is fast or slow.
    IntentOnReplicaClock,
    /// A holder sends its request however long ago it has journalled it.
    LatePost,
    /// The call's deadline is counted from the POST, not from before the intent.
    DeadlineFromPost,
    /// `invalid_grant` is believed although the grant's version has moved.
    InvalidGrantAlwaysBelieved,
    /// `invalid_grant` is believed without trying the refresh tokens that came late.
    CandidatesNotTried,
    /// A refresh token that came too late is thrown away.
    CandidateDropped,
    /// A refresh token that comes after a loss ends it, although its call was begun before.
    LossForgotten,
    /// The refresh token before the present one is not kept.
    PreviousDropped,
    /// After a late call the grant's refresh token is kept as the one before, not the one that was sent.
    PreviousNotTheOneSent,
    /// A flight forgets its doubt when the grant's version has moved.
    DoubtForgotten,
    /// A commit ends every intent, also a successor's.
    ForeignIntentEnded,
    /// With a lenient upstream the next refresh token is used while a call with the one before may be under way.
    StrayCallForgotten,
    /// The access token is handed out before the refresh token that came with it is stored.
    ServedBeforeCommit,
    /// The rejection is acknowledged before its transaction has committed.
    AckBeforeCommit,
    /// The rejection is acknowledged without waiting for the live replicas.
    AckWithoutWaiting,
    /// A report on a generation that this replica has already replaced is answered from memory.
    OldReportAnsweredAtOnce,
    /// A freshness lease's end comes from its replica's clock, which is slow.
    LeaseOnReplicaClock,
    /// Locally the freshness lease is counted from the answer to the heartbeat.
    LeaseFromAnswer,
    /// The local clock stands still while the machine is suspended.
    ClockStandsStill,
    /// A lease renewed after a lapse counts at once.
    NoCatchUp,
    /// Ids missing below the highest one applied are taken for applied.
    GapsIgnored,
    /// An event whose transaction took longer than replicas wait for a missing id is not appended again.
    LateEventNotRepeated,
    /// A replica that starts takes every id below the highest visible one for applied.
    GapsUnknownAtStart,
    /// The floor is dropped from memory together with the token.
    FloorEvicted,
    /// Whether the lease is valid is looked at only after the entry was read.
    FreshnessReadLate,
    /// Whether the lease is valid is looked at only before the entry was read.
    FreshnessReadEarly,
    /// What a flight loaded is handed out without looking at the floor again.
    FlightPastFloor,
}
