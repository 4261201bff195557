use std::collections::BTreeSet;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use tempfile::TempDir;

use super::{
    place::{GrantColumn, TokenColumn},
    *,
};
use crate::{
    store::{
        MemoryTokenStore, SqliteTokenStore,
        conformance::{
            self,
            samples::{commit_with_grant, credential, key},
        },
    },
    time::SystemClock,
    types::{Fingerprint, Secret},
};

mod grants;
mod keys;

fn id(name: &str) -> KeyId {
    KeyId::parse(name).expect("a valid name")
}

fn config(text: &str) -> Fingerprint {
    Fingerprint::of_bytes(text.as_bytes())
}

fn sealer(key: &KeyMaterial) -> Sealer {
    let ring = KeyRing::new(id("k1"), key).expect("a key");
    Sealer::new(ring, |_| Some(config("config")))
}

fn new_key() -> KeyMaterial {
    KeyMaterial::generate().expect("randomness")
}

fn memory() -> SharedStore {
    Arc::new(MemoryTokenStore::for_replicas(Arc::new(SystemClock)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sealed_memory_store_conforms() {
    let key = new_key();
    conformance::run(async || Arc::new(SealedTokenStore::new(memory(), Arc::new(sealer(&key)))) as SharedStore).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sealed_sqlite_store_conforms() {
    let (key, directory) = (new_key(), TempDir::new().expect("a directory"));
    let count = std::sync::atomic::AtomicU64::new(0);
    conformance::run(async || {
        let number = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let inner = Arc::new(SqliteTokenStore::open(&directory.path().join(format!("{number}.db"))));
        Arc::new(SealedTokenStore::new(inner, Arc::new(sealer(&key)))) as SharedStore
    })
    .await;
}

/// Places that differ from one another in one part or several.
fn places() -> Vec<Place> {
    let mut places = vec![];
    for config in [config("one"), config("other")] {
        for generation in [0, 1, 2, u64::MAX] {
            for name in ["a", "b"] {
                for column in [TokenColumn::AccessToken, TokenColumn::Attributes] {
                    let generation = Generation::new(generation);
                    places.push(Place::of_token(key(name).hash(), column, generation, config));
                }
                for column in [GrantColumn::RefreshToken, GrantColumn::Previous] {
                    places.push(Place::of_grant(&credential(name), column, generation, config));
                }
                for print in ["r1", "r2"] {
                    let print = Fingerprint::of(&print.into());
                    places.push(Place::of_candidate(&credential(name), print, generation, config));
                }
                for file in ["f", "g"] {
                    places.push(Place::of_spilled(file, &credential(name), generation, config));
                }
            }
        }
    }
    places
}

#[test]
fn what_is_sealed_opens_in_its_place_and_is_another_text_each_time() {
    let sealer = sealer(&new_key());
    let mut seen = BTreeSet::new();
    for (number, place) in places().iter().enumerate() {
        for clear in [String::new(), format!("secret {number}"), "§tcs1.AAAA".into(), "ключ\0\n".repeat(1000)] {
            let clear = Secret::from(clear);
            let sealed = sealer.seal(place, &clear).expect("sealed");
            assert_eq!(sealer.open(place, &sealed), Ok(clear.clone()));
            assert!(seen.insert(sealed.expose().clone()), "a nonce came twice");
            assert!(clear.expose().is_empty() || !sealed.expose().contains(clear.expose().as_str()));
        }
    }
}

#[test]
#[expect(clippy::print_stdout, reason = "it measures a promise")]
fn every_bit_of_a_thousand_blobs_and_every_truncation_of_them_is_missed() {
    let (sealer, places) = (sealer(&new_key()), places());
    let (mut bits, mut cuts) = (0_u64, 0_u64);
    for number in 0..1000 {
        let place = &places[number % places.len()];
        let clear = Secret::from("s".repeat(number % 24));
        let sealed = sealer.seal(place, &clear).expect("sealed").expose().clone();
        let refused = |text: String| assert!(sealer.open(place, &text.clone().into()).is_err(), "{text} of {sealed}");
        let body = sealed.strip_prefix("§tcs1.").expect("it begins so");
        let bytes = URL_SAFE_NO_PAD.decode(body).expect("base64");
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            refused(format!("§tcs1.{}", URL_SAFE_NO_PAD.encode(flipped)));
            bits += 1;
        }
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone().into_bytes();
            flipped[bit / 8] ^= 1 << (bit % 8);
            // What is no UTF-8 any more is no value of a column.
            if let Ok(text) = String::from_utf8(flipped) {
                refused(text);
            }
            bits += 1;
        }
        for cut in (0..sealed.len()).filter(|cut| sealed.is_char_boundary(*cut)) {
            refused(sealed[..cut].to_owned());
            cuts += 1;
        }
        for cut in 0..bytes.len() {
            refused(format!("§tcs1.{}", URL_SAFE_NO_PAD.encode(&bytes[..cut])));
            cuts += 1;
        }
        refused(format!("{sealed}A"));
    }
    println!("{bits} flipped bits and {cuts} truncations refused");
    assert!(bits > 800_000 && cuts > 90_000, "{bits} bits, {cuts} truncations");
}

#[test]
#[expect(clippy::print_stdout, reason = "it measures a promise")]
fn no_secret_opens_in_another_place() {
    let (sealer, places) = (sealer(&new_key()), places());
    let clear = Secret::from("secret");
    let mut moves = 0;
    for from in &places {
        let sealed = sealer.seal(from, &clear).expect("sealed");
        for to in places.iter().filter(|to| *to != from) {
            assert_eq!(sealer.open(to, &sealed), Err(Unopened::Refused), "from {from:?} to {to:?}");
            moves += 1;
        }
    }
    println!("{moves} moves refused");
    assert_eq!(moves, places.len() * (places.len() - 1));
    assert_eq!(places.len(), 2 * 4 * 2 * 8, "in each part there is another one");
}

#[tokio::test]
async fn nothing_is_kept_in_the_clear() {
    let inner = memory();
    let store = SealedTokenStore::new(Arc::clone(&inner), Arc::new(sealer(&new_key())));
    store.commit(commit_with_grant(&key("a"), 1, 0, "canary 1")).await.expect("stored");
    for (base, new) in [(1, "canary 2"), (1, "canary 3")] {
        store.commit(commit_with_grant(&key("a"), base + 1, base, new)).await.expect("stored");
    }
    let mut kept = vec![];
    let row = inner.load(key("a").hash()).await.expect("it answers").expect("it is there").token.expect("a token");
    kept.push(row.access_token.expose().clone());
    kept.extend(row.terms.attributes().iter().map(|(name, value)| format!("{name}{value}")));
    let grant = inner.load_grant(credential("a")).await.expect("it answers").expect("it is there");
    kept.extend([grant.refresh_token, grant.previous.expect("there is one")].map(|secret| secret.expose().clone()));
    let late = inner.candidates(credential("a")).await.expect("it answers");
    kept.extend(late.into_iter().map(|late| late.refresh_token.expose().clone()));
    assert_eq!(kept.len(), 5);
    for text in kept {
        assert!(text.starts_with("§tcs1."), "{text}");
    }
}
