use std::sync::Arc;

use rand::{SeedableRng as _, rngs::StdRng};
use tokio::time::advance;

use super::*;
use crate::time::TokioClock;

fn key() -> DemoKey {
    DemoKey::generate(&mut StdRng::seed_from_u64(1))
}

fn issuer() -> Issuer {
    Issuer::new(key(), Arc::new(TokioClock::starting_at(Timestamp::from_millis(1_000_000))))
}

#[tokio::test(start_paused = true)]
async fn a_token_is_good_until_it_expires() {
    let issuer = issuer();
    let token = issuer.issue(Kind::Access);
    assert!(issuer.check(Kind::Access, token.expose()).is_ok());
    advance(LIFETIME).await;
    assert_eq!(issuer.check(Kind::Access, token.expose()), Err(Dead::Expired));
}

#[tokio::test(start_paused = true)]
async fn two_tokens_of_the_same_instant_differ() {
    let issuer = issuer();
    assert_ne!(issuer.issue(Kind::Access), issuer.issue(Kind::Access));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_was_tampered_with_is_unknown() {
    let issuer = issuer();
    let token = issuer.issue(Kind::Access);
    let (_, mac) = token.expose().rsplit_once('.').unwrap();
    for forged in [format!("demo-access.9999999.{mac}"), format!("demo-session.1000000.{mac}"), String::new()] {
        assert_eq!(issuer.check(Kind::Access, &forged), Err(Dead::Unknown), "{forged}");
    }
    assert_eq!(issuer.check(Kind::Session, token.expose()), Err(Dead::Unknown));
}

#[tokio::test(start_paused = true)]
async fn a_revocation_spares_the_tokens_that_come_after() {
    let issuer = issuer();
    let old = issuer.issue(Kind::Access);
    issuer.revoke_all();
    let new = issuer.issue(Kind::Access);
    assert_eq!(issuer.check(Kind::Access, old.expose()), Err(Dead::Revoked));
    assert!(issuer.check(Kind::Access, new.expose()).is_ok());
    issuer.revoke_fingerprint(&fingerprint(new.expose()));
    assert_eq!(issuer.check(Kind::Access, new.expose()), Err(Dead::Revoked));
    let newer = issuer.issue(Kind::Access);
    assert!(issuer.check(Kind::Access, newer.expose()).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_revocation_is_remembered_as_long_as_the_token_would_live() {
    let issuer = issuer();
    let token = issuer.issue(Kind::Session);
    issuer.revoke(token.expose());
    advance(LIFETIME / 2).await;
    issuer.revoke_fingerprint("0123456789abcdef");
    assert_eq!(issuer.check(Kind::Session, token.expose()), Err(Dead::Revoked));
    advance(LIFETIME).await;
    issuer.revoke_fingerprint("fedcba9876543210");
    assert_eq!(issuer.state().revoked.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_token_used_twice_ends_the_family() {
    let issuer = issuer();
    let first = issuer.key().first_refresh_token();
    let second = issuer.rotate(first.expose()).unwrap();
    let third = issuer.rotate(second.expose()).unwrap();
    assert!(issuer.rotate(first.expose()).is_none());
    assert!(issuer.rotate(third.expose()).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_revoked_refresh_token_ends_the_family() {
    let issuer = issuer();
    let first = issuer.key().first_refresh_token();
    issuer.revoke(first.expose());
    assert!(issuer.rotate(first.expose()).is_none());
}

#[tokio::test(start_paused = true)]
async fn the_next_run_knows_the_tokens_of_the_last() {
    let last = issuer();
    let access = last.issue(Kind::Access);
    let refresh = last.rotate(last.key().first_refresh_token().expose()).unwrap();
    let next = issuer();
    assert!(next.check(Kind::Access, access.expose()).is_ok());
    let rotated = next.rotate(refresh.expose()).unwrap();
    assert!(next.rotate(rotated.expose()).is_some());
}

#[test]
fn a_key_survives_being_written_and_read() {
    let text = key().to_text();
    let read = DemoKey::parse(text.expose()).unwrap();
    assert_eq!(read.client_secret(), key().client_secret());
    assert!(DemoKey::parse("abc").is_none());
    assert!(DemoKey::parse(&"0".repeat(62)).is_none());
}

#[test]
fn debug_does_not_show_the_key() {
    let shown = format!("{:?}", Issuer::new(key(), Arc::new(crate::time::SystemClock)));
    assert!(shown.contains("[redacted]") && !shown.contains(key().to_text().expose()), "{shown}");
}
