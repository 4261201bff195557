//! Rejection: compare-and-invalidate, so that any number of reports on one dead token cost one new one.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt as _, future};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tracing::{info, warn};

use super::{
    Parts, Pilot, TokenCache,
    claim::Standing,
    flight::attempt::{Want, Why},
    memory::Entry,
};
use crate::{
    bug::{self, Bug},
    credential::Credential,
    error::{Error, ErrorKind, Result},
    policy::{Authorized, CredentialRequest},
    store::{Rejected, Replica, TokenRow},
    time::Timestamp,
    types::{Generation, RejectedToken, Rejection, TokenKey},
};

/// How often it is looked whether the others have heard: a quarter of the time that they have had, so that nobody waits
/// much longer than they need, within these limits.
const FIRST_LOOK: Duration = Duration::from_millis(3);
const LAST_LOOK: Duration = Duration::from_millis(50);

/// A replica that is silent is waited for until its lease lapses; one that lives and hears nothing, this long.
const LONGEST_ACKNOWLEDGEMENT: Duration = Duration::from_secs(10);

/// The most tokens of one credential that one call invalidates.
const MAX_ROWS: u32 = 100_000;

/// How many of them the upstream is told of at once.
const REVOKED_AT_ONCE: usize = 8;

impl TokenCache {
    /// Takes a token out of service, if the report means that it is dead, and begins to replace it. Returns when every live
    /// replica has heard: from then on none of them serves it as verified.
    ///
    /// Cancel-safe: what was begun goes on.
    ///
    /// # Errors
    ///
    /// `NoSuchCredential`; `TooManyInvalidations` if the upstream refuses one fresh token after another; `StoreDown`, in
    /// which case this replica no longer serves the token, but the others have not heard.
    pub async fn reject(&self, rejection: &Authorized<Rejection>) -> Result<Rejected> {
        let (credential, key) = self.resolve(&rejection.selector)?;
        if !credential.reject_on.matches(rejection.http_status, rejection.error.as_deref()) {
            return Ok(self.unchanged(&key));
        }
        let generation = match rejection.rejected {
            RejectedToken::Generation(generation) => Some(generation),
            RejectedToken::Fingerprint(fingerprint) => {
                let known = match self.parts.memory.get(&key.hash()) {
                    Some(entry) => Some(entry.token.clone()),
                    None => self.parts.store.load(key.hash()).await?.and_then(|row| row.token),
                };
                known.filter(|token| token.fingerprint == fingerprint).map(|token| token.generation)
            }
        };
        let Some(generation) = generation else { return Ok(self.unchanged(&key)) };
        if self.parts.memory.is_acknowledged(&key.hash(), generation) {
            return Ok(self.unchanged(&key));
        }
        let rejected = self.take_out_once(credential, &key, generation).await?;
        self.await_others(rejected.event).await?;
        self.parts.memory.acknowledge(key.hash(), rejected.min_generation);
        Ok(Rejected { invalidated: rejected.invalidated && rejected.generation == generation, ..rejected })
    }

    /// Waits until every live replica has applied an event, or its lease has lapsed. However many wait, one looks.
    async fn await_others(&self, event: u64) -> Result<()> {
        if !self.parts.store.is_shared() || event == 0 || bug::has(Bug::AckWithoutWaiting) {
            return Ok(());
        }
        self.acknowledgements.join(event, || Arc::clone(&self.parts).look_at_others(event)).wait().await
    }

    fn unchanged(&self, key: &TokenKey) -> Rejected {
        Rejected { min_generation: self.floor(key), ..Rejected::default() }
    }

    /// Takes one generation out of service for a caller that will not take it again anyway: nobody else is waited for.
    /// Reports on an older one cost nothing.
    pub(super) async fn reject_generation(
        &self,
        credential: &Arc<Credential>,
        key: &TokenKey,
        generation: Generation,
        deadline: Instant,
    ) -> Result<()> {
        let lowest = || {
            let held = self.parts.memory.get(&key.hash());
            held.map_or(self.floor(key), |entry| entry.token.generation)
        };
        // One that is not known here may have been made up, and must not cost a write.
        if generation > lowest() && self.judge_claim(credential, key, generation, deadline).await == Standing::False {
            return Ok(());
        }
        if generation >= lowest() {
            self.take_out_once(credential, key, generation).await?;
        }
        Ok(())
    }

    /// Takes one generation out of service, once, however many report it.
    async fn take_out_once(
        &self,
        credential: &Arc<Credential>,
        key: &TokenKey,
        generation: Generation,
    ) -> Result<Rejected> {
        let held = self.parts.memory.get(&key.hash());
        let report = Report {
            pilot: self.pilot.clone(),
            credential: Arc::clone(credential),
            key: key.clone(),
            generation,
            held: held.filter(|entry| entry.token.generation == generation),
        };
        let ticket = self.rejections.join((key.hash(), generation), || report.run());
        let leads = ticket.leads();
        let rejected = ticket.wait().await?;
        Ok(Rejected { invalidated: rejected.invalidated && leads, ..rejected })
    }

    /// Takes every token of a credential out of service, and tells the upstream where it can be told. With `dry_run`
    /// only counts. Returns how many.
    ///
    /// # Errors
    ///
    /// `NoSuchCredential`, `StoreDown`; what was invalidated before stays so.
    pub async fn invalidate_all(&self, request: &Authorized<CredentialRequest>, dry_run: bool) -> Result<u64> {
        let credential = self.credential(&request.name)?;
        let rows = self.parts.store.rows_of(request.name.clone(), MAX_ROWS).await?;
        let live = rows.into_iter().filter(|row| row.token.is_some() && row.generation >= row.min_generation);
        let (taken_out, rows) = mpsc::unbounded_channel();
        if !dry_run && credential.provider.capabilities().revocable {
            self.tasks.spawn(revoke(Arc::clone(credential), rows, self.now()));
        }
        let (mut count, mut last_event) = (0, 0);
        for row in live {
            count += 1;
            if !dry_run {
                last_event = self.parts.take_out(&row.key, row.generation).await?.event.max(last_event);
                // An error says that nothing is revoked here.
                let _ = taken_out.send(row);
            }
        }
        self.await_others(last_event).await?;
        Ok(count)
    }
}

/// Tells the upstream, as far as it listens; nobody waits for it. It is told of its own valid tokens alone: those that
/// were minted under another configuration may be another one's.
async fn revoke(credential: Arc<Credential>, rows: mpsc::UnboundedReceiver<TokenRow>, now: Timestamp) {
    let own = |row: TokenRow| future::ready(row.token.filter(|_| row.config == credential.config));
    let tokens = UnboundedReceiverStream::new(rows).filter_map(own).filter(|t| future::ready(now < t.expires_at));
    let told = tokens.for_each_concurrent(REVOKED_AT_ONCE, async |token| {
        if let Err(error) = credential.provider.revoke(token.access_token).await {
            warn!(credential = %credential.name, fingerprint = %token.fingerprint, %error, "the token was not revoked");
        }
    });
    told.await;
}

impl Parts {
    /// Looks until every live replica has applied an event, or its lease has lapsed.
    async fn look_at_others(self: Arc<Self>, event: u64) -> Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < LONGEST_ACKNOWLEDGEMENT {
            let replicas = self.store.replicas().await?;
            let is_behind = |other: &Replica| {
                other.id != self.replica && !other.remaining.is_zero() && !other.applied.contains(event)
            };
            if !replicas.iter().any(is_behind) {
                return Ok(());
            }
            sleep((begun.elapsed() / 4).clamp(FIRST_LOOK, LAST_LOOK)).await;
        }
        let message = "the token is rejected, but a replica lives that does not hear of it";
        Err(Error::new(ErrorKind::StoreDown, message).with_retry_after(LAST_LOOK))
    }

    /// Takes a generation out of service everywhere: in the store, in memory, at the watchers.
    async fn take_out(&self, key: &TokenKey, generation: Generation) -> Result<Rejected> {
        if bug::has(Bug::AckBeforeCommit) {
            let (store, hash) = (Arc::clone(&self.store), key.hash());
            tokio::spawn(async move { store.reject(hash, generation).await });
            return Ok(Rejected { invalidated: true, min_generation: generation.next(), generation, event: 0 });
        }
        let rejected = self.store.reject(key.hash(), generation).await?;
        self.memory.raise_floor(key.hash(), rejected.min_generation);
        if rejected.invalidated {
            self.tell_invalidated(key, rejected.min_generation);
        }
        Ok(rejected)
    }

    /// Tells the watchers, and has the refresher see to a replacement for them.
    fn tell_invalidated(&self, key: &TokenKey, floor: Generation) {
        self.hub.invalidated(&key.hash(), floor);
        self.schedule.at(key.clone(), self.clock.now());
    }
}

/// The handling of one generation's rejection, however many report it.
struct Report {
    pilot: Pilot,
    credential: Arc<Credential>,
    key: TokenKey,
    generation: Generation,
    held: Option<Arc<Entry>>,
}

impl Report {
    async fn run(self) -> Result<Rejected> {
        let parts = &self.pilot.parts;
        if let Some(held) = &self.held {
            parts.guard.admit(self.key.hash(), held.token.issued_at, parts.clock.now())?;
        }
        let rejected = match parts.take_out(&self.key, self.generation).await {
            Err(error) if error.kind() == ErrorKind::StoreDown && self.held.is_some() => {
                parts.memory.raise_floor(self.key.hash(), self.generation.next());
                parts.tell_invalidated(&self.key, self.generation.next());
                return Err(error);
            }
            result => result?,
        };
        if rejected.invalidated && rejected.generation == self.generation {
            info!(credential = %self.key.credential(), generation = %self.generation, "a token was rejected");
            parts.metrics.rejections.inc();
            // It may spend one attempt in spite of backoff, and it alone: who reports later finds that attempt's result.
            parts.memory.forgive(&self.key.hash());
            drop(self.pilot.fly(&self.credential, Want::any(self.key.clone(), Why::Rejection)));
        }
        Ok(rejected)
    }
}
