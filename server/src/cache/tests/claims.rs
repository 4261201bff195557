//! Clients that change replica, and say what they hold.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use tokio::time::sleep;

use super::world::{Plan, World};
use crate::{
    cache::Served, credential::WhenDegraded, error::ErrorKind, store::faulty::FaultyTokenStore, types::Generation,
};

const FIRST: Generation = Generation::new(1);
const SECOND: Generation = Generation::new(2);
const FALSE: Generation = Generation::new(99);

/// Two replicas, of which the second holds the first token and hears of nothing any more; the store has the second.
async fn behind(plan: &Plan) -> (Vec<World>, Arc<FaultyTokenStore>) {
    let (worlds, store) = World::fleet_with_faulty_store(2, plan).await;
    for world in &worlds {
        assert_eq!(world.get().await.expect("a token").token.generation, FIRST);
    }
    worlds[1].go_deaf().await;
    let next = worlds[0].get_with(|request| request.rejected = Some(FIRST)).await;
    assert_eq!(next.expect("its replacement").token.generation, SECOND);
    (worlds, store)
}

async fn holding(world: &World, held: Generation) -> Served {
    world.serve(|request| request.if_generation_not = Some(held)).await.expect("an answer")
}

fn generation(served: Served) -> Generation {
    served.entry.expect("modified").token.generation
}

#[tokio::test(start_paused = true)]
async fn a_client_that_changes_replica_is_not_answered_with_an_older_token_than_it_holds() {
    let (worlds, _) = behind(&Plan::default()).await;
    assert_eq!(worlds[1].get().await.expect("a token").token.generation, FIRST, "it knows no better");
    let served = holding(&worlds[1], SECOND).await;
    assert!(served.entry.is_none(), "it is the current one");
    assert_eq!(worlds[1].get().await.expect("a token").token.generation, SECOND);
    assert_eq!(worlds[1].upstream.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reports_a_newer_token_than_a_replica_has_gets_one_after_it() {
    let (worlds, _) = behind(&Plan::default()).await;
    let next = worlds[1].get_with(|request| request.rejected = Some(SECOND)).await.expect("a token");
    assert_eq!((next.token.generation, worlds[1].upstream.calls()), (Generation::new(3), 3));
}

#[tokio::test(start_paused = true)]
async fn however_many_claim_it_the_store_is_looked_at_once() {
    let (worlds, store) = behind(&Plan::default()).await;
    let before = store.calls("load");
    let answers = join_all((0..100).map(|_| holding(&worlds[1], SECOND))).await;
    assert!(answers.iter().all(|served| served.entry.is_none()));
    assert_eq!(store.calls("load") - before, 1);
}

#[tokio::test(start_paused = true)]
async fn false_claims_cost_one_look_a_second_and_no_upstream_call() {
    for reported in [false, true] {
        let (world, store) = World::with_faulty_store(&Plan::default());
        world.get().await.expect("a token");
        let (loads, begun) = (store.calls("load"), world.cache.now());
        for _ in 0..40 {
            let claims = (0..10).map(|_| {
                world.serve(|request| {
                    if reported { request.rejected = Some(FALSE) } else { request.if_generation_not = Some(FALSE) }
                })
            });
            for served in join_all(claims).await {
                let served = served.expect("an answer");
                assert!(served.verified, "there is no such generation");
                assert_eq!(generation(served), FIRST);
            }
            sleep(Duration::from_millis(100)).await;
        }
        let seconds = usize::try_from(world.cache.now().since(begun).as_secs()).expect("a short test");
        let looks = store.calls("load") - loads;
        assert!((2..=seconds + 1).contains(&looks), "{looks} looks in {seconds} s");
        assert_eq!((world.upstream.calls(), store.calls("reject")), (1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_comes_true_within_the_second_after_a_false_one_is_not_taken_for_false() {
    let (worlds, _) = World::fleet_with_faulty_store(2, &Plan::default()).await;
    for world in &worlds {
        world.get().await.expect("a token");
    }
    worlds[1].go_deaf().await;
    assert_eq!(generation(holding(&worlds[1], FALSE).await), FIRST);
    worlds[0].get_with(|request| request.rejected = Some(FIRST)).await.expect("its replacement");
    assert!(holding(&worlds[1], SECOND).await.entry.is_none());
}

#[tokio::test(start_paused = true)]
async fn while_the_store_is_down_what_may_be_older_is_served_as_degraded_and_soon() {
    let (worlds, store) = behind(&Plan::default()).await;
    store.set_down(true);
    for _ in 0..10 {
        let begun = worlds[1].cache.now();
        let served = holding(&worlds[1], SECOND).await;
        assert!(!served.verified);
        assert_eq!(generation(served), FIRST);
        assert_eq!(worlds[1].cache.now(), begun, "it costs no wait");
    }
    store.set_down(false);
    sleep(Duration::from_secs(1)).await;
    assert!(holding(&worlds[1], SECOND).await.entry.is_none());
}

#[tokio::test(start_paused = true)]
async fn while_the_store_hangs_a_claim_does_not_wait_for_ever() {
    let (worlds, store) = behind(&Plan::default()).await;
    store.set_delay(Duration::from_secs(3600));
    let begun = worlds[1].cache.now();
    let served = holding(&worlds[1], SECOND).await;
    assert!(!served.verified);
    assert!(worlds[1].cache.now().since(begun) <= Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn what_may_be_older_is_refused_where_the_credential_says_so() {
    let (worlds, store) = behind(&Plan { when_degraded: WhenDegraded::Refuse, ..Plan::default() }).await;
    assert!(worlds[1].get().await.is_ok(), "its lease is live still");
    store.set_down(true);
    let refused = worlds[1].serve(|request| request.if_generation_not = Some(SECOND)).await;
    assert_eq!(refused.map(|_| ()).map_err(|error| error.kind()), Err(ErrorKind::StoreDown));
}
