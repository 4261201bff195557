//! The report: one Markdown file and one chart.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use anyhow::Result;

use crate::{
    chart::{self, Bar, Group},
    contenders::Name,
    extras::{Herd, Rated},
    figures::Spread,
    rounds::{Effort, FEW, MANY, Sample, Samples, Shape, WIDE},
    run::Missing,
    target::{self, Target},
};

const LATE_TONIC: &str = "stock tonic with as many late calls";

/// Everything that was measured.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) machine: String,
    pub(crate) command: String,
    pub(crate) effort: Effort,
    pub(crate) keys: u32,
    pub(crate) samples: Samples,
    /// Resident memory in bytes, after the rounds.
    pub(crate) memory: BTreeMap<Name, u64>,
    pub(crate) rated: Vec<Rated>,
    pub(crate) herd: Option<Herd>,
    /// Nanoseconds that a client's read takes, and a round trip to Redis.
    pub(crate) client_read: Option<f64>,
    pub(crate) redis_trip: Option<Spread>,
    pub(crate) missing: Missing,
}

impl Report {
    /// Writes `README.md` and `cpu-per-request.svg`.
    pub(crate) fn write(&self, directory: &Path) -> Result<()> {
        fs::create_dir_all(directory)?;
        fs::write(directory.join("cpu-per-request.svg"), self.chart())?;
        Ok(fs::write(directory.join("README.md"), self.markdown())?)
    }

    /// The costs of a contender over those of another, round by round.
    pub(crate) fn ratio(&self, shape: Shape, of: Name, base: Name, figure: fn(&Sample) -> f64) -> Option<Spread> {
        let (of, base) = (self.samples.get(&(shape, of))?, self.samples.get(&(shape, base))?);
        Spread::of(of.iter().zip(base).map(|(of, base)| figure(of) / figure(base)))
    }

    /// What was promised, with what this run measured of it.
    pub(crate) fn targets(&self) -> Vec<Target> {
        let cost = |shape, of, base| self.ratio(shape, of, base, |sample| sample.cost).map(|spread| spread.median);
        let broker = Name::Tokencached;
        let over_tls = |shape| cost(shape, Name::TokencachedTls, Name::TonicTls);
        let (few, many) = (cost(FEW, broker, Name::Tonic), cost(MANY, broker, Name::Tonic));
        let within = |plain: Option<f64>, tls: Option<f64>| Some(tls? / plain?);
        let throughput = self.ratio(MANY, broker, Name::Tonic, |sample| sample.throughput);
        let mut targets = vec![
            Target::at_most("hit, CPU per request vs stock tonic, 16 × 1", 0.85, few),
            Target::at_most("hit, CPU per request vs stock tonic, 64 × 32", 0.60, many),
            Target::at_most("that ratio over TLS 1.3, vs without, 16 × 1", 1.10, within(few, over_tls(FEW))),
            Target::at_most("that ratio over TLS 1.3, vs without, 64 × 32", 1.10, within(many, over_tls(MANY))),
            Target::at_least("throughput vs stock tonic, 64 × 32", 1.5, throughput.map(|spread| spread.median)),
        ];
        for shape in [FEW, MANY] {
            let added = cost(shape, Name::TokencachedMtls, Name::TokencachedTls);
            let what =
                format!("client certificates + grants + audit file, CPU per request vs without, TLS 1.3, {shape}");
            targets.push(Target::at_most(what, 1.25, added));
        }
        for rated in &self.rated {
            let with = if rated.misses { ", 10 % misses of 100 ms" } else { "" };
            for (name, figure) in [("p50", (|s| s.p50) as fn(&Sample) -> f64), ("p99", |s| s.p99)] {
                let what = format!("{name} vs stock tonic at {} a second, {}{with}", rated.rate, rated.shape);
                targets.push(Target::at_most(what, 1.0, rated.ratio(figure).map(|spread| spread.median)));
            }
        }
        let etcd = |shape| cost(shape, Name::Etcd, broker);
        let postgres = |shape| cost(shape, Name::Postgres, broker);
        let read = self.redis_trip.and_then(|trip| Some(trip.median / self.client_read?));
        let herd = self.herd.as_ref();
        let upstream_took = herd.map_or(100.0, |herd| herd.upstream_took.as_secs_f64() * 1e3);
        targets.extend([
            Target::at_least("throughput per CPU second vs etcd Range, 16 × 1", 7.0, etcd(FEW)),
            Target::at_least("throughput per CPU second vs etcd Range, 64 × 32", 7.0, etcd(MANY)),
            Target::at_least("throughput per CPU second vs PostgreSQL, 16 × 1", 1.8, postgres(FEW)),
            Target::at_least("throughput per CPU second vs PostgreSQL, 64 × 1", 3.5, postgres(WIDE)),
            Target::at_most("CPU per request vs Redis GET, 16 × 1", 2.4, cost(FEW, broker, Name::Redis)),
            Target::at_least("a client's read of its copy vs a Redis round trip", 1000.0, read).in_unit("×", 0),
            Target::at_most("a herd on a cold key: upstream calls", 1.0, herd.map(|herd| herd.upstream as f64))
                .in_unit("", 0),
            Target::at_most(
                "a herd on a cold key: the last answer",
                upstream_took + 100.0,
                herd.map(|herd| herd.took.median),
            )
            .in_unit(" ms", 0),
        ]);
        targets
    }

    /// What the protocol itself leaves room for, beside those that have one of their own.
    fn floor(&self) -> Option<String> {
        let cost = |shape, of, base| Some(self.ratio(shape, of, base, |sample| sample.cost)?.median);
        let postgres = |shape| cost(shape, Name::Postgres, Name::Nginx);
        let (few, wide, redis) = (postgres(FEW)?, postgres(WIDE)?, cost(FEW, Name::Nginx, Name::Redis)?);
        Some(format!(
            "\nFor comparison, what HTTP/2 leaves room for: nginx, which answers each call with the same constant, has {few:.2}× \
             and {wide:.2}× the throughput per CPU second of PostgreSQL (16 × 1 and 64 × 1), and takes {redis:.2}× the CPU of \
             Redis per request (16 × 1).\n"
        ))
    }

    /// What calls that have to wait do to those beside them, in a server that does nothing for them.
    fn beside_late_calls(&self) -> Option<String> {
        let rated = self.rated.iter().find(|rated| !rated.late_tonic.is_empty())?;
        let [p50, p99] = [|sample: &Sample| sample.p50, |sample: &Sample| sample.p99];
        let (to_p50, to_p99) = (rated.ratio_to_late(p50)?.median, rated.ratio_to_late(p99)?.median);
        Some(format!(
            "\nStock tonic has no misses, so that the limit asks of the broker that its own disturb no hit. Beside {LATE_TONIC} \
             it has a p50 of {to_p50:.2}× and a p99 of {to_p99:.2}×.\n"
        ))
    }

    fn markdown(&self) -> String {
        let mut text =
            format!("# Benchmarks\n\nMade by `{}` on {}.\n\n{}\n", self.command, self.machine, self.method());
        text.push_str("\n## What was promised\n\n");
        text.push_str(&target::table(&self.targets()));
        text.push_str(&self.floor().unwrap_or_default());
        text.push_str(&self.beside_late_calls().unwrap_or_default());
        text.push_str("\n## Server CPU per request\n\n![CPU per request](cpu-per-request.svg)\n");
        text.push_str(&self.tables());
        text.push_str("\n## Missing\n\n");
        if self.missing.is_empty() {
            text.push_str("Nobody: all contenders were there.\n");
        }
        for (name, why) in &self.missing {
            let _ = writeln!(text, "- {}: {why}", name.about());
        }
        text
    }

    /// All that was measured, as tables.
    pub(crate) fn tables(&self) -> String {
        let mut text: String = [FEW, WIDE, MANY].iter().map(|shape| self.table(*shape)).collect();
        text.push_str(&self.latencies());
        text.push_str(&self.others());
        text
    }

    fn method(&self) -> String {
        let Effort { rounds, measured, .. } = self.effort;
        let (keys, seconds) = (self.keys, measured.as_secs_f64());
        format!(
            "The server has one core and the generator another one. In each of {rounds} rounds every contender has its turn \
             of {seconds} s under the same load; the figures are medians over the rounds, with the least and the most. CPU is \
             the server's, user's and system's, as the kernel counts it for all its processes. Every request asks for one \
             of {keys} keys at random, and every answer is checked: its status, its length, and that the token of 900 bytes \
             in it is the one of that key. The stand-ins (tonic, hyper, nginx) answer with the same bytes whatever is asked. \
             N × M: N connections with M calls in progress on each, a closed loop. Ratios are taken in each round, against \
             stock tonic, over TLS against stock tonic over TLS."
        )
    }

    fn table(&self, shape: Shape) -> String {
        let rows: Vec<_> = self.samples.iter().filter(|((of, _), _)| *of == shape).collect();
        if rows.is_empty() {
            return String::new();
        }
        let mut text = format!(
            "\n### {shape}\n\n| | CPU per request, µs | ratio | requests a second | server's core | p50, µs | p99, µs | \
             answer | memory |\n|---|---|---|---|---|---|---|---|---|\n"
        );
        for ((_, name), samples) in rows {
            let show = |figure: fn(&Sample) -> f64, decimals| {
                Spread::of(samples.iter().map(figure)).map_or_else(String::new, |spread| spread.show(decimals))
            };
            let median = |figure: fn(&Sample) -> f64| Spread::of(samples.iter().map(figure)).map_or(0.0, |s| s.median);
            let ratio = self.ratio(shape, *name, name.base(), |sample| sample.cost);
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {:.0} % | {:.0} | {:.0} | {:.0} B | {:.1} MiB |",
                name.about(),
                show(|sample| sample.cost, 2),
                ratio.map_or_else(|| "–".into(), |ratio| ratio.show(2)),
                show(|sample| sample.throughput, 0),
                median(|sample| sample.load) * 100.0,
                median(|sample| sample.p50),
                median(|sample| sample.p99),
                median(|sample| sample.bytes),
                self.memory.get(name).copied().unwrap_or(0) as f64 / f64::from(1 << 20),
            );
        }
        text
    }

    fn latencies(&self) -> String {
        let mut text =
            "\n## Latency at a fixed rate\n\nOne call is due in each interval, at a random moment of it. Its time \
                        counts from when it was due, not from when it could be sent. Of the broker with misses the hits \
                        count; stock tonic has none. Where it has late calls, they have to wait for as long as a miss, but \
                        for a timer alone, and do not count either; no token is looked for in what it answers.\n\n\
                        | | calls a second | who | p50, µs | p99, µs | worst, µs | server's core |\n|---|---|---|---|---|---|---|\n"
                .to_owned();
        for rated in &self.rated {
            let with = if rated.misses { ", 10 % misses of 100 ms" } else { "" };
            let late = (LATE_TONIC, &rated.late_tonic);
            let all = [("tokencached", &rated.tokencached), ("stock tonic", &rated.tonic), late];
            for (who, samples) in all.into_iter().filter(|(_, samples)| !samples.is_empty()) {
                let show = |figure: fn(&Sample) -> f64| {
                    Spread::of(samples.iter().map(figure)).map_or_else(String::new, |spread| spread.show(0))
                };
                let _ = writeln!(
                    text,
                    "| {}{with} | {} | {who} | {} | {} | {} | {} % |",
                    rated.shape,
                    rated.rate,
                    show(|sample| sample.p50),
                    show(|sample| sample.p99),
                    show(|sample| sample.worst),
                    show(|sample| sample.load * 100.0)
                );
            }
        }
        if self.rated.is_empty() { String::new() } else { text }
    }

    fn others(&self) -> String {
        let mut text = String::new();
        if let Some(Herd { clients, upstream, took, upstream_took }) = &self.herd {
            let _ = write!(
                text,
                "\n## A herd\n\n{clients} calls for one cold key at once, over 100 connections, with an upstream that takes \
                 {} ms: {upstream} upstream call, the last answer after {} ms.\n",
                upstream_took.as_millis(),
                took.show(0)
            );
        }
        if let (Some(read), Some(trip)) = (self.client_read, self.redis_trip) {
            let _ = write!(
                text,
                "\n## A client that keeps its copy\n\nA unary gRPC call cannot beat Redis' protocol. A client need not make \
                 one: `TokenSource::current` takes {read:.1} ns, a round trip to Redis and back, alone on its connection, \
                 {} µs.\n",
                Spread { least: trip.least / 1e3, median: trip.median / 1e3, most: trip.most / 1e3 }.show(1)
            );
        }
        text
    }

    fn chart(&self) -> String {
        let group = |shape: Shape| {
            let of = self.samples.iter().filter(|((of, _), _)| *of == shape);
            let bars = of.filter_map(|((_, name), samples)| {
                let Spread { least, median, most } = Spread::of(samples.iter().map(|sample| sample.cost))?;
                let ours = matches!(name, Name::Tokencached | Name::TokencachedTls | Name::TokencachedMtls);
                Some(Bar { label: name.about().into(), least, value: median, most, ours })
            });
            Group { title: format!("{shape} (connections × calls in progress)"), bars: bars.collect() }
        };
        let groups: Vec<Group> =
            [FEW, WIDE, MANY].map(group).into_iter().filter(|group| !group.bars.is_empty()).collect();
        chart::draw("Server CPU per request: median of the rounds, with the least and the most", "µs", &groups)
    }
}
