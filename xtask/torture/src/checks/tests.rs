use super::*;
use crate::{
    clock::Clock,
    database::Kept,
    history::{Acknowledged, Answer, Event, Get, Record, Report},
    scene::{Mode, credentials},
    truth::Truth,
};

const SECOND: u64 = 1_000_000;

/// An answer of `generation` to client 1 by a replica, at a second.
fn get(second: u64, replica: usize, generation: u64) -> Get {
    Get {
        client: 1,
        replica,
        credential: "c".into(),
        begun: second * SECOND,
        ended: second * SECOND + 1,
        min_validity_ms: 0,
        held: 0,
        rejected: 0,
        answer: Answer::Token { generation, verified: true, expires_at: 2000, server_time: 1000 },
    }
}

fn report(second: u64, generation: u64, min_generation: u64) -> Event {
    Event::Report(Report {
        client: 2,
        replica: 0,
        credential: "c".into(),
        begun: second * SECOND,
        ended: second * SECOND + 1,
        generation,
        acknowledged: Some(Acknowledged { invalidated: true, min_generation }),
    })
}

fn findings(events: Vec<Event>) -> Findings {
    let records: Vec<Record> = events.into_iter().map(|event| Record { at: 0, event }).collect();
    let mut findings = Findings::default();
    check_calls(&records, true, &mut findings);
    findings
}

fn kinds(events: Vec<Event>) -> Vec<&'static str> {
    findings(events).kinds()
}

#[test]
fn a_generation_that_goes_back_at_one_replica_is_found() {
    assert!(kinds(vec![Event::Get(get(1, 0, 2)), Event::Get(get(2, 0, 2)), Event::Get(get(3, 0, 3))]).is_empty());
    assert_eq!(kinds(vec![Event::Get(get(1, 0, 2)), Event::Get(get(2, 0, 1))]), ["I1 at one replica"]);
}

#[test]
fn another_replica_may_lag_but_not_for_long_unless_it_says_so() {
    assert!(kinds(vec![Event::Get(get(1, 0, 2)), Event::Get(get(2, 1, 1))]).is_empty());
    let late = get(9, 1, 1);
    let found = kinds(vec![Event::Get(get(1, 0, 2)), Event::Get(late.clone())]);
    assert_eq!(found, ["I1 at another replica, after longer than it may lag"]);
    let answer = Answer::Token { generation: 1, verified: false, expires_at: 2000, server_time: 1000 };
    assert!(kinds(vec![Event::Get(get(1, 0, 2)), Event::Get(Get { answer, ..late })]).is_empty());
}

#[test]
fn a_step_back_is_found_where_the_client_said_what_it_holds() {
    let asked = Get { held: 2, ..get(2, 1, 1) };
    let found = kinds(vec![Event::Get(get(1, 0, 2)), Event::Get(asked.clone())]);
    assert_eq!(found, ["I1 gone back although the client said what it holds"]);
    let degraded = |get: Get| Get {
        answer: Answer::Token { generation: 1, verified: false, expires_at: 2000, server_time: 1000 },
        ..get
    };
    assert!(kinds(vec![Event::Get(get(1, 0, 2)), Event::Get(degraded(asked.clone()))]).is_empty());
    let unstored = Answer::Token { generation: 2, verified: false, expires_at: 2000, server_time: 1000 };
    let unstored = Get { answer: unstored, ..get(1, 0, 2) };
    assert!(kinds(vec![Event::Get(unstored), Event::Get(asked)]).is_empty(), "the store may not have it yet");
}

#[test]
fn a_copy_that_is_called_current_counts_as_its_generation() {
    let not_modified = Get { held: 1, answer: Answer::NotModified { verified: true }, ..get(2, 0, 0) };
    assert_eq!(kinds(vec![Event::Get(get(1, 0, 2)), Event::Get(not_modified)]), ["I1 at one replica"]);
}

#[test]
fn a_watch_that_goes_back_is_found() {
    let told = |stream, generation| Event::Watched { stream, replica: 0, credential: "c".into(), generation };
    assert!(kinds(vec![told(1, 2), told(2, 1), told(1, 3)]).is_empty());
    assert_eq!(kinds(vec![told(1, 2), told(1, 1)]), ["I1 within a watch"]);
}

#[test]
fn a_rejected_token_is_found_in_calls_begun_after_the_acknowledgement_alone() {
    assert!(kinds(vec![report(5, 1, 2), Event::Get(get(5, 1, 1)), Event::Get(get(6, 1, 2))]).is_empty());
    assert_eq!(kinds(vec![report(5, 1, 2), Event::Get(get(6, 1, 1))]), ["I2 a rejected token as verified"]);
    assert!(kinds(vec![report(5, 1, 1), Event::Get(get(6, 1, 1))]).is_empty(), "the report was not believed");
    let late = vec![report(5, 3, 4), report(7, 1, 4), Event::Get(get(8, 1, 3))];
    assert_eq!(kinds(late), ["I2 a rejected token as verified"], "a later report on an older one lowers nothing");
}

#[test]
fn a_token_that_is_short_of_what_was_asked_is_found() {
    let asked = |min_validity_ms| Event::Get(Get { min_validity_ms, ..get(1, 0, 1) });
    assert!(kinds(vec![asked(1000)]).is_empty());
    assert_eq!(kinds(vec![asked(1001)]), ["I3 a token with less validity than asked"]);
}

#[test]
fn an_expiry_later_than_the_upstreams_is_found() {
    let used = |claimed_expiry| Event::Use {
        client: 1,
        credential: "c".into(),
        generation: 1,
        status: 200,
        claimed_expiry,
        expiry: 1000,
    };
    assert!(kinds(vec![used(1000)]).is_empty());
    assert_eq!(kinds(vec![used(1001)]), ["I3 an expiry later than the upstream's"]);
}

#[test]
fn a_reported_generation_that_comes_back_is_found() {
    let reported = |generation| Event::Get(Get { rejected: 2, ..get(1, 0, generation) });
    assert!(kinds(vec![reported(3)]).is_empty());
    assert_eq!(kinds(vec![reported(2)]), ["a reported generation came back to who reported it"]);
}

#[test]
fn a_defect_of_the_broker_is_found() {
    let failed = |reason: &str| Answer::Failed { code: "Internal".into(), reason: reason.into() };
    assert!(kinds(vec![Event::Get(Get { answer: failed("STORE_DOWN"), ..get(1, 0, 1) })]).is_empty());
    assert_eq!(kinds(vec![Event::Get(Get { answer: failed("BUG"), ..get(1, 0, 1) })]), ["an internal error"]);
}

/// A truth in which a credential of this mode has replaced its first refresh token once, and what it holds now.
fn rotated(mode: Mode) -> (Truth, usize, [String; 2]) {
    let credentials = credentials(6);
    let number = credentials.iter().position(|credential| credential.mode == mode).expect("one of each mode");
    let truth = Truth::new(Clock::start(), credentials, 1);
    let first = truth.log_in(number);
    send(&truth, number, &first);
    let current = truth.families(number)[0].current().expect("it lives").to_owned();
    (truth, number, [first, current])
}

fn send(truth: &Truth, number: usize, refresh: &str) {
    let call = truth.receive(0, number, Some(refresh.to_owned()));
    truth.redeem(call);
    truth.end(call, true);
}

fn grant_kinds(truth: &Truth, kept: &[(&str, bool)], number: usize) -> Vec<&'static str> {
    let credential = &truth.credentials()[number].name;
    let kept: Vec<Kept> = kept
        .iter()
        .map(|(refresh, current)| Kept {
            credential: credential.clone(),
            refresh: (*refresh).into(),
            current: *current,
        })
        .collect();
    let mut findings = Findings::default();
    check_grants(truth, &kept, &[], &mut findings);
    findings.kinds()
}

#[tokio::test]
async fn a_live_refresh_token_that_is_not_in_use_or_not_stored_is_found() {
    let (truth, number, [first, current]) = rotated(Mode::Grace);
    assert!(grant_kinds(&truth, &[(&current, true), (&first, false)], number).is_empty());
    assert_eq!(grant_kinds(&truth, &[(&first, true)], number), ["I5 a live refresh token is not stored"]);
    let stale = grant_kinds(&truth, &[(&first, true), (&current, false)], number);
    assert_eq!(stale, ["I5 a live refresh token is not the one in use"]);
}

#[tokio::test]
async fn a_strict_familys_end_is_found_unless_it_is_reported_in_doubt_and_explained() {
    let (truth, number, [first, _]) = rotated(Mode::Strict);
    send(&truth, number, &first);
    let unexplained = "a strict family was lost and nothing that was done explains it";
    assert_eq!(grant_kinds(&truth, &[], number), [unexplained, "a strict family was lost in silence"]);
    truth.report(number, "gone");
    assert_eq!(grant_kinds(&truth, &[], number), [unexplained, "a strict family's loss was not said to be in doubt"]);
}

#[tokio::test]
async fn a_lenient_family_must_not_be_lost() {
    let (truth, number, [first, current]) = rotated(Mode::Grace);
    send(&truth, number, &current);
    send(&truth, number, &first);
    assert_eq!(grant_kinds(&truth, &[], number), ["a family was lost although the upstream is lenient"]);
}
