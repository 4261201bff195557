//! The comparison: starts the contenders, runs the rounds, writes the report.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Result, ensure};
use clap::{ArgAction, ValueEnum as _};

use crate::{
    Args,
    contenders::{self, Contender, Host, Name},
    extras::{self, Rated},
    machine,
    report::Report,
    rounds::{self, Effort, FEW, MANY},
    target,
};

/// With misses among the calls the rate is lower: a miss costs many times what a hit costs, and a broker that has too
/// little CPU says nothing about how hits fare beside misses.
const RATE_WITH_MISSES: f64 = 4000.0;

/// Who is not there, and why.
pub(crate) type Missing = Vec<(Name, String)>;

/// The comparison.
#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    /// Short rounds, few of them: to see that it works, not to compare
    #[arg(long)]
    quick: bool,
    /// Only this contender, in closed loops; may be repeated. Nothing is written
    #[arg(long, value_enum, action = ArgAction::Append)]
    only: Vec<Name>,
    /// Only what is measured beside the rounds, hits alone at so many calls a second. Nothing is written
    #[arg(long, conflicts_with = "only")]
    rate: Option<f64>,
    /// How many rounds
    #[arg(long)]
    rounds: Option<usize>,
    /// How many seconds of each contender's turn count
    #[arg(long)]
    seconds: Option<f64>,
    /// How many keys there are
    #[arg(long, default_value_t = 10_000)]
    keys: u32,
}

impl Run {
    /// Measures and reports.
    pub(crate) fn run(&self, args: &Args) -> Result<()> {
        ensure!(self.rate.is_none_or(|rate| rate > 0.0 && rate.is_finite()), "--rate is a number above 0");
        let machine = machine::describe();
        println!("{machine}");
        let host = Host::new(args.binaries.canonicalize()?, self.keys)?;
        machine::pin(host.cores.generator)?;
        if host.cores.shared() {
            println!("there is one core only: the generator takes its time from the servers");
        }
        let effort = self.effort();
        let (contenders, missing) = self.start(&host)?;
        let samples = match self.rate {
            None => rounds::closed(&contenders, self.keys, effort, |line| println!("{line}"))?,
            Some(_) => BTreeMap::new(),
        };
        let mut report = Report {
            machine,
            command: self.command(),
            effort,
            keys: self.keys,
            samples,
            memory: contenders.iter().map(|contender| (contender.name, contender.family.memory())).collect(),
            rated: vec![],
            herd: None,
            client_read: None,
            redis_trip: None,
            missing,
        };
        if self.only.is_empty() {
            self.extras(&host, &contenders, &mut report)?;
        }
        println!("\n{}\n{}", report.tables(), target::table(&report.targets()));
        for (name, why) in &report.missing {
            println!("missing: {}: {why}", name.about());
        }
        if self.only.is_empty() && self.rate.is_none() {
            report.write(&args.output)?;
            println!("written to {}", args.output.display());
        }
        Ok(())
    }

    /// What is measured beside the rounds.
    fn extras(&self, host: &Host, contenders: &[Contender], report: &mut Report) -> Result<()> {
        let effort = report.effort;
        let find = |name| contenders.iter().find(|contender| contender.name == name);
        for shape in [FEW, MANY] {
            let Some(rate) = self.rate.or_else(|| extras::moderate(&report.samples, shape)) else { continue };
            println!("latency at {rate} a second, {shape}");
            report.rated.extend(extras::rated(contenders, self.keys, shape, rate, effort)?);
        }
        if let Some(tonic) = find(Name::Tonic) {
            println!("latency beside misses");
            let rated: Rated = extras::with_misses(host, tonic, MANY, RATE_WITH_MISSES, effort)?;
            report.rated.push(rated);
        }
        println!("a herd");
        report.herd = Some(extras::herd(host, effort.rounds)?);
        if let Some(broker) = find(Name::Tokencached) {
            report.client_read = Some(extras::client_read(broker)?);
        }
        if let Some(redis) = find(Name::Redis) {
            report.redis_trip = Some(extras::redis_round_trip(redis, self.keys, effort)?);
        }
        Ok(())
    }

    fn effort(&self) -> Effort {
        let (rounds, seconds) = if self.quick { (3, 1.0) } else { (5, 3.0) };
        let measured = Duration::from_secs_f64(self.seconds.unwrap_or(seconds));
        Effort { rounds: self.rounds.unwrap_or(rounds), warm_up: Duration::from_millis(500), measured }
    }

    /// What has to be typed to do this again.
    fn command(&self) -> String {
        let Effort { rounds, measured, .. } = self.effort();
        format!("cargo xtask bench --rounds {rounds} --seconds {} --keys {}", measured.as_secs_f64(), self.keys)
    }

    /// Starts them, and has each answer for every key. What cannot be started is named, with the reason.
    fn start(&self, host: &Host) -> Result<(Vec<Contender>, Missing)> {
        let (mut there, mut missing) = (vec![], vec![]);
        for name in Name::value_variants() {
            let beside = [Name::Tokencached, Name::Tonic, Name::Redis];
            let wanted = if self.rate.is_some() { &beside[..] } else { &self.only };
            if !wanted.is_empty() && !wanted.contains(name) {
                continue;
            }
            println!("starting {}", name.about());
            match contenders::start(*name, host) {
                Ok(contender) => {
                    contender.serving()?;
                    contender.ask_all(self.keys)?;
                    there.push(contender);
                }
                Err(error) => missing.push((*name, format!("{error:#}"))),
            }
        }
        ensure!(!there.is_empty(), "there is nothing to measure: {missing:?}");
        Ok((there, missing))
    }
}
