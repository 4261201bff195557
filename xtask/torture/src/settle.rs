//! The end of a run, with all faults off: everybody serves again, the replicas end in peace, and what the upstream holds
//! is compared with the tables.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use futures::future::{join_all, try_join_all};
use tokencache_proto::v1::GetTokenRequest;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    fleet::{Fleet, reason},
    scene::Mode,
};

/// How soon every credential has to serve again.
const SERVES_WITHIN: Duration = Duration::from_secs(30);

/// How long a replica may take to start.
const START: Duration = Duration::from_secs(30);

/// How often an operator's refresh is tried: a replica that was cut off may be waiting for its connection still.
const OPERATOR_TRIES: usize = 4;

/// What was found at the end.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    pub(crate) violations: Vec<String>,
    /// Credentials whose loss was reported and whose log-in was not repeated yet.
    pub(crate) lost: usize,
}

/// Brings the run to its end.
pub(crate) async fn settle(fleet: &Arc<Fleet>) -> Result<Settled> {
    let mut settled = Settled::default();
    for replica in &fleet.replicas {
        replica.signal("CONT").await?;
        if let Some(status) = replica.ended().await? {
            settled.violations.push(format!("r{} ended by itself with {status}", replica.index));
        }
        replica.start().await?;
        if let Err(error) = replica.serving(START).await {
            settled.violations.push(format!("all faults off: {error:#}"));
        }
    }
    let end = Instant::now() + SERVES_WITHIN;
    // All at once: a refresh token whose call was lost can be sent again only for a while, and nobody else asks by now.
    let served = fleet.truth.credentials().iter().map(|c| serve_again(fleet, &c.name, c.mode, end));
    settled.violations.extend(try_join_all(served).await?.into_iter().flatten());
    let credentials = fleet.truth.credentials().iter().enumerate();
    let refreshed = credentials.map(|(number, credential)| refresh_once(fleet, &credential.name, number));
    for (violation, lost) in join_all(refreshed).await {
        settled.violations.extend(violation);
        settled.lost += usize::from(lost);
    }
    for replica in &fleet.replicas {
        if let Err(error) = replica.end_in_peace().await {
            settled.violations.push(format!("at the end: {error:#}"));
        }
    }
    Ok(settled)
}

/// Asks for a credential's token until there is one, at each replica in turn. What is wrong, if there is none.
async fn serve_again(fleet: &Fleet, name: &str, mode: Mode, end: Instant) -> Result<Option<String>> {
    let mut last = String::new();
    for replica in fleet.replicas.iter().cycle() {
        let request = GetTokenRequest { credential: name.to_owned(), ..Default::default() };
        match timeout(Duration::from_secs(6), replica.tokens()?.get_token(request)).await {
            Ok(Ok(_)) => return Ok(None),
            Ok(Err(status)) if reason(&status) == "NEEDS_REAUTH" => {
                fleet.heard_of_loss(name, status.message(), replica.index).await?;
                last = status.message().to_owned();
            }
            Ok(Err(status)) => last = format!("{:?} {}: {}", status.code(), reason(&status), status.message()),
            Err(_) => "no answer".clone_into(&mut last),
        }
        if Instant::now() >= end {
            break;
        }
        sleep(Duration::from_millis(300)).await;
    }
    Ok(Some(format!(
        "{name} ({mode}) does not serve {SERVES_WITHIN:?} after all faults were off; the last answer: {last}"
    )))
}

/// Replaces a token once more, which also ends what was left in doubt. What is wrong, and whether its grant is lost.
async fn refresh_once(fleet: &Fleet, name: &str, number: usize) -> (Option<String>, bool) {
    let mut last = String::new();
    for i in 0..OPERATOR_TRIES {
        match fleet.refresh(name, (number + i) % fleet.replicas.len()).await {
            Ok(()) => return (None, false),
            Err((reason, words)) if reason == "NEEDS_REAUTH" => {
                fleet.truth.report(number, &words);
                let alive = fleet.truth.families(number).last().is_some_and(|family| family.death.is_none());
                let text = format!("{name} is said to be lost, and the upstream would take its refresh token: {words}");
                return (alive.then_some(text), true);
            }
            Err((reason, words)) => last = format!("{reason}: {words}"),
        }
        sleep(Duration::from_secs(2)).await;
    }
    (Some(format!("{name} cannot be refreshed with all faults off: {last}")), false)
}
