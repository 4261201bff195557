//! The one rule that this process leaves out.

use std::sync::OnceLock;

use super::Bug;

const VARIABLE: &str = "TOKENCACHE_BUG";

/// Their names, and the bugs.
const ALL: &[(&str, Bug)] = &[
    ("no-fence", Bug::NoFence),
    ("foreign-lease-released", Bug::ForeignLeaseReleased),
    ("ack-before-commit", Bug::AckBeforeCommit),
    ("ack-without-waiting", Bug::AckWithoutWaiting),
    ("lease-from-answer", Bug::LeaseFromAnswer),
    ("no-catch-up", Bug::NoCatchUp),
    ("notify-only", Bug::NotifyOnly),
    ("gaps-ignored", Bug::GapsIgnored),
    ("old-token-reinserted", Bug::OldTokenReinserted),
    ("flight-past-floor", Bug::FlightPastFloor),
    ("failure-displaces-token", Bug::FailureDisplacesToken),
    ("next-attempt-ignored", Bug::NextAttemptIgnored),
    ("rotates-without-the-store", Bug::RotatesWithoutTheStore),
    ("previous-dropped", Bug::PreviousDropped),
    ("candidate-dropped", Bug::CandidateDropped),
    ("candidates-not-tried", Bug::CandidatesNotTried),
    ("intent-fenced-on-version-alone", Bug::IntentFencedOnVersionAlone),
    ("foreign-intent-ended", Bug::ForeignIntentEnded),
    ("takeover-without-waiting", Bug::TakeoverWithoutWaiting),
    ("invalid-grant-always-believed", Bug::InvalidGrantAlwaysBelieved),
    ("served-before-commit", Bug::ServedBeforeCommit),
    ("served-token-lost", Bug::ServedTokenLost),
];

/// Whether the environment says that this rule is left out.
///
/// # Panics
///
/// If it names none: a run that breaks nothing would prove nothing.
pub(crate) fn has(bug: Bug) -> bool {
    // The one static of the service, and in no build that serves anybody: a rule is left out for the whole process.
    static CHOSEN: OnceLock<Option<Bug>> = OnceLock::new();
    *CHOSEN.get_or_init(choose) == Some(bug)
}

fn choose() -> Option<Bug> {
    let name = std::env::var(VARIABLE).ok().filter(|name| !name.is_empty())?;
    let known = ALL.iter().find(|(known, _)| *known == name);
    let names = || ALL.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    Some(known.unwrap_or_else(|| panic!("{VARIABLE} names none of {}", names())).1)
}
