//! A short run whose inputs are the same each time, on every machine.
//!
//! libFuzzer chooses what to change by what an input reached, and that differs between runs where the code draws nonces or
//! hashes with random seeds. Here nothing but the seed and the committed corpus decides. A digest of all inputs shows it.

use std::{
    env, fs, panic,
    path::Path,
    process,
    sync::{Mutex, PoisonError},
};

use aws_lc_rs::digest::{Context, SHA256};

use crate::edit::edited;

/// `RUNS SEED LONGEST CORPUS CRASH`, parted by line feeds: how many inputs, the seed, the longest input, the directory of
/// the corpus, and the file for an input that makes the target crash.
const VARIABLE: &str = "TOKENCACHE_FUZZ_SHORT";

/// What is being tried.
static TRIED: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// Does the short run and ends the process, if that is asked for.
///
/// # Panics
///
/// If what is asked for cannot be read, or the target crashes.
#[expect(clippy::print_stdout, reason = "the chore reads it")]
pub fn run_if_asked(check: fn(&[u8])) {
    let Ok(asked) = env::var(VARIABLE) else { return };
    let words: Vec<&str> = asked.lines().collect();
    let [runs, seed, longest, corpus, crash] = words[..] else { panic!("five words are wanted") };
    let number = |text: &str| text.parse::<u64>().expect("a number");
    keep_what_crashes(crash);
    let longest = usize::try_from(number(longest)).expect("a length");
    let corpus = read(Path::new(corpus), longest);
    let mut random = Random(number(seed));
    let mut all = Context::new(&SHA256);
    for run in 0..number(runs) {
        let known = usize::try_from(run).ok().and_then(|run| corpus.get(run));
        let input = known.cloned().unwrap_or_else(|| random.input(&corpus, longest));
        all.update(&(input.len() as u64).to_be_bytes());
        all.update(&input);
        TRIED.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&input);
        check(&input);
    }
    let digest: String = all.finish().as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    println!("{runs} inputs with the digest {digest}");
    process::exit(0);
}

/// libFuzzer's hook, which ends the process, comes after.
fn keep_what_crashes(file: &str) {
    let (file, then) = (file.to_owned(), panic::take_hook());
    panic::set_hook(Box::new(move |why| {
        let tried = TRIED.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // It fails too if this fails.
        let _ = fs::write(&file, tried);
        then(why);
    }));
}

/// All inputs of a corpus, by the names of their files: a directory is in another order on every disk.
fn read(corpus: &Path, longest: usize) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(corpus).expect("a corpus").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<_> = entries.collect();
    files.sort();
    let inputs = files.iter().map(|file| fs::read(file).expect("an input"));
    inputs.map(|input| input.into_iter().take(longest).collect()).collect()
}

/// splitmix64 (Steele, Lea and Flood 2014): short, and good enough to choose bytes.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % (end.max(1) as u64)).expect("below a length")
    }

    /// One input of the corpus, now and then with the end of another one, and changed in a few places.
    fn input(&mut self, corpus: &[Vec<u8>], longest: usize) -> Vec<u8> {
        let mut input = corpus[self.below(corpus.len())].clone();
        if self.next().is_multiple_of(4) {
            let other = &corpus[self.below(corpus.len())];
            input.truncate(self.below(input.len() + 1));
            input.extend_from_slice(&other[self.below(other.len() + 1)..]);
        }
        let steps = self.below(4);
        let script: Vec<u8> = (0..steps).flat_map(|_| self.step()).collect();
        input = edited(&input, &script);
        input.truncate(longest);
        input
    }

    /// A change at a place, mostly of a byte to one that stands in texts.
    fn step(&mut self) -> [u8; 4] {
        let [high, low, what, any, text, ..] = self.next().to_be_bytes();
        // Cutting off is rarer than it would be.
        let what = if what % 4 == 3 && any % 4 > 0 { 0 } else { what };
        [high, low, what, if text.is_ascii_graphic() { text } else { any }]
    }
}
