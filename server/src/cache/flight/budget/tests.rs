//! What a replica reckons by itself while the store is down.

use tokio::time::sleep;

use super::*;
use crate::types::ReplicaId;

const RULES: EndpointRules = EndpointRules { max_concurrent: 2, failures_to_open: 3 };
const RULE: BreakerRule = BreakerRule { failures_to_open: 3, jitter: 1000 };

/// A wall clock that stands still: tokio's goes on.
const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

fn budget() -> Arc<Budget> {
    Budgets::default().of(&Origin::parse("https://idp.example").expect("an origin"))
}

fn owner(nonce: u64) -> LeaseOwner {
    LeaseOwner { replica: ReplicaId::new("r"), nonce }
}

fn call(budget: &Arc<Budget>, nonce: u64) -> Option<Alone> {
    budget.admit_alone(RULES, &owner(nonce), false, NOW)
}

#[tokio::test(start_paused = true)]
async fn without_the_store_a_replica_counts_its_own_calls() {
    let budget = budget();
    let (first, second) = (call(&budget, 1).expect("free"), call(&budget, 2).expect("free"));
    assert!(call(&budget, 3).is_none());
    drop(first);
    let third = call(&budget, 3).expect("free again");
    second.depart(CallOutcome::Succeeded, RULE, NOW);
    third.depart(CallOutcome::Succeeded, RULE, NOW);
    assert_eq!(budget.state(NOW), EndpointState::default());
}

#[tokio::test(start_paused = true)]
async fn without_the_store_failures_shut_the_endpoint_and_one_call_probes_it() {
    let budget = budget();
    for nonce in 0..3 {
        call(&budget, nonce).expect("closed so far").depart(CallOutcome::Failed(None), RULE, NOW);
    }
    assert!(call(&budget, 4).is_none());
    sleep(Duration::from_secs(5)).await;
    let probe = call(&budget, 5).expect("half open");
    assert!(call(&budget, 6).is_none(), "one at a time");
    probe.depart(CallOutcome::Failed(None), RULE, NOW);
    sleep(Duration::from_secs(5)).await;
    assert!(call(&budget, 7).is_none(), "it is left alone for longer each time");
    sleep(Duration::from_secs(5)).await;
    call(&budget, 8).expect("half open").depart(CallOutcome::Succeeded, RULE, NOW);
    assert!(call(&budget, 9).is_some() && call(&budget, 10).is_some());
}

#[tokio::test(start_paused = true)]
async fn without_the_store_what_was_last_heard_holds() {
    let budget = budget();
    let asked = EndpointState { wait: Duration::from_secs(60), ..EndpointState::default() };
    budget.learn(asked, NOW);
    assert!(call(&budget, 1).is_none());
    assert!(budget.heard_shut(NOW).is_some());
    sleep(BELIEVED_FOR).await;
    assert!(budget.heard_shut(NOW).is_none(), "where the store can be asked it is");
    assert!(call(&budget, 1).is_none());
    sleep(Duration::from_secs(60)).await;
    assert!(call(&budget, 1).is_some());
}

#[tokio::test(start_paused = true)]
async fn what_was_heard_before_the_machine_slept_is_old() {
    let budget = budget();
    budget.learn(EndpointState { wait: Duration::from_secs(60), ..EndpointState::default() }, NOW);
    assert!(budget.heard_shut(NOW).is_some());
    assert!(budget.heard_shut(NOW.after(BELIEVED_FOR)).is_none());
    assert_eq!(budget.state(NOW.after(Duration::from_secs(60))).gate(), Gate::Free);
}
