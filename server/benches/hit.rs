//! What a hit is made of, piece by piece, and the whole of it without the transport:
//! `cargo bench -p tokencache-server --bench hit`.
//!
//! One thread. `--repeat PIECE COUNT` does nothing but one piece, so that its instructions can be counted
//! (`cargo xtask instructions`), which a busy machine does not disturb. Knowing the caller and asking the policy is measured
//! in `access`, the audit log in `audit`.

use std::{cell::Cell, env, hint::black_box, sync::Arc, time::Duration};

use prometheus_client::registry::Registry;
use rustix::time::{ClockId, clock_gettime};
use tokencache_server::{
    audit::{AuditLog, Rpc},
    authn::AnyCaller,
    cache::{
        Parts, Served, TokenCache,
        entry::freshness,
        flight::budget::Budgets,
        guard::StormGuard,
        history::History,
        hub::Hub,
        memory::{Entry, Memory},
        refresher::{Orders, Schedule},
        trust::Trust,
        turns::Turns,
    },
    config::Config,
    failpoint::Failpoints,
    metrics::Metrics,
    pipeline::{Call, Pipeline},
    policy::AllowAll,
    provider::registry::ProviderRegistry,
    rng::SharedRng,
    rpc::encode,
    store::{
        Commit, Committed, Fence, MemoryTokenStore, SharedStore,
        sealed::{KeyId, KeyMaterial, KeyRing, SealedTokenStore, Sealer},
    },
    time::{Clock as _, SharedClock, SystemClock},
    trace::Tracer,
    types::{
        CredentialName, Evidence, Fingerprint, Generation, Peer, ReplicaId, Secret, Selector, Terms, Token, TokenKey,
        TokenRequest,
    },
};
use tokio::{
    runtime::{Builder, Runtime},
    time::Instant,
};
use tokio_util::task::TaskTracker;

/// How often each piece is done when its time is taken.
const COUNT: u32 = 500_000;

/// How many keys there are; each piece takes the next one.
const KEYS: usize = 10_000;

/// How many of them have a token in the store.
const SEALED: usize = 100;

const CONFIG: &str = "[server]\ninsecure_allow_any_caller = true\n[store]\nurl = \"memory:\"\n\
    [credentials.ci]\nprovider = \"fixed\"\ntoken = { env = \"PATH\" }\n";

fn selector(number: usize) -> Selector {
    let name = CredentialName::parse("ci").expect("a name");
    Selector::new(name, vec!["repo".into(), format!("scope-{number}")], None, vec![])
}

fn token(number: usize) -> Token {
    let access_token = Secret::from(format!("{number:0900}"));
    let now = SystemClock.now();
    Token {
        fingerprint: Fingerprint::of(&access_token),
        access_token,
        terms: Terms::new("Bearer".into(), vec!["repo".into()], [].into()),
        issued_at: now,
        expires_at: now.after(Duration::from_secs(36_000)),
        refresh_at: now.after(Duration::from_secs(30_000)),
        generation: Generation::new(1),
    }
}

/// A broker without its transport, whose memory has a token for each key.
struct Broker {
    runtime: Runtime,
    pipeline: Pipeline,
    metrics: Metrics,
    /// A memory apart, to be looked into without the rest.
    memory: Memory,
    sealed: SharedStore,
    keys: Vec<TokenKey>,
    /// One that is there.
    entry: Arc<Entry>,
    config: Fingerprint,
    /// How many tokens were sealed: their keys have their turns in order.
    generation: Cell<u64>,
    _orders: Orders,
}

impl Broker {
    fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let clock: SharedClock = Arc::new(SystemClock);
        let config = Config::parse("hit.toml", CONFIG, "", &ProviderRegistry::builtin()).expect("it is valid");
        let config_print = config.credentials.iter().next().expect("it has one").config;
        let metrics = Metrics::register(&mut Registry::default());
        let replica = ReplicaId::new("bench");
        let audit = AuditLog::in_memory(Arc::clone(&clock), replica.clone());
        let store: SharedStore = Arc::new(MemoryTokenStore::new(Arc::clone(&clock)));
        let (schedule, orders) = Schedule::new();
        let (memory, apart) = (Memory::new(KEYS as u64 * 2), Memory::new(KEYS as u64 * 2));
        let keys: Vec<_> = (0..KEYS).map(|number| TokenKey::new(selector(number))).collect();
        for (number, key) in keys.iter().enumerate() {
            for memory in [&memory, &apart] {
                memory.insert(Entry::new(key.clone(), token(number), config_print, clock.now()));
            }
        }
        let parts = Parts {
            store: Arc::clone(&store),
            memory,
            hub: Hub::default(),
            schedule,
            history: History::default(),
            trust: Trust::sole(Arc::clone(&clock)),
            guard: StormGuard::default(),
            turns: Turns::default(),
            budgets: Budgets::default(),
            tracer: Tracer::off(),
            metrics: metrics.clone(),
            audit: audit.clone(),
            started_at: clock.now(),
            clock: Arc::clone(&clock),
            rng: SharedRng::from_os(),
            replica,
            pending: Arc::default(),
            failpoints: Failpoints::none(),
            rotations: TaskTracker::new(),
        };
        let catalog = config.credentials.clone();
        let cache = Arc::new(TokenCache::new(parts, catalog.clone(), KEYS as u64 * 2, TaskTracker::new()));
        let records = audit.in_memory_reader();
        let (authn, policy) = (Arc::new(AnyCaller), Arc::new(AllowAll));
        let pipeline = Pipeline { authn, rate: None, policy, catalog, cache, audit, records };
        let key = KeyMaterial::generate().expect("randomness");
        let ring = KeyRing::new(KeyId::parse("k").expect("a name"), &key).expect("a key");
        let sealed = Arc::new(SealedTokenStore::new(store, Arc::new(Sealer::new(ring, move |_| Some(config_print)))));
        let entry = apart.get(keys[0].hash_ref()).expect("it is there");
        let broker = Self {
            entry,
            runtime,
            pipeline,
            metrics,
            memory: apart,
            sealed,
            keys,
            config: config_print,
            generation: Cell::new(0),
            _orders: orders,
        };
        broker.sealing(u32::try_from(SEALED).expect("a few"));
        broker
    }

    fn commit(&self, number: usize, generation: u64) -> Commit {
        Commit {
            key: self.keys[number].clone(),
            token: Token { generation: Generation::new(generation), ..token(number) },
            fence: Fence::Next,
            config: self.config,
            last_used_at: SystemClock.now(),
            grant: None,
        }
    }

    fn key(&self, number: u32) -> &TokenKey {
        &self.keys[number as usize % KEYS]
    }

    fn request(&self, number: u32) -> TokenRequest {
        TokenRequest {
            selector: self.key(number).selector().clone(),
            min_validity: Duration::ZERO,
            if_generation_not: None,
            rejected: None,
        }
    }

    /// The whole of a hit, from what the transport says of a call to the token.
    fn hit(&self, count: u32) {
        for number in 0..count {
            let call = Call { evidence: Evidence::of_peer(Peer::Unknown), deadline: None, trace: None };
            black_box(self.pipeline.get_token_at_once(Instant::now(), &call, self.request(number)).expect("a token"));
        }
    }

    /// The same for a call that is found unusual at first: what a miss pays before it waits.
    fn unusual(&self, count: u32) {
        self.runtime.block_on(async {
            for number in 0..count {
                let call = Call { evidence: Evidence::of_peer(Peer::Unknown), deadline: None, trace: None };
                let call = self.pipeline.identify(call, Rpc::GetToken).await.expect("everybody is let in");
                let served = self.pipeline.get_token(&call, self.request(number)).await.expect("a token");
                assert!(served.0.hit);
                black_box(served);
            }
        });
    }

    fn key_hashing(&self, count: u32) {
        for number in 0..count {
            // A new one each time, for a selector remembers its key's hash.
            let name = self.key(number).credential().clone();
            black_box(TokenKey::new(Selector::new(name, vec![], None, vec![])).hash());
        }
    }

    fn memory(&self, count: u32) {
        for number in 0..count {
            black_box(self.memory.get(&self.key(number).hash()).expect("it is there"));
        }
    }

    fn freshness(&self, count: u32) {
        let now = SystemClock.now();
        for _ in 0..count {
            black_box(freshness(black_box(&self.entry.token), black_box(now), black_box(Duration::ZERO)));
        }
    }

    fn counting(&self, count: u32) {
        for number in 0..count {
            self.metrics.hits.inc();
            self.metrics.tokens.served(true, Duration::from_nanos(number.into()), Duration::from_secs(3600));
        }
    }

    /// The answer, as it goes to the transport.
    fn encoding(&self, count: u32) {
        let at = SystemClock.now();
        for _ in 0..count {
            let (told, current) = (Some(Arc::clone(&self.entry)), Arc::clone(&self.entry));
            black_box(encode(&Served { entry: told, verified: true, current, hit: true, at }));
        }
    }

    /// A token sealed and stored.
    fn sealing(&self, count: u32) {
        self.runtime.block_on(async {
            for _ in 0..count {
                let sealed = self.generation.get();
                let number = usize::try_from(sealed).expect("a small number") % SEALED;
                let commit = self.commit(number, sealed / SEALED as u64 + 1);
                self.generation.set(sealed + 1);
                assert_eq!(self.sealed.commit(commit).await, Ok(Committed::Stored));
            }
        });
    }

    /// A stored token opened: what a restart costs for each.
    fn opening(&self, count: u32) {
        self.runtime.block_on(async {
            for number in 0..count {
                let key = self.keys[number as usize % SEALED].hash();
                black_box(self.sealed.load(key).await.expect("it opens").expect("it is there"));
            }
        });
    }
}

/// A piece, by its name.
type Piece = (&'static str, fn(&Broker, u32));

const PIECES: [Piece; 9] = [
    ("hit", Broker::hit),
    ("unusual", Broker::unusual),
    ("key-hashing", Broker::key_hashing),
    ("memory", Broker::memory),
    ("freshness", Broker::freshness),
    ("counting", Broker::counting),
    ("encoding", Broker::encoding),
    ("sealing", Broker::sealing),
    ("opening", Broker::opening),
];

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// Instructions are counted from its call to its return: it has a symbol, and calls nothing that has a similar one.
#[inline(never)]
fn what_is_counted(piece: fn(&Broker, u32), broker: &Broker, count: u32) {
    piece(broker, count);
    black_box(());
}

#[expect(clippy::print_stdout, reason = "the figures are what it is run for")]
fn main() {
    let arguments: Vec<_> = env::args().collect();
    let broker = Broker::new();
    if let Some(at) = arguments.iter().position(|argument| argument == "--repeat") {
        let (_, piece) = PIECES.iter().find(|(name, _)| *name == arguments[at + 1]).expect("a piece of this name");
        what_is_counted(*piece, &broker, arguments[at + 2].parse().expect("a number"));
        return;
    }
    for (name, piece) in PIECES {
        piece(&broker, COUNT / 10);
        let begun = processor_time();
        piece(&broker, COUNT);
        println!("{name}: {} ns of the processor", (processor_time() - begun).as_nanos() / u128::from(COUNT));
    }
}
