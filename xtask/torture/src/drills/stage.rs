//! What a drill is performed on: a fleet that is up, with a token of every credential in every replica's memory.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, bail, ensure};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

use super::{
    caller::{Ask, Caller},
    verdict::Verdict,
};
use crate::{Place, clock::Clock, fleet::Fleet, idp::Step, replica, scene::Plan};

/// How long a replica may take to start.
pub(crate) const START: Duration = Duration::from_secs(60);

/// How many calls are under way at a time where each replica is asked for each token.
const ABREAST: usize = 48;

/// A fleet, and what drills do with it.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) caller: Caller,
    pub(crate) blows: mpsc::UnboundedReceiver<(Step, usize)>,
    clock: Clock,
}

impl Stage {
    /// Starts what is planned. No token is asked for yet.
    pub(crate) async fn set(place: &Place, plan: &Plan) -> Result<Self> {
        let clock = Clock::start();
        let (sender, blows) = mpsc::unbounded_channel();
        let fleet = Arc::new(Fleet::start(&place.tokencached(), plan, clock, sender).await?);
        let caller = Caller::new(&fleet)?;
        Ok(Self { fleet, caller, blows, clock })
    }

    /// The names of all credentials.
    pub(crate) fn names(&self) -> Vec<String> {
        self.fleet.truth.credentials().iter().map(|credential| credential.name.clone()).collect()
    }

    /// Has every replica hold a token of each of these credentials.
    pub(crate) async fn fill(&self, names: &[String]) -> Result<()> {
        self.ask_all(names, Ask::default(), Duration::from_secs(20)).await.map(drop)
    }

    /// Asks every replica for a token of each of these credentials, many at a time; the generations in the order of the
    /// names, of one replica after the other.
    pub(crate) async fn ask_all(&self, names: &[String], ask: Ask, deadline: Duration) -> Result<Vec<u64>> {
        use futures::{StreamExt as _, TryStreamExt as _, stream};
        let calls = (0..self.fleet.replicas.len()).flat_map(|replica| names.iter().map(move |name| (replica, name)));
        // `buffered` keeps the order of the calls.
        let answers = stream::iter(calls.map(|(replica, name)| async move {
            match self.caller.get(replica, name, ask, deadline).await {
                Ok(answer) => Ok(answer.token.map_or(0, |token| token.generation)),
                Err(status) => bail!("r{replica} gives no token of {name}: {status}"),
            }
        }));
        answers.buffered(ABREAST).try_collect().await
    }

    /// Waits until something holds.
    pub(crate) async fn until(&self, what: &str, patience: Duration, mut holds: impl FnMut() -> bool) -> Result<()> {
        let end = Instant::now() + patience;
        while !holds() {
            ensure!(Instant::now() < end, "{what}: not within {patience:?}");
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// How long it has been there, in seconds.
    #[expect(clippy::cast_precision_loss, reason = "a figure for a person")]
    pub(crate) fn seconds(&self) -> f64 {
        self.clock.now() as f64 / 1e6
    }

    /// No replica may have panicked.
    pub(crate) fn look_for_panics(&self, verdict: &mut Verdict) -> Result<()> {
        for replica in &self.fleet.replicas {
            for line in replica::panics(&replica.log())? {
                verdict.require(false, format!("r{} panicked: {line}", replica.index));
            }
        }
        Ok(())
    }
}
