//! Invalidation by an operator.

use std::{sync::atomic::Ordering, time::Duration};

use futures::future::join_all;
use tokio::time::{advance, sleep};

use super::world::{Plan, World, allowed, name, selector};
use crate::policy::{Action, Authorized, CredentialRequest};

fn all_of_c() -> Authorized<CredentialRequest> {
    allowed(CredentialRequest { name: name("c"), action: Action::Operate })
}

fn revoking(world: &World) {
    world.upstream.revocable.store(true, Ordering::SeqCst);
}

#[tokio::test(start_paused = true)]
async fn every_token_of_a_credential_is_taken_out_and_revoked_a_few_at_a_time() {
    let world = World::new();
    revoking(&world);
    let scopes: Vec<String> = (0..500).map(|i| format!("s{i}")).collect();
    let all = scopes.iter().map(|scope| world.get_with(|request| request.selector = selector(&[scope])));
    assert!(join_all(all).await.iter().all(Result::is_ok));
    assert_eq!(world.cache.invalidate_all(&all_of_c(), true).await, Ok(500));
    assert_eq!(world.upstream.revocations().tokens.len(), 0);
    assert_eq!(world.cache.invalidate_all(&all_of_c(), false).await, Ok(500));
    sleep(Duration::from_secs(60)).await;
    let revocations = world.upstream.revocations();
    assert_eq!(revocations.tokens.len(), 500);
    assert!(revocations.at_once <= 8, "{} at once", revocations.at_once);
}

#[tokio::test(start_paused = true)]
async fn a_token_of_another_configuration_is_not_sent_to_the_upstream_of_this_one() {
    let world = World::new();
    revoking(&world);
    world.get().await.expect("a token");
    let changed = world.restarted(&Plan { config: "config-2", ..Plan::default() });
    assert_eq!(changed.cache.invalidate_all(&all_of_c(), false).await, Ok(1));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(world.upstream.revocations().tokens, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_token_that_has_expired_is_not_revoked() {
    let world = World::new();
    revoking(&world);
    world.get().await.expect("a token");
    world.stop.cancel();
    advance(Duration::from_secs(3601)).await;
    world.cache.invalidate_all(&all_of_c(), false).await.expect("the store works");
    sleep(Duration::from_secs(1)).await;
    assert_eq!(world.upstream.revocations().tokens, Vec::<String>::new());
}
