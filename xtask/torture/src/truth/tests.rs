use super::*;
use crate::scene::credentials;

/// A truth over one credential of this mode, and its first refresh token.
fn truth(mode: Mode) -> (Truth, usize, String) {
    let credentials = credentials(6);
    let number = credentials.iter().position(|credential| credential.mode == mode).expect("one of each mode");
    let truth = Truth::new(Clock::start(), credentials, 1);
    let token = truth.log_in(number);
    (truth, number, token)
}

fn redeem(truth: &Truth, credential: usize, token: &str) -> Option<String> {
    let call = truth.receive(0, credential, Some(token.to_owned()));
    let redeemed = truth.redeem(call);
    truth.end(call, true);
    match redeemed {
        Redeemed::Tokens { refresh, .. } => refresh,
        Redeemed::InvalidGrant => None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_replay_ends_a_strict_family_with_all_of_its_tokens() {
    let (truth, credential, first) = truth(Mode::Strict);
    let second = redeem(&truth, credential, &first).expect("a successor");
    let call = truth.receive(0, credential, Some(second.clone()));
    let Redeemed::Tokens { access, refresh, .. } = truth.redeem(call) else { panic!("no tokens") };
    truth.end(call, true);
    assert_eq!(truth.api(credential, &access).status, 200);

    assert_eq!(redeem(&truth, credential, &second), None);
    assert_eq!(redeem(&truth, credential, &refresh.expect("a successor")), None);
    assert_eq!(truth.api(credential, &access).status, 401);
    let death = truth.families(credential)[0].death.clone().expect("it has ended");
    assert_eq!((death.behind, death.first.id, death.replay.id), (1, call, 2));
    assert!(truth.report(credential, "lost") && !truth.report(credential, "lost"));
}

#[tokio::test(start_paused = true)]
async fn a_replay_within_the_grace_brings_the_same_successor_and_a_later_one_ends_the_family() {
    let (truth, credential, first) = truth(Mode::Grace);
    let second = redeem(&truth, credential, &first);
    tokio::time::advance(GRACE).await;
    assert_eq!(redeem(&truth, credential, &first), second);
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(redeem(&truth, credential, &first), None);
    assert_eq!(truth.families(credential)[0].current(), None);
}

#[tokio::test(start_paused = true)]
async fn two_calls_alive_with_one_strict_token_are_an_overlap_until_nobody_waits_for_the_first() {
    let (truth, credential, first) = truth(Mode::Strict);
    truth.receive(0, credential, Some(first.clone()));
    tokio::time::advance(UPSTREAM_TIMEOUT).await;
    truth.receive(1, credential, Some(first.clone()));
    assert_eq!((truth.overlaps().len(), truth.zombies()), (1, 0));
    tokio::time::advance(UPSTREAM_TIMEOUT + Duration::from_millis(1)).await;
    truth.receive(2, credential, Some(first));
    assert_eq!((truth.overlaps().len(), truth.zombies()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn an_overlapping_token_brings_the_same_successor_for_as_long_as_that_was_not_used() {
    let credentials = vec![Credential { name: "overlap-0".into(), mode: Mode::Overlap, rules: "" }];
    let truth = Truth::new(Clock::start(), credentials, 1);
    let first = truth.log_in(0);
    let second = redeem(&truth, 0, &first).expect("a successor");
    tokio::time::advance(100 * GRACE).await;
    assert_eq!(redeem(&truth, 0, &first), Some(second.clone()));
    assert!(redeem(&truth, 0, &second).is_some());
    assert_eq!(redeem(&truth, 0, &first), None);
}

#[tokio::test(start_paused = true)]
async fn tokens_that_are_given_until_a_time_expire_together() {
    let (truth, credential, first) = truth(Mode::Kept);
    let end = truth.clock.wall_millis() + 60_000;
    truth.set_lifetime(Lifetime::Until(end));
    let call = truth.receive(0, credential, Some(first));
    let Redeemed::Tokens { access, .. } = truth.redeem(call) else { panic!("no tokens") };
    assert_eq!(truth.api(credential, &access).expiry, end);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_kept_does_not_rotate() {
    let (truth, credential, first) = truth(Mode::Kept);
    assert_eq!(redeem(&truth, credential, &first), None, "nothing new is given");
    let call = truth.receive(0, credential, Some(first));
    assert!(matches!(truth.redeem(call), Redeemed::Tokens { refresh: None, .. }));
}
