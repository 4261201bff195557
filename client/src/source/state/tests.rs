use std::{
    sync::mpsc,
    time::{Duration, SystemTime},
};

use super::*;
use crate::Secret;

const STREAM: Word = Word::Stream;

/// The one that expires so many seconds from now.
fn token(generation: u64, seconds: i64) -> Token {
    let expires = clock::now_millis() + seconds * 1000;
    let expires_at = SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(expires).expect("after 1970"));
    Token {
        access_token: Secret::new(format!("token {generation}")),
        token_type: "Bearer".into(),
        expires_at,
        issued_at: None,
        scopes: vec![],
        generation,
        fingerprint: format!("fingerprint {generation}"),
        attributes: [].into(),
    }
}

fn answer(named: u64) -> Word {
    Word::Answer { named, verified: true }
}

fn held(state: &State) -> Option<u64> {
    state.current().and_then(|guard| guard.as_ref().map(|held| held.token.generation))
}

#[test]
fn a_newer_token_displaces_an_older_one_and_not_the_other_way_round() {
    let state = State::new(None);
    assert_eq!(state.offer(token(2, 60), STREAM, 0), Offered::Taken);
    assert_eq!(state.offer(token(1, 60), STREAM, 0), Offered::Older);
    assert_eq!(state.offer(token(1, 60), answer(1), 0), Offered::Older, "it was asked for before the newer one came");
    assert_eq!(held(&state), Some(2));
    assert_eq!(state.offer(token(3, 60), STREAM, 0), Offered::Taken);
    assert_eq!((held(&state), state.highest()), (Some(3), (3, false)));
}

#[test]
fn a_refused_token_is_handed_out_no_more_whoever_offers_it() {
    let state = State::new(None);
    state.offer(token(2, 60), STREAM, 0);
    state.withhold(2, "fingerprint 2");
    assert_eq!((held(&state), state.highest()), (None, (2, true)));
    for word in [STREAM, answer(2), Word::Answer { named: 2, verified: false }] {
        assert_eq!(state.offer(token(2, 60), word, 0), Offered::Older, "{word:?}");
    }
    assert_eq!(state.offer(token(3, 60), STREAM, 0), Offered::Taken);
    state.withhold(2, "fingerprint 2");
    assert_eq!(held(&state), Some(3), "a late report on an older one");
    assert_eq!(state.highest(), (3, false), "what is asked with names the newest, not the one refused last");
}

#[test]
fn the_broker_may_count_anew_but_only_an_answer_says_so() {
    let state = State::new(None);
    state.offer(token(7, 60), STREAM, 0);
    state.raise_floor(8);
    assert_eq!(held(&state), None);
    assert_eq!(state.offer(token(1, 60), STREAM, 0), Offered::Older);
    assert_eq!(state.offer(token(1, 60), Word::Answer { named: 7, verified: false }, 0), Offered::Older);
    assert_eq!(state.offer(token(1, 60), answer(7), 0), Offered::Taken);
    assert_eq!((held(&state), state.highest()), (Some(1), (1, false)));
    assert_eq!(state.offer(token(2, 60), STREAM, 0), Offered::Taken);
}

#[test]
fn an_answer_that_was_on_its_way_does_not_bring_back_what_was_invalidated_meanwhile() {
    let state = State::new(None);
    state.offer(token(5, 60), STREAM, 0);
    state.raise_floor(6);
    assert_eq!(state.offer(token(5, 60), answer(5), 0), Offered::Older);
    let another = Token { fingerprint: "another".into(), ..token(5, 60) };
    assert_eq!(state.offer(another, answer(5), 0), Offered::Taken, "the broker counts anew");
}

#[test]
fn an_expired_token_is_neither_taken_nor_handed_out() {
    let state = State::new(None);
    assert_eq!(state.offer(token(1, -1), STREAM, 0), Offered::Expired);
    assert_eq!(state.offer(token(1, 60), STREAM, 61_000), Offered::Expired, "on the broker's clock");
    assert_eq!(state.offer(token(1, -1), STREAM, -60_000), Offered::Taken, "this machine's clock is ahead");
    assert_eq!(held(&state), Some(1));
    assert!(state.is_due() || state.current().is_some());
}

#[test]
fn each_token_is_observed_once_and_in_order() {
    let (seen, tokens) = mpsc::channel();
    let state = State::new(Some(Box::new(move |token: &Token| seen.send(token.generation).expect("a listener"))));
    for generation in [1, 1, 3, 2, 4] {
        let one = token(1, 600);
        state.offer(Token { generation, fingerprint: format!("fingerprint {generation}"), ..one }, STREAM, 0);
    }
    drop(state);
    assert_eq!(tokens.iter().collect::<Vec<_>>(), [1, 3, 4]);
}
