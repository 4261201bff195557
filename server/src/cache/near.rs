//! A short way to the entries that are asked for most, past moka's look-up.
//!
//! moka records each read, sorts its queues by them, and pays for that, by a profile, a tenth of a hit. Here
//! an entry has one place, by its key's hash, and is taken from there as long as nothing has replaced or evicted it; one
//! read in so many goes to moka all the same, so that it knows what is asked for. There are as many places as entries, so
//! that most entries have one to themselves.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use arc_swap::{ArcSwap, ArcSwapOption};

use super::memory::Entry;
use crate::types::KeyHash;

/// How many places there are at first and at most: powers of two. Each takes eight bytes.
const PLACES: (usize, usize) = (1 << 14, 1 << 22);

/// Of so many reads one goes to moka.
const SAMPLED: u32 = 64;

/// Whether an entry is still the one of its key in moka. It never is again.
#[derive(Debug, Default)]
pub(super) struct Retired(AtomicBool);

impl Retired {
    /// It was replaced or evicted.
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn get(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// The places. Whoever is at one while there become more of them is alone with the old ones, and ends them.
#[derive(Debug)]
pub(super) struct Near(ArcSwap<Box<[Place]>>);

type Place = ArcSwapOption<Entry>;

fn places(count: usize) -> Arc<Box<[Place]>> {
    Arc::new((0..count).map(|_| Place::empty()).collect())
}

impl Near {
    pub(super) fn new() -> Self {
        Self(ArcSwap::new(places(PLACES.0)))
    }

    /// Makes room for so many entries. The new places are empty.
    pub(super) fn fit(&self, entries: u64) {
        let present = self.0.load();
        let count = present.len();
        if entries > count as u64 && count < PLACES.1 {
            // Whoever else has seen to it was as right.
            self.0.compare_and_swap(&present, places(2 * count));
        }
    }

    /// The entry of a key, if it is near, else what `far` says. Whatever was replaced before this is called is not
    /// returned.
    pub(super) fn get(&self, key: &KeyHash, far: impl FnOnce() -> Option<Arc<Entry>>) -> Option<Arc<Entry>> {
        let is_sampled = is_sampled();
        let places = self.0.load();
        let place = place(&places, key);
        let near = place.load();
        if !is_sampled
            && let Some(entry) = near.as_ref().filter(|entry| entry.key.hash_ref() == key && !entry.retired.get())
        {
            return Some(Arc::clone(entry));
        }
        let entry = far();
        // Nobody is displaced each time, for a key that is asked for once has no need of a place.
        if (is_sampled || near.is_none())
            && let Some(entry) = &entry
        {
            place.store(Some(Arc::clone(entry)));
            if entry.retired.get() {
                // Meanwhile.
                self.forget(entry);
            }
        }
        entry
    }

    /// Lets go of an entry that was replaced or evicted: it holds a secret.
    pub(super) fn forget(&self, entry: &Entry) {
        entry.retired.set();
        let places = self.0.load();
        let place = place(&places, entry.key.hash_ref());
        if place.load().as_ref().is_some_and(|near| std::ptr::eq(&raw const **near, entry)) {
            place.store(None);
        }
    }
}

fn place<'a>(places: &'a [Place], key: &KeyHash) -> &'a Place {
    let [one, two, three, four, ..] = *key.as_bytes();
    &places[u32::from_be_bytes([one, two, three, four]) as usize % places.len()]
}

/// Of the reads of this thread.
fn is_sampled() -> bool {
    thread_local! {
        static READS: Cell<u32> = const { Cell::new(0) };
    }
    let read = READS.get();
    READS.set(read.wrapping_add(1));
    read.is_multiple_of(SAMPLED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(credential: &str) -> Arc<Entry> {
        Arc::new(Entry::sample(credential, "t"))
    }

    #[test]
    fn an_entry_is_near_until_it_is_replaced() {
        let (near, one, two) = (Near::new(), entry("a"), entry("a"));
        let key = one.key.hash();
        let far = Cell::new(0);
        let get = |entry: &Arc<Entry>| {
            let found = near.get(&key, || {
                far.set(far.get() + 1);
                Some(Arc::clone(entry))
            });
            found.expect("an entry")
        };
        for _ in 0..100 * SAMPLED {
            assert!(Arc::ptr_eq(&get(&one), &one));
        }
        assert!((100..100 + SAMPLED).contains(&far.get()), "{} reads went far", far.get());
        near.forget(&one);
        for _ in 0..100 * SAMPLED {
            assert!(Arc::ptr_eq(&get(&two), &two), "the replaced one is not returned");
        }
        // A read that was begun before comes back with it afterwards: it is not kept.
        for _ in 0..SAMPLED {
            get(&one);
        }
        assert_eq!(Arc::strong_count(&one), 1);
    }

    #[test]
    fn keys_that_share_a_place_do_not_share_an_entry() {
        let near = Near::new();
        let entries: Vec<_> = (0..4 * PLACES.0).map(|i| entry(&format!("c{i}"))).collect();
        for entry in entries.iter().chain(&entries) {
            let found = near.get(&entry.key.hash(), || Some(Arc::clone(entry)));
            assert!(found.is_some_and(|found| Arc::ptr_eq(&found, entry)));
        }
    }

    #[test]
    fn there_are_as_many_places_as_entries_and_none_is_held_by_those_that_were_too_few() {
        let (near, one) = (Near::new(), entry("a"));
        let read = || (0..SAMPLED).for_each(|_| drop(near.get(&one.key.hash(), || Some(Arc::clone(&one)))));
        read();
        near.fit(PLACES.0 as u64);
        assert_eq!((near.0.load().len(), Arc::strong_count(&one)), (PLACES.0, 2));
        near.fit(PLACES.0 as u64 + 1);
        assert_eq!((near.0.load().len(), Arc::strong_count(&one)), (2 * PLACES.0, 1));
        read();
        assert_eq!(Arc::strong_count(&one), 2);
        (0..20).for_each(|_| near.fit(u64::MAX));
        assert_eq!(near.0.load().len(), PLACES.1);
    }
}
