//! How the broker grows: a million tokens, ten thousand watchers, a hundred thousand credentials refreshed ahead.

mod refreshing;
mod rows;
mod tokens;
mod watching;

use std::{fmt::Write as _, fs, path::Path, time::Duration};

use anyhow::Result;
use clap::{ArgAction, ValueEnum};

use self::refreshing::Refreshed;
use crate::{
    Args,
    contenders::Host,
    figures::Spread,
    machine,
    rounds::{Effort, MANY},
    target::{self, Target},
};

/// How the broker grows.
#[derive(Debug, clap::Args)]
pub(crate) struct Scale {
    /// A hundredth of everything: to see that it works
    #[arg(long)]
    quick: bool,
    /// Only this part; may be repeated
    #[arg(long, value_enum, action = ArgAction::Append)]
    only: Vec<Part>,
    /// How many tokens
    #[arg(long, default_value_t = 1_000_000)]
    tokens: u32,
    /// How many watch streams, a hundred on each connection
    #[arg(long, default_value_t = 10_000)]
    watches: usize,
    /// How many credentials are refreshed ahead
    #[arg(long, default_value_t = 100_000)]
    credentials: u32,
    /// For how many seconds their tokens are valid
    #[arg(long, default_value_t = 360)]
    lifetime: u64,
    /// How many rounds
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Not written into the report's directory, but only printed
    #[arg(long)]
    dry_run: bool,
}

/// A part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Memory and CPU with many tokens, and the start with as many rows
    Tokens,
    /// Memory of watchers, and how soon they hear
    Watches,
    /// Refreshing ahead
    Refreshes,
}

/// What a broker with so many tokens takes.
#[derive(Clone, Copy, Debug)]
struct Doubling {
    keys: u32,
    /// Microseconds of a hit among them.
    cost: f64,
    memory: u64,
}

/// What was measured. What is `None` was not.
#[derive(Debug, Default)]
struct Findings {
    /// From the start to the first right answer, with all rows in the store.
    ready: Option<Duration>,
    /// Bytes, beyond the token itself.
    per_token: Option<f64>,
    /// Microseconds of a hit, among few keys and among all.
    hit_few: Option<Spread>,
    hit_many: Option<Spread>,
    hit_ratio: Option<Spread>,
    doublings: Vec<Doubling>,
    /// Bytes.
    per_watch: Option<f64>,
    /// Milliseconds from the upstream's answer to the last watcher's message.
    fan_out: Option<Spread>,
    /// Messages of a burst that arrived, and all.
    burst: Option<(u64, u64)>,
    refreshed: Option<Refreshed>,
}

impl Scale {
    /// Measures and reports.
    pub(crate) fn run(&self, args: &Args) -> Result<()> {
        let machine = machine::describe();
        println!("{machine}");
        let host = Host::new(args.binaries.canonicalize()?, 0)?;
        machine::pin(host.cores.generator)?;
        let part = if self.quick { 100 } else { 1 };
        let measured = Duration::from_secs(if self.quick { 1 } else { 3 });
        let effort = Effort { rounds: self.rounds, warm_up: Duration::from_millis(500), measured };
        let mut findings = Findings::default();
        if self.has(Part::Tokens) {
            tokens::measure(&host, self.tokens / part, effort, &mut findings)?;
        }
        if self.has(Part::Watches) {
            watching::measure(&host, self.watches / part as usize, self.rounds, &mut findings)?;
        }
        if self.has(Part::Refreshes) {
            let lifetime = Duration::from_secs(if self.quick { 30 } else { self.lifetime });
            refreshing::measure(&host, self.credentials / part, lifetime, &mut findings)?;
        }
        println!("\n{}", target::table(&self.targets(&findings)));
        if !self.quick && !self.dry_run && self.only.is_empty() {
            self.write(&args.output, &machine, &findings)?;
        }
        Ok(())
    }

    /// What has to be typed to do this again.
    fn command(&self) -> String {
        let Self { tokens, watches, credentials, lifetime, rounds, .. } = self;
        format!(
            "cargo xtask bench scale --tokens {tokens} --watches {watches} --credentials {credentials} --lifetime {lifetime} \
             --rounds {rounds}"
        )
    }

    fn has(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    fn targets(&self, findings: &Findings) -> Vec<Target> {
        let median = |spread: Option<Spread>| spread.map(|spread| spread.median);
        let lost = findings.burst.map(|(arrived, all)| all as f64 - arrived as f64);
        let refreshed = findings.refreshed.as_ref();
        let (tokens, watches, credentials) = (self.tokens, self.watches, self.credentials);
        vec![
            Target::at_most(
                format!("memory of a cached token beyond itself, {tokens} of them"),
                800.0,
                findings.per_token,
            )
            .in_unit(" B", 0),
            Target::at_most(format!("CPU of a hit among {tokens} keys vs 1,000"), 1.2, median(findings.hit_ratio)),
            Target::at_most(
                format!("memory of a watch stream, {watches} over {} connections", watches / 100),
                4096.0,
                findings.per_watch,
            )
            .in_unit(" B", 0),
            Target::at_most(
                format!("a replacement reaches the last of {watches} watchers"),
                70.0,
                median(findings.fan_out),
            )
            .in_unit(" ms", 0),
            Target::at_most("messages that a burst of 50 loses", 0.0, lost).in_unit("", 0),
            Target::at_most(
                format!("refreshing {credentials} credentials with 1 h tokens, of a core"),
                5.0,
                refreshed.map(|refreshed| refreshed.share() * 100.0),
            )
            .in_unit(" %", 1),
            Target::at_most("their peak second vs the mean", 3.0, refreshed.map(Refreshed::peak)),
        ]
    }

    fn write(&self, directory: &Path, machine: &str, findings: &Findings) -> Result<()> {
        fs::create_dir_all(directory)?;
        let mut text = format!(
            "# Growth\n\nMade by `{}` on {machine}. The server has one core and the generator another \
             one. How it is measured is told in [README.md](README.md).\n\n{}",
            self.command(),
            target::table(&self.targets(findings))
        );
        text.push_str(&self.tokens_text(findings));
        text.push_str(&self.watches_text(findings));
        text.push_str(&refreshes_text(findings));
        Ok(fs::write(directory.join("scale.md"), text)?)
    }

    fn tokens_text(&self, findings: &Findings) -> String {
        let show = |spread: Option<Spread>| spread.map_or_else(|| "–".to_owned(), |spread| spread.show(2));
        let mut text = format!(
            "\n## Tokens\n\nA SQLite store holds {} rows. From the start of the process to its first right answer it takes \
             {:.2} s; the rows are read meanwhile and afterwards. What a token costs in memory, all that the broker keeps \
             of it included (its place on the schedule, too), is the resident memory of the broker with all of them, less \
             that of one with none, less the 900 bytes of the token. A hit costs {} µs among 1,000 keys and {} µs among all, \
             {} shape.\n\n| keys | CPU of a hit, µs | resident, MiB |\n|---|---|---|\n",
            self.tokens,
            findings.ready.unwrap_or_default().as_secs_f64(),
            show(findings.hit_few),
            show(findings.hit_many),
            MANY
        );
        for Doubling { keys, cost, memory } in &findings.doublings {
            // Writing to a string does not fail.
            let _ = writeln!(text, "| {keys} | {cost:.2} | {} |", memory >> 20);
        }
        text
    }

    fn watches_text(&self, findings: &Findings) -> String {
        let fan_out = findings.fan_out.map_or_else(|| "–".to_owned(), |spread| spread.show(1));
        let (arrived, all) = findings.burst.unwrap_or_default();
        format!(
            "\n## Watchers\n\n{} streams on {} connections watch one token. Each costs {:.0} bytes, its share of its connection \
             included. From the upstream's answer to the last stream's message it takes {fan_out} ms. Then all of them watch \
             50 tokens that are replaced at once: {arrived} of {all} messages arrived.\n",
            self.watches,
            self.watches / 100,
            findings.per_watch.unwrap_or_default()
        )
    }
}

fn refreshes_text(findings: &Findings) -> String {
    let Some(refreshed) = &findings.refreshed else { return String::new() };
    let (lifetime, factor) = (refreshed.lifetime.as_secs(), 3600.0 / refreshed.lifetime.as_secs_f64());
    format!(
        "\n## Refreshing ahead\n\n{} credentials, whose tokens were all minted within {:.0} s at first; the broker had started \
         within {:.1} s. Their tokens live for {lifetime} s instead of an hour, and the refresh window is as much shorter, so \
         that what takes an hour passes in {lifetime} s: {factor:.0} times as many refreshes a second. A refresh costs {:.0} \
         µs of CPU, which at an hour is {:.2} % of a core. The busiest second had {} refreshes, {:.1} times the mean. Minting \
         took as long here as it would with tokens of an hour, so it spreads them {factor:.0} times as much.\n",
        refreshed.credentials,
        refreshed.minting.as_secs_f64(),
        refreshed.start.as_secs_f64(),
        refreshed.cost,
        refreshed.share() * 100.0,
        refreshed.seconds.iter().max().copied().unwrap_or(0),
        refreshed.peak()
    )
}
