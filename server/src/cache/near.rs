//! A short way to the entries that are asked for most, past moka's look-up.
//!
//! moka records each read, sorts its queues by them, and pays for that, by a profile, a tenth of a hit. Here
//! an entry stands in one of a few places, by its key's hash, and is taken from there as long as nothing has replaced or
//! evicted it; one read in so many goes to moka all the same, so that it knows what is asked for.
//!
//! What is looked at for a key is one line of the processor's cache: its places, each with a tag of the key whose entry
//! stands there, so that no other entry is looked at in vain. With four places for three entries nearly nine in ten have
//! one. (With one place to choose, and as many as entries, a third went to moka, and a hit among a million tokens cost 1.3
//! times one among a thousand; it is 1.1 to 1.2 times now.)

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use arc_swap::{ArcSwap, ArcSwapOption};

use super::memory::Entry;
use crate::types::KeyHash;

/// An entry may stand in any of so many places: those of one set.
const PLACES: usize = 4;

/// How many sets there are at first and at most: powers of two. Each takes 64 bytes.
const SETS: (usize, usize) = (1 << 12, 1 << 20);

/// A set has room for so many entries, by the average of all sets: more of them, and there become more sets.
const FULL: u64 = 3;

/// Of so many reads one goes to moka.
const SAMPLED: u32 = 64;

/// Whether an entry is still the one of its key in moka. It never is again.
///
/// Whoever puts an entry near looks afterwards whether it has been replaced, and whoever replaces it looks afterwards whether
/// it is near. All see that in one order (`SeqCst`, as of arc-swap's pointers), or each could miss the other.
#[derive(Debug, Default)]
pub(super) struct Retired(AtomicBool);

impl Retired {
    /// It was replaced or evicted.
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    fn get(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// The sets. Whoever is at one while there become more of them is alone with the old ones, and ends them.
#[derive(Debug)]
pub(super) struct Near(ArcSwap<Box<[Set]>>);

/// Places that are looked at together.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Set([Place; PLACES]);

/// Where an entry may stand.
#[derive(Debug, Default)]
struct Place {
    /// Of the key whose entry was put here last; [`FREE`] if it was taken away. A hint alone: two who put something here at
    /// once may leave the tag of the one with the entry of the other, which is then not found.
    tag: AtomicU32,
    entry: ArcSwapOption<Entry>,
}

/// The tag of no key.
const FREE: u32 = 0;

fn sets(count: usize) -> Arc<Box<[Set]>> {
    Arc::new((0..count).map(|_| Set::default()).collect())
}

impl Near {
    pub(super) fn new() -> Self {
        Self(ArcSwap::new(sets(SETS.0)))
    }

    /// Makes room for so many entries. The new sets are empty.
    pub(super) fn fit(&self, entries: u64) {
        let present = self.0.load();
        let count = present.len();
        if entries > FULL * count as u64 && count < SETS.1 {
            // Whoever else has seen to it was as right.
            self.0.compare_and_swap(&present, sets(2 * count));
        }
    }

    /// The entry of a key, if it is near, else what `far` says. Whatever was replaced before this is called is not
    /// returned.
    pub(super) fn get(&self, key: &KeyHash, far: impl FnOnce() -> Option<Arc<Entry>>) -> Option<Arc<Entry>> {
        let is_sampled = is_sampled();
        let sets = self.0.load();
        let (set, tag) = find(&sets, key);
        let mut free = None;
        for place in &set.0 {
            match place.tag.load(Ordering::Relaxed) {
                FREE => free = free.or(Some(place)),
                found if found == tag => match &*place.entry.load() {
                    Some(entry) if entry.key.hash_ref() == key && !entry.retired.get() => {
                        return if is_sampled { far() } else { Some(Arc::clone(entry)) };
                    }
                    _ => free = Some(place),
                },
                _ => {}
            }
        }
        let entry = far()?;
        // Nobody is displaced each time, for a key that is asked for once has no need of a place.
        let displaced = || is_sampled.then(|| &set.0[tag as usize / 2 % PLACES]);
        if let Some(place) = free.or_else(displaced) {
            place.entry.store(Some(Arc::clone(&entry)));
            place.tag.store(tag, Ordering::Relaxed);
            if entry.retired.get() {
                // Meanwhile.
                self.forget(&entry);
            }
        }
        Some(entry)
    }

    /// Lets go of an entry that was replaced or evicted: it holds a secret.
    pub(super) fn forget(&self, entry: &Entry) {
        entry.retired.set();
        let sets = self.0.load();
        let (set, _) = find(&sets, entry.key.hash_ref());
        for place in &set.0 {
            if place.entry.load().as_ref().is_some_and(|near| std::ptr::eq(&raw const **near, entry)) {
                place.entry.store(None);
                place.tag.store(FREE, Ordering::Relaxed);
            }
        }
    }
}

/// The set of a key, and its tag.
fn find<'a>(sets: &'a [Set], key: &KeyHash) -> (&'a Set, u32) {
    let [one, two, three, four, five, six, seven, eight, ..] = *key.as_bytes();
    let set = u32::from_be_bytes([one, two, three, four]) as usize % sets.len();
    (&sets[set], u32::from_be_bytes([five, six, seven, eight]) | 1)
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
    fn keys_that_share_a_set_do_not_share_an_entry() {
        let near = Near::new();
        let entries: Vec<_> = (0..4 * SETS.0 * PLACES).map(|i| entry(&format!("c{i}"))).collect();
        for entry in entries.iter().chain(&entries) {
            let found = near.get(&entry.key.hash(), || Some(Arc::clone(entry)));
            assert!(found.is_some_and(|found| Arc::ptr_eq(&found, entry)));
        }
    }

    #[test]
    fn nearly_all_entries_find_a_place_until_there_become_more_of_them() {
        let near = Near::new();
        let count = usize::try_from(FULL).unwrap() * SETS.0;
        let entries: Vec<_> = (0..count).map(|i| entry(&format!("c{i}"))).collect();
        let read = || {
            let mut far = 0;
            for entry in &entries {
                near.get(&entry.key.hash(), || {
                    far += 1;
                    Some(Arc::clone(entry))
                });
            }
            far
        };
        assert_eq!(read(), count, "nothing is near yet");
        let far = read();
        assert!((count / SAMPLED as usize..count / 6).contains(&far), "{far} of {count} have no place");
        near.fit(count as u64);
        assert!(read() < count / 6, "there is room for as many");
        near.fit(count as u64 + 1);
        assert_eq!((read(), near.0.load().len()), (count, 2 * SETS.0));
        assert!(read() < count / 20);
    }

    #[test]
    fn none_is_held_by_the_sets_that_were_too_few() {
        let (near, one) = (Near::new(), entry("a"));
        let read = || drop(near.get(&one.key.hash(), || Some(Arc::clone(&one))));
        read();
        assert_eq!(Arc::strong_count(&one), 2);
        near.fit(u64::MAX);
        assert_eq!(Arc::strong_count(&one), 1);
        read();
        assert_eq!(Arc::strong_count(&one), 2);
        (0..20).for_each(|_| near.fit(u64::MAX));
        assert_eq!(near.0.load().len(), SETS.1);
    }

    #[test]
    fn who_is_read_all_the_time_displaces_one_who_is_not() {
        let near = Near::new();
        let set_of = |entry: &Entry| find(&near.0.load(), entry.key.hash_ref()).0.0.as_ptr().addr();
        let first = set_of(&entry("c0"));
        let more_than_fit = PLACES + 1;
        let sharing = (0..).map(|i| entry(&format!("c{i}"))).filter(|entry| set_of(entry) == first);
        let entries: Vec<_> = sharing.take(more_than_fit).collect();
        let read = |entry: &Arc<Entry>| {
            let mut far = 0;
            near.get(&entry.key.hash(), || {
                far += 1;
                Some(Arc::clone(entry))
            });
            far
        };
        let [others @ .., last] = &*entries else { unreachable!() };
        assert!(others.iter().all(|entry| read(entry) == 1));
        let far: u32 = (0..100 * SAMPLED).map(|_| read(last)).sum();
        assert!((100..100 + 2 * SAMPLED).contains(&far), "{far} reads went far");
        let near_still = others.iter().filter(|entry| Arc::strong_count(entry) > 1).count();
        assert_eq!((near_still, Arc::strong_count(last)), (PLACES - 1, 2));
    }
}
