//! A cache over the memory store and a scripted provider, in tokio's paused time.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::{sync::Notify, task::yield_now, time::sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    audit::AuditLog,
    cache::{
        Parts, Served, TokenCache,
        fleet::Fleet,
        flight::budget::Budgets,
        guard::StormGuard,
        history::History,
        hub::Hub,
        memory::{Entry, Memory},
        pending::Settler,
        refresher::{Refresher, Schedule, WarmStart},
        trust::Trust,
        turns::Turns,
    },
    credential::{AskDefaults, Catalog, Credential, Endpoint, RefreshRules, RejectOn, WhenDegraded},
    error::{Error, ErrorKind, Result},
    failpoint::Failpoints,
    metrics::Metrics,
    policy::{AllowAll, Ask, Authorized, WatchRequest, authorize},
    provider::{
        Capabilities, GrantUse, MintFailure, MintRequest, MintResult, Minted, Rotation, SharedProvider, TokenProvider,
    },
    rng::SharedRng,
    store::{MemoryTokenStore, Rejected, SharedStore, faulty::FaultyTokenStore},
    time::{Clock as _, Timestamp, TokioClock},
    trace::Tracer,
    types::{
        Caller, CredentialName, Fingerprint, Generation, RejectedToken, Rejection, ReplicaId, Secret, Selector,
        TokenKey, TokenRequest,
    },
};

/// What the upstream does at one call.
pub(super) type Answer = MintResult;

/// An upstream that does as it is told, and counts.
#[derive(Debug)]
pub(super) struct Upstream {
    clock: Arc<TokioClock>,
    script: Mutex<VecDeque<Answer>>,
    pub(super) down: Mutex<Option<Error>>,
    pub(super) delay: Mutex<Duration>,
    pub(super) lifetime: Mutex<Duration>,
    pub(super) grant: Mutex<Option<Secret>>,
    rotation: Option<Rotation>,
    pub(super) revocable: AtomicBool,
    pub(super) panics: AtomicBool,
    calls: Mutex<Vec<Timestamp>>,
    at_once: Mutex<(usize, usize)>,
    sent_grants: Mutex<Vec<String>>,
    revocations: Mutex<Revocations>,
}

/// The revocations that an upstream was asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Revocations {
    /// The tokens, in the order of the calls.
    pub(super) tokens: Vec<String>,
    /// How many calls were under way at once, at most.
    pub(super) at_once: usize,
    under_way: usize,
}

impl Upstream {
    fn new(clock: Arc<TokioClock>, rotation: Option<Rotation>) -> Self {
        Self {
            clock,
            script: Mutex::default(),
            down: Mutex::default(),
            delay: Mutex::new(Duration::from_millis(50)),
            lifetime: Mutex::new(Duration::from_secs(3600)),
            grant: Mutex::default(),
            rotation,
            revocable: AtomicBool::new(false),
            panics: AtomicBool::new(false),
            calls: Mutex::default(),
            at_once: Mutex::default(),
            sent_grants: Mutex::default(),
            revocations: Mutex::default(),
        }
    }

    /// Does this at the next call that nothing is planned for yet.
    pub(super) fn then(&self, answer: Answer) {
        self.script.lock().unwrap().push_back(answer);
    }

    /// Fails from now on; `None`: works again.
    pub(super) fn fail(&self, kind: Option<ErrorKind>) {
        *self.down.lock().unwrap() = kind.map(|kind| Error::new(kind, "the upstream is told to fail"));
    }

    pub(super) fn calls(&self) -> usize {
        self.calls.lock().unwrap().len()
    }

    pub(super) fn call_times(&self) -> Vec<Timestamp> {
        self.calls.lock().unwrap().clone()
    }

    /// How many calls were under way at once, at most.
    pub(super) fn most_at_once(&self) -> usize {
        self.at_once.lock().unwrap().1
    }

    pub(super) fn revocations(&self) -> Revocations {
        self.revocations.lock().unwrap().clone()
    }

    pub(super) fn sent_grants(&self) -> Vec<String> {
        self.sent_grants.lock().unwrap().clone()
    }
}

/// A token that lasts this long.
pub(super) fn minted(token: &str, lifetime: Duration) -> Minted {
    Minted {
        access_token: Secret::from(token),
        token_type: "Bearer".into(),
        lifetime,
        scopes: None,
        attributes: [].into(),
        grant: None,
    }
}

#[async_trait]
impl TokenProvider for Upstream {
    fn kind(&self) -> &'static str {
        "scripted"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            grant: self.rotation.map_or(GrantUse::None, GrantUse::Refresh),
            revocable: self.revocable.load(Ordering::SeqCst),
        }
    }

    async fn mint(&self, request: MintRequest) -> MintResult {
        let number = {
            let mut calls = self.calls.lock().unwrap();
            calls.push(self.clock.now());
            calls.len()
        };
        let sent = request.grant.map(|grant| grant.expose().clone());
        self.sent_grants.lock().unwrap().extend(sent.clone());
        let planned = self.script.lock().unwrap().pop_front();
        let (delay, lifetime) = (*self.delay.lock().unwrap(), *self.lifetime.lock().unwrap());
        {
            let mut at_once = self.at_once.lock().unwrap();
            *at_once = (at_once.0 + 1, at_once.1.max(at_once.0 + 1));
        }
        sleep(delay).await;
        self.at_once.lock().unwrap().0 -= 1;
        assert!(!self.panics.load(Ordering::SeqCst), "on purpose");
        if let Some(answer) = planned {
            return answer;
        }
        if let Some(error) = self.down.lock().unwrap().clone() {
            return Err(MintFailure::harmless(error));
        }
        let grant = self.rotation.map(|_| Secret::from(format!("rt-{number}")));
        Ok(Minted { grant, ..minted(&format!("at-{number}"), lifetime) })
    }

    async fn configured_grant(&self) -> Result<Option<Secret>> {
        Ok(self.grant.lock().unwrap().clone())
    }

    async fn revoke(&self, token: Secret) -> Result<()> {
        {
            let mut revocations = self.revocations.lock().unwrap();
            revocations.tokens.push(token.expose().clone());
            revocations.under_way += 1;
            revocations.at_once = revocations.at_once.max(revocations.under_way);
        }
        let delay = *self.delay.lock().unwrap();
        sleep(delay).await;
        self.revocations.lock().unwrap().under_way -= 1;
        Ok(())
    }
}

/// A cache with all that it needs.
pub(super) struct World {
    pub(super) cache: Arc<TokenCache>,
    pub(super) upstream: Arc<Upstream>,
    pub(super) store: SharedStore,
    pub(super) clock: Arc<TokioClock>,
    pub(super) stop: CancellationToken,
    deaf: CancellationToken,
}

/// What a world is made of.
pub(super) struct Plan {
    pub(super) rotation: Option<Rotation>,
    pub(super) config: &'static str,
    pub(super) seed: u64,
    pub(super) idle_window: Option<Duration>,
    pub(super) when_degraded: WhenDegraded,
    pub(super) endpoint: Option<Endpoint>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            rotation: None,
            config: "config-1",
            seed: 1,
            idle_window: None,
            when_degraded: WhenDegraded::Serve,
            endpoint: None,
        }
    }
}

impl World {
    pub(super) fn new() -> Self {
        Self::planned(&Plan::default())
    }

    pub(super) fn rotating() -> Self {
        let world = Self::planned(&Plan { rotation: Some(Rotation::Strict), ..Plan::default() });
        *world.upstream.grant.lock().unwrap() = Some("rt-seed".into());
        world
    }

    pub(super) fn planned(plan: &Plan) -> Self {
        let clock = Arc::new(TokioClock::starting_at(Timestamp::from_millis(1_800_000_000_000)));
        let store: SharedStore = Arc::new(MemoryTokenStore::new(clock.clone()));
        let upstream = Arc::new(Upstream::new(Arc::clone(&clock), plan.rotation));
        Self::over(store, upstream, clock, "test", plan)
    }

    /// Several replicas over one store, upstream and time, each in touch with the others.
    pub(super) async fn fleet(count: usize, plan: &Plan) -> Vec<Self> {
        let clock = Arc::new(TokioClock::starting_at(Timestamp::from_millis(1_800_000_000_000)));
        let store: SharedStore = Arc::new(MemoryTokenStore::for_replicas(clock.clone()));
        Self::fleet_over(vec![store; count], &clock, plan).await
    }

    /// Replicas over one store that can be told to fail, each in touch with the others.
    pub(super) async fn fleet_with_faulty_store(count: usize, plan: &Plan) -> (Vec<Self>, Arc<FaultyTokenStore>) {
        let clock = Arc::new(TokioClock::starting_at(Timestamp::from_millis(1_800_000_000_000)));
        let store = Arc::new(FaultyTokenStore::new(Arc::new(MemoryTokenStore::for_replicas(clock.clone()))));
        let ways: Vec<SharedStore> = vec![store.clone(); count];
        (Self::fleet_over(ways, &clock, plan).await, store)
    }

    /// Two replicas over one store; the way of the second one to it can be told to fail.
    pub(super) async fn pair_with_faulty_way(
        prepare: impl FnOnce(&FaultyTokenStore),
    ) -> ([Self; 2], Arc<FaultyTokenStore>) {
        let clock = Arc::new(TokioClock::starting_at(Timestamp::from_millis(1_800_000_000_000)));
        let store: SharedStore = Arc::new(MemoryTokenStore::for_replicas(clock.clone()));
        let way = Arc::new(FaultyTokenStore::new(store.clone()));
        prepare(&way);
        let worlds = Self::fleet_over(vec![store, way.clone()], &clock, &Plan::default()).await;
        (worlds.try_into().ok().expect("two"), way)
    }

    async fn fleet_over(stores: Vec<SharedStore>, clock: &Arc<TokioClock>, plan: &Plan) -> Vec<Self> {
        let upstream = Arc::new(Upstream::new(Arc::clone(clock), plan.rotation));
        let over = |(i, store)| Self::over(store, Arc::clone(&upstream), Arc::clone(clock), &format!("r{i}"), plan);
        let worlds: Vec<_> = stores.into_iter().enumerate().map(over).collect();
        for world in &worlds {
            world.cache.in_touch(Duration::from_secs(60)).await;
        }
        worlds
    }

    /// Another process over the same store, upstream and time.
    pub(super) fn restarted(&self, plan: &Plan) -> Self {
        self.stop.cancel();
        Self::over(Arc::clone(&self.store), Arc::clone(&self.upstream), Arc::clone(&self.clock), "test", plan)
    }

    /// A world whose store can be told to fail.
    pub(super) fn with_faulty_store(plan: &Plan) -> (Self, Arc<FaultyTokenStore>) {
        let clock = Arc::new(TokioClock::starting_at(Timestamp::from_millis(1_800_000_000_000)));
        let store = Arc::new(FaultyTokenStore::new(Arc::new(MemoryTokenStore::new(clock.clone()))));
        let upstream = Arc::new(Upstream::new(Arc::clone(&clock), plan.rotation));
        (Self::over(store.clone(), upstream, clock, "test", plan), store)
    }

    /// Another process over the same store and upstream, on a machine whose clock has been set back.
    pub(super) fn restarted_earlier(&self, by: Duration, plan: &Plan) -> Self {
        self.stop.cancel();
        let clock = Arc::new(TokioClock::starting_at(self.clock.now().before(by)));
        Self::over(Arc::clone(&self.store), Arc::clone(&self.upstream), clock, "test", plan)
    }

    fn over(store: SharedStore, upstream: Arc<Upstream>, clock: Arc<TokioClock>, replica: &str, plan: &Plan) -> Self {
        let (schedule, orders) = Schedule::new();
        let parts = Parts {
            store: Arc::clone(&store),
            memory: Memory::new(100_000),
            hub: Hub::default(),
            schedule,
            history: History::default(),
            trust: if store.is_shared() { Trust::shared(clock.clone()) } else { Trust::sole(clock.clone()) },
            guard: StormGuard::default(),
            turns: Turns::default(),
            budgets: Budgets::default(),
            tracer: Tracer::off(),
            metrics: Metrics::register(&mut prometheus_client::registry::Registry::default()),
            audit: AuditLog::in_memory(clock.clone(), ReplicaId::new(replica)),
            clock: clock.clone(),
            rng: SharedRng::from_seed(plan.seed),
            replica: ReplicaId::new(replica),
            started_at: clock.now(),
            pending: Arc::default(),
            failpoints: Failpoints::none(),
            rotations: TaskTracker::new(),
        };
        let provider: SharedProvider = upstream.clone();
        let credential = Credential {
            name: name("c"),
            provider,
            defaults: AskDefaults::default(),
            refresh: RefreshRules { idle_window: plan.idle_window, ..RefreshRules::default() },
            reject_on: RejectOn::default(),
            when_degraded: plan.when_degraded,
            endpoint: plan.endpoint.clone(),
            timeout: Duration::from_secs(10),
            config: Fingerprint::of_bytes(plan.config.as_bytes()),
        };
        let catalog = Catalog::new([credential]);
        let cache = Arc::new(TokenCache::new(parts, catalog, 100_000, TaskTracker::new()));
        let stop = CancellationToken::new();
        tokio::spawn(Refresher::new(Arc::clone(&cache), orders).run(stop.clone()));
        tokio::spawn(Settler::new(Arc::clone(&cache)).run(stop.clone()));
        let deaf = stop.child_token();
        if store.is_shared() {
            let hint = Arc::new(Notify::new());
            let (listening, heard) = (store.clone(), Arc::clone(&hint));
            tokio::spawn(deaf.clone().run_until_cancelled_owned(async move { listening.listen(heard).await }));
            let fleet = Fleet::new(Arc::clone(&cache), ReplicaId::new(replica), hint);
            // Dropped, not stopped: a replica that is cut off says no farewell.
            tokio::spawn(deaf.clone().run_until_cancelled_owned(fleet.run(CancellationToken::new())));
        }
        Self { cache, upstream, store, clock, stop, deaf }
    }

    /// Cuts the replica off from the others: its events and signs of life.
    pub(super) async fn go_deaf(&self) {
        self.deaf.cancel();
        // What listens has to have its turn to notice.
        yield_now().await;
    }

    pub(super) async fn warm_start(&self) {
        WarmStart::new(Arc::clone(&self.cache)).run(CancellationToken::new()).await;
    }

    pub(super) async fn get(&self) -> Result<Arc<Entry>> {
        self.get_with(|_| {}).await
    }

    pub(super) async fn get_with(&self, change: impl FnOnce(&mut TokenRequest)) -> Result<Arc<Entry>> {
        Ok(self.serve(change).await?.entry.expect("modified"))
    }

    pub(super) async fn serve(&self, change: impl FnOnce(&mut TokenRequest)) -> Result<Served> {
        let mut request = TokenRequest {
            selector: selector(&[]),
            min_validity: Duration::ZERO,
            if_generation_not: None,
            rejected: None,
        };
        change(&mut request);
        self.cache.get(&allowed(request), None).await
    }

    pub(super) async fn reject(&self, generation: Generation) -> Result<Rejected> {
        let rejection = Rejection {
            selector: selector(&[]),
            rejected: RejectedToken::Generation(generation),
            http_status: Some(401),
            error: None,
        };
        self.cache.reject(&allowed(rejection)).await
    }

    pub(super) fn watch_request(&self) -> Authorized<WatchRequest> {
        allowed(WatchRequest(selector(&[])))
    }

    pub(super) fn key(&self) -> TokenKey {
        TokenKey::new(selector(&[]))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub(super) fn allowed<T: Ask>(request: T) -> Authorized<T> {
    authorize(&AllowAll, &Caller::anonymous(), request).expect("everything is allowed")
}

pub(super) fn name(text: &str) -> CredentialName {
    CredentialName::parse(text).expect("a valid name")
}

pub(super) fn selector(scopes: &[&str]) -> Selector {
    Selector::new(name("c"), scopes.iter().map(ToString::to_string).collect(), None, vec![])
}
