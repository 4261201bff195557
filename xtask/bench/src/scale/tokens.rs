//! A million tokens: how soon a broker serves that finds them in its store, what each costs in memory, and what a hit costs
//! among so many.

use std::{fs, process::Command, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};

use super::{Doubling, Findings, rows};
use crate::{
    clock::now,
    contenders::{Contender, Host, Tokencached},
    figures::Spread,
    load::{Keys, Pace},
    rounds::{self, Effort, MANY},
    upstream::TOKEN,
};

/// A small set of keys, for comparison.
const FEW_KEYS: u32 = 1000;

/// How long the broker may take to read its store.
const PATIENCE: Duration = Duration::from_secs(300);

/// Measures with so many tokens.
pub(super) fn measure(host: &Host, count: u32, effort: Effort, findings: &mut Findings) -> Result<()> {
    let (store, max_tokens) = ("sqlite:tokencache.db", count + 1000);
    let setup = Tokencached { store, max_tokens, ..Tokencached::open("million") };
    let directory = host.directory(setup.name)?;
    let program = host.programs.join("tokencached");
    let made = Command::new(&program)
        .args(["key", "generate", "--file", "tokencache.key"])
        .current_dir(&directory)
        .status()?;
    ensure!(made.success(), "the broker makes no key");

    // One row of the broker's own; then it ends, so that the others can be written.
    let broker = setup.start_wide(host)?;
    broker.serving()?;
    drop(broker);
    println!("filling the store with {count} rows");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(rows::fill(&directory.join("tokencache.db"), count))?;
    let size = fs::metadata(directory.join("tokencache.db"))?.len();
    println!("the store has {} MiB", size >> 20);

    let calls = host.upstream.calls();
    let begun = now();
    let broker = setup.start_wide(host)?;
    broker.serving()?;
    findings.ready = Some(now() - begun);
    settle(&broker);
    println!("{} MiB after the start", broker.family.memory() >> 20);

    // All of them are asked for in doublings, so that what each costs is seen as it comes.
    let mut loaded = FEW_KEYS;
    broker.ask_all(loaded)?;
    while loaded < count {
        loaded = (loaded * 2).min(count);
        broker.ask_all(loaded)?;
        if loaded > count / 16 {
            findings.doublings.push(doubling(&broker, loaded, effort)?);
        }
    }
    let asked = host.upstream.calls() - calls;
    ensure!(asked == 0, "the broker asked its upstream {asked} times for what is in its store");
    compare(&broker, count, effort, findings)?;
    let memory = broker.family.memory();
    println!("{} MiB with {count} tokens", memory >> 20);
    drop(broker);
    let empty = bare(host)?;
    findings.per_token = Some(memory.saturating_sub(empty) as f64 / f64::from(count) - TOKEN as f64);
    Ok(())
}

/// What a broker takes that holds nothing, and has served as many calls.
fn bare(host: &Host) -> Result<u64> {
    let broker = Tokencached::open("bare").start_wide(host)?;
    broker.serving()?;
    rounds::once(&broker, MANY, Pace::Closed, Keys::warm(1), short(), 0)?;
    Ok(broker.family.memory())
}

/// Waits until the broker has nothing more to do by itself.
fn settle(broker: &Contender) {
    let begun = now();
    let mut before = broker.family.cpu();
    loop {
        thread::sleep(Duration::from_secs(1));
        let after = broker.family.cpu();
        if after - before < Duration::from_millis(100) || begun.elapsed() > PATIENCE {
            return;
        }
        before = after;
    }
}

fn doubling(broker: &Contender, keys: u32, effort: Effort) -> Result<Doubling> {
    let sample = rounds::once(broker, MANY, Pace::Closed, Keys::warm(keys), effort, 0)?;
    Ok(Doubling { keys, cost: sample.cost, memory: broker.family.memory() })
}

/// Hits among all and among few, in turn.
fn compare(broker: &Contender, count: u32, effort: Effort, findings: &mut Findings) -> Result<()> {
    let (mut many, mut few, mut ratios) = (vec![], vec![], vec![]);
    for round in 0..effort.rounds {
        let cost = |keys| {
            Ok::<_, anyhow::Error>(rounds::once(broker, MANY, Pace::Closed, Keys::warm(keys), effort, round)?.cost)
        };
        let (of_few, of_many) = (cost(FEW_KEYS)?, cost(count)?);
        println!("round {}: {of_few:.2} µs among {FEW_KEYS}, {of_many:.2} µs among {count}", round + 1);
        few.push(of_few);
        many.push(of_many);
        ratios.push(of_many / of_few);
    }
    findings.hit_few = Spread::of(few);
    findings.hit_many = Spread::of(many);
    findings.hit_ratio = Some(Spread::of(ratios).context("no rounds")?);
    Ok(())
}

fn short() -> Effort {
    Effort { rounds: 1, warm_up: Duration::from_millis(300), measured: Duration::from_secs(1) }
}
