//! Replacing the key of a store: while it is in use, and through kill -9.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt as _, stream};
use tempfile::TempDir;
use tokencache_server::{
    app::{Opened, open_store},
    config::Config,
    error::ErrorKind,
    provider::registry::ProviderRegistry,
    store::{
        Commit, Committed, Fence, GrantSeed, GrantUpdate, SharedStore, StoreRegistry,
        sealed::{KeyCensus, KeyMaterial},
    },
    time::{SystemClock, Timestamp},
    types::{CredentialName, Fingerprint, Generation, KeyHash, Secret, Selector, Terms, Token, TokenKey},
};
use tokencache_testkit::{ChildGuard, Postgres};
use tokio::time::{sleep, timeout};

use super::tokencached;

/// How many credentials have grants, each with one before and a late one.
const GRANTS: usize = 100;

/// How long a run over all rows may take.
const LONGEST: Duration = Duration::from_secs(1800);

/// How many commits are under way at once.
const AT_ONCE: usize = 32;

/// What is replaced, and how often it is broken off.
struct Drill {
    directory: TempDir,
    store: String,
    rows: usize,
    kills: u32,
}

impl Drill {
    fn new(store: &str, rows: usize, kills: u32) -> Self {
        let directory = TempDir::new().expect("a directory");
        for key in ["old", "new"] {
            let text = KeyMaterial::generate().expect("randomness").to_text();
            std::fs::write(directory.path().join(key), text.expose()).expect("a file");
        }
        Self { directory, store: store.to_owned(), rows, kills }
    }

    /// The file of a configuration with these keys, the first active.
    fn file(&self, keys: &[&str]) -> PathBuf {
        let sources: Vec<_> = keys.iter().map(|key| format!("{key} = {{ file = \"{key}\" }}")).collect();
        let mut text = format!(
            "[store]\n{}\n[encryption]\nactive = \"{}\"\nkeys = {{ {} }}\n",
            self.store,
            keys[0],
            sources.join(", ")
        );
        for number in 0..GRANTS {
            text.push_str(&format!(
                "[credentials.c{number}]\nprovider = \"oauth2\"\ngrant = \"refresh_token\"\nclient_id = \"c\"\n\
                 token_url = \"https://idp.example/token\"\nrefresh_token = {{ file = \"rt\" }}\n"
            ));
        }
        let file = self.directory.path().join(format!("{}.toml", keys.join("-")));
        std::fs::write(&file, text).expect("a file");
        file
    }

    async fn open(&self, keys: &[&str]) -> SharedStore {
        let config = Config::load(&self.file(keys), &ProviderRegistry::builtin()).expect("a valid configuration");
        let opened = open_store(&config, &StoreRegistry::builtin(), Arc::new(SystemClock)).await;
        let Opened { store, .. } = opened.expect("a valid store");
        store
    }

    /// Fills the store with tokens and grants under the old key.
    async fn fill(&self, store: &SharedStore) {
        store.prepare().await.expect("an empty store");
        let commits = (0..self.rows).map(|number| {
            let store = Arc::clone(store);
            async move { assert_eq!(store.commit(commit(number, 1)).await, Ok(Committed::Stored)) }
        });
        stream::iter(commits).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
        for number in 0..GRANTS {
            let name = credential(number);
            let seed = GrantSeed {
                credential: name.clone(),
                refresh_token: "r1".into(),
                previous: None,
                at: Timestamp::from_millis(0),
            };
            assert_eq!(store.plant_grant(seed, 0).await, Ok(true));
            assert_eq!(store.advance_grant(name.clone(), update("r2")).await, Ok(true));
            assert_eq!(store.advance_grant(name, update("late")).await, Ok(false));
        }
    }

    /// Runs `tokencached key rotate` again and again and kills it, each time a little later, and at last lets it end.
    async fn rotate(&self) -> u32 {
        let file = self.file(&["new", "old"]);
        let mut killed = 0;
        for round in 0..self.kills {
            let mut command = tokencached();
            command.args(["key", "rotate", "--config"]).arg(&file).stdout(std::process::Stdio::null());
            let mut child = ChildGuard::spawn(&mut command).expect("it starts");
            // Not to be right: wherever it strikes, nothing may be lost.
            sleep(Duration::from_millis(60 + 40 * u64::from(round))).await;
            killed += u32::from(child.child().try_wait().expect("a child of ours").is_none());
            // SIGKILL.
            child.child().kill().expect("a child of ours");
        }
        self.finish().await;
        killed
    }

    /// Lets it run to its end, whatever that takes.
    async fn finish(&self) {
        let file = self.file(&["new", "old"]);
        let mut command = tokio::process::Command::from(tokencached());
        command.args(["key", "rotate", "--config"]).arg(&file).kill_on_drop(true);
        let output = timeout(LONGEST, command.output()).await.expect("it ends").expect("it starts");
        assert!(output.status.success(), "{output:?}");
    }

    #[expect(clippy::print_stdout, reason = "it measures a promise")]
    async fn run(self) {
        let before = self.open(&["old", "new"]).await;
        self.fill(&before).await;

        let stop = Arc::new(AtomicBool::new(false));
        let load = tokio::spawn(load(Arc::clone(&before), self.rows, Arc::clone(&stop)));
        let killed = self.rotate().await;
        stop.store(true, Ordering::Relaxed);
        let generations = load.await.expect("no panic");
        // The last of what the old key has sealed meanwhile.
        self.finish().await;
        before.close().await;

        let after = self.open(&["new"]).await;
        assert_eq!(after.prepare().await, Ok(()), "the old key can be dropped");
        let unreadable = self.count_unreadable(&after, &generations).await;
        let census: KeyCensus = after.rotate_key(true).await.expect("it works");
        println!(
            "{} rows, {} commits meanwhile, killed {killed} times: {unreadable} unreadable, {:?}",
            census.current,
            generations.values().map(|generation| generation - 1).sum::<u64>(),
            census.unreadable
        );
        let all = (self.rows + 2 * GRANTS) as u64;
        assert_eq!((unreadable, census.current, census.resealed), (0, all, 0));
        assert!(census.unreadable.is_empty() && killed > 0);
        after.close().await;
    }

    /// Reads everything, and compares it with what was stored.
    async fn count_unreadable(&self, store: &SharedStore, generations: &HashMap<usize, u64>) -> usize {
        let keys: HashMap<KeyHash, usize> = (0..self.rows).map(|number| (key(number).hash(), number)).collect();
        let (mut good, mut after) = (0, None);
        loop {
            let page = store.scan(after, 1000).await.expect("the store answers");
            let Some(last) = page.last() else { break };
            after = Some(last.key.hash());
            for row in page {
                let number = keys[&row.key.hash()];
                let generation = generations.get(&number).copied().unwrap_or(1);
                let expected = commit(number, generation).token;
                good += usize::from(row.token.as_ref() == Some(&expected));
            }
        }
        let mut bad = self.rows - good;
        for number in 0..GRANTS {
            let grant = store.load_grant(credential(number)).await.ok().flatten();
            let own = grant.map(|grant| (grant.refresh_token, grant.previous));
            bad += usize::from(own != Some(("r2".into(), Some("r1".into()))));
            let late = store.candidates(credential(number)).await.unwrap_or_default();
            bad += usize::from(late.iter().map(|late| late.refresh_token.expose().as_str()).ne(["late"]));
        }
        bad
    }
}

/// Commits the next generation of one key after another until it is told to stop; the generations that were come to.
async fn load(store: SharedStore, rows: usize, stop: Arc<AtomicBool>) -> HashMap<usize, u64> {
    let mut generations = HashMap::new();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let generation = generations.entry(number).or_insert(1_u64);
        // An answer that was lost leaves it open whether it is stored: a repetition finds out.
        while let Err(error) = store.commit(commit(number, *generation + 1)).await {
            assert_eq!(error.kind(), ErrorKind::StoreDown, "{error}");
        }
        *generation += 1;
        // Coprime with the number of rows, so that it wanders over all of them.
        number = (number + 7919) % rows;
    }
    generations
}

fn credential(number: usize) -> CredentialName {
    CredentialName::parse(&format!("c{}", number % GRANTS)).expect("a valid name")
}

fn key(number: usize) -> TokenKey {
    TokenKey::new(Selector::new(credential(number), vec![format!("s{number}")], None, vec![]))
}

fn commit(number: usize, generation: u64) -> Commit {
    let access_token = Secret::from(format!("token {generation} of {number}"));
    let at = Timestamp::from_millis(1);
    let token = Token {
        fingerprint: Fingerprint::of(&access_token),
        access_token,
        terms: Terms::new("Bearer".into(), vec![], [("number".to_owned(), number.to_string())].into()),
        issued_at: at,
        expires_at: at,
        refresh_at: at,
        generation: Generation::new(generation),
    };
    let config = Fingerprint::of_bytes(b"config");
    Commit { key: key(number), token, fence: Fence::Next, config, last_used_at: at, grant: None }
}

fn update(new: &str) -> GrantUpdate {
    GrantUpdate {
        base_version: 1,
        as_of: 0,
        sent: "r1".into(),
        refresh_token: new.into(),
        late: None,
        refused: vec![],
        intent: None,
        at: Timestamp::from_millis(0),
    }
}

async fn postgres() -> String {
    let server = Postgres::start().await.expect("a Postgres to test with");
    let url = server.new_database().await.expect("a new database");
    match server.password() {
        None => format!("url = \"{url}\""),
        Some(password) => format!("url = \"{url}\"\npassword = {{ command = [\"printf\", \"%s\", \"{password}\"] }}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_replaced_under_load_and_kill_9_in_sqlite() {
    Drill::new("url = \"sqlite:tokens.db\"", 1000, 3).run().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_replaced_under_load_and_kill_9_in_postgres() {
    Drill::new(&postgres().await, 1000, 3).run().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: cargo test --workspace --test it -- --ignored --nocapture process::keys"]
async fn a_key_is_replaced_for_100_000_rows_under_load_and_kill_9_in_sqlite() {
    Drill::new("url = \"sqlite:tokens.db\"", 100_000, 20).run().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: cargo test --workspace --test it -- --ignored --nocapture process::keys"]
async fn a_key_is_replaced_for_100_000_rows_under_load_and_kill_9_in_postgres() {
    Drill::new(&postgres().await, 100_000, 20).run().await;
}
