//! Which refresh token is sent, and which calls of others it must not meet: pure functions of the grant.
//!
//! `model/` has the same rules under the same names, and shows what breaks without each.

use std::time::Duration;

use crate::{
    bug::{self, Bug},
    provider::Rotation,
    store::{Grant, GrantCandidate},
    types::{Fingerprint, Secret},
};

/// How an upstream is to be treated whose calls last for `call` at most. A period of grace that a lost call may outlast
/// is none: when its replay can be sent the upstream may have ceased to forgive it.
pub(super) fn treated(rotation: Rotation, call: Duration) -> Rotation {
    match rotation {
        Rotation::Grace(grace) if grace < call => Rotation::Strict,
        other => other,
    }
}

/// Which refresh token to send, given which were refused: the grant's; then those that came late, the latest first; at an
/// upstream that forgives a replay at last the one before. What is older than the last log-in of a person is nobody's
/// business any more. `None`: there is none left.
pub(super) fn choose<'a>(
    grant: &'a Grant,
    candidates: &'a [GrantCandidate],
    refused: &[Secret],
    rotation: Rotation,
) -> Option<&'a Secret> {
    // One of an unknown version was sent while the store was out of reach: it counts as of the first log-in.
    let late = candidates.iter().rev().filter(|candidate| candidate.base_version.max(1) >= grant.planted);
    let lenient = matches!(rotation, Rotation::Grace(_)) && grant.version > grant.planted;
    let late = late.filter(|_| !bug::has(Bug::CandidatesNotTried));
    let before = grant.previous.iter().filter(|_| lenient);
    let all = [&grant.refresh_token].into_iter().chain(late.map(|late| &late.refresh_token)).chain(before);
    all.into_iter().find(|token| !refused.contains(token))
}

/// For how long somebody else's call may be under way that one with `token` must not meet: at a strict upstream any call,
/// at a lenient one a call with another refresh token, for the two would not be a replay of each other.
pub(super) fn must_wait(
    grant: &Grant,
    token: Fingerprint,
    owner: &str,
    rotation: Rotation,
    call: Duration,
) -> Duration {
    let intent = grant.intent.as_ref().filter(|intent| intent.owner != owner).map(|i| (i.token, i.age));
    let stray = grant.stray.as_ref().map(|stray| (stray.token, stray.age));
    let meets = |sent: Option<Fingerprint>| match rotation {
        Rotation::None => false,
        Rotation::Grace(_) => sent != Some(token),
        Rotation::Strict => !bug::has(Bug::TakeoverWithoutWaiting),
    };
    let rests = [intent, stray].into_iter().flatten().filter(|(sent, _)| meets(*sent));
    rests.map(|(_, age)| call.saturating_sub(age)).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        store::{OpenIntent, StrayCall},
        time::Timestamp,
        types::CredentialName,
    };

    const CALL: Duration = Duration::from_secs(12);
    const GRACE: Rotation = Rotation::Grace(Duration::from_secs(30));

    fn grant() -> Grant {
        Grant {
            credential: CredentialName::parse("c").expect("a valid name"),
            version: 5,
            refresh_token: "present".into(),
            previous: Some("before".into()),
            previous_since: 5,
            seed: print("seed"),
            planted: 3,
            journal: 7,
            intent: None,
            stray: None,
            needs_reauth: None,
            retry: false,
            updated_at: Timestamp::from_millis(0),
        }
    }

    fn print(token: &str) -> Fingerprint {
        Fingerprint::of(&token.into())
    }

    fn late(base_version: u64, token: &str) -> GrantCandidate {
        let (refresh_token, fingerprint) = (token.into(), Some(print(token)));
        GrantCandidate { base_version, refresh_token, fingerprint, at: Timestamp::from_millis(0) }
    }

    fn intent(token: &str, age: u64) -> Option<OpenIntent> {
        Some(OpenIntent { owner: "other".into(), token: Some(print(token)), age: Duration::from_secs(age) })
    }

    fn stray(token: &str, age: u64) -> Option<StrayCall> {
        Some(StrayCall { token: Some(print(token)), age: Duration::from_secs(age) })
    }

    fn order(grant: &Grant, candidates: &[GrantCandidate], rotation: Rotation) -> Vec<String> {
        let mut refused = vec![];
        while let Some(next) = choose(grant, candidates, &refused, rotation) {
            refused.push(next.clone());
        }
        refused.iter().map(|token| token.expose().clone()).collect()
    }

    #[test]
    fn the_present_one_is_tried_first_then_the_late_ones_and_where_replays_are_forgiven_the_one_before() {
        let candidates = [late(3, "late"), late(4, "later")];
        assert_eq!(order(&grant(), &candidates, GRACE), ["present", "later", "late", "before"]);
        assert_eq!(order(&grant(), &candidates, Rotation::Strict), ["present", "later", "late"]);
        assert_eq!(order(&grant(), &candidates, Rotation::None), ["present", "later", "late"]);
    }

    #[test]
    fn one_of_an_unknown_version_is_tried_for_the_first_log_in() {
        let candidates = [late(0, "unknown")];
        assert_eq!(order(&Grant { planted: 1, ..grant() }, &candidates, Rotation::None), ["present", "unknown"]);
        assert_eq!(order(&grant(), &candidates, Rotation::None), ["present"]);
    }

    #[test]
    fn what_is_older_than_the_last_log_in_is_not_tried() {
        let planted = Grant { planted: 5, ..grant() };
        assert_eq!(order(&planted, &[late(4, "of another log-in")], GRACE), ["present"]);
    }

    #[test]
    fn a_strict_upstream_is_left_alone_while_any_call_may_be_alive() {
        let wait = |grant: &Grant| must_wait(grant, print("present"), "own", Rotation::Strict, CALL);
        assert_eq!(wait(&grant()), Duration::ZERO);
        assert_eq!(wait(&Grant { intent: intent("present", 2), ..grant() }), Duration::from_secs(10));
        assert_eq!(wait(&Grant { stray: stray("before", 5), ..grant() }), Duration::from_secs(7));
        assert_eq!(wait(&Grant { intent: intent("present", 12), ..grant() }), Duration::ZERO);
    }

    #[test]
    fn a_lenient_upstream_is_left_alone_while_a_call_with_another_refresh_token_may_be_alive() {
        let wait = |grant: &Grant| must_wait(grant, print("present"), "own", GRACE, CALL);
        assert_eq!(wait(&Grant { intent: intent("present", 2), ..grant() }), Duration::ZERO, "a replay");
        assert_eq!(wait(&Grant { intent: intent("before", 2), ..grant() }), Duration::from_secs(10));
        let both = Grant { intent: intent("present", 0), stray: stray("before", 3), ..grant() };
        assert_eq!(wait(&both), Duration::from_secs(9));
        let unknown = Some(StrayCall { token: None, age: Duration::ZERO });
        assert_eq!(wait(&Grant { stray: unknown, ..grant() }), CALL, "whatever it carries");
    }

    #[test]
    fn nobody_waits_for_a_call_of_its_own() {
        let own = Grant { intent: intent("before", 0), ..grant() };
        assert_eq!(must_wait(&own, print("present"), "other", Rotation::Strict, CALL), Duration::ZERO);
    }

    #[test]
    fn a_grace_shorter_than_a_call_is_none() {
        assert_eq!(treated(Rotation::Grace(CALL), CALL), Rotation::Grace(CALL));
        assert_eq!(treated(Rotation::Grace(CALL - Duration::from_millis(1)), CALL), Rotation::Strict);
        assert_eq!(treated(Rotation::None, CALL), Rotation::None);
    }
}
