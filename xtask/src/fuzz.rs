//! `cargo xtask fuzz`: what outsiders send to the broker, made up by libFuzzer from the corpora in `fuzz/corpus` on.
//!
//! Without `--runs` the inputs are the same each time (`fuzz/src/short.rs`); with it libFuzzer looks for those that reach
//! something new. Nothing is written to the repository unless that is asked for: what was found is under `target/fuzz/`.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;

use crate::{e2e::target_directory, step, workspace_root};

/// Of cargo-fuzz; pinned as `.ci/run` pins its tools.
const VERSION: &str = "0.13.2";

/// How many inputs a short run has for each target.
const SHORT: u64 = 20_000;

/// Without a sanitizer: no line of the broker is unsafe, and debug assertions and checks of overflows stay on.
const BARE: &str = "--sanitizer=none";

#[derive(Args)]
pub(crate) struct Fuzz {
    /// Let libFuzzer make up so many inputs for each target; without it a short run is made whose inputs are always the same
    #[arg(long)]
    runs: Option<u64>,
    /// Only this target; may be repeated
    #[arg(long = "target", value_name = "NAME")]
    targets: Vec<String>,
    /// Another one leads to other inputs
    #[arg(long, default_value_t = 1)]
    seed: u32,
    /// Add the inputs that reached something new to the corpora
    #[arg(long, requires = "runs")]
    keep: bool,
}

/// Builds all targets, then runs one after the other.
pub(crate) fn run(fuzz: &Fuzz) -> Result<()> {
    let known = targets()?;
    if let Some(unknown) = fuzz.targets.iter().find(|name| !known.contains(name)) {
        bail!("there is no target {unknown}; known: {}", known.join(", "));
    }
    find_tools()?;
    let output = target_directory().join("fuzz");
    let mut build = cargo_fuzz("build");
    build.arg(BARE).arg("--target-dir").arg(&output);
    step::run("build the fuzz targets", &mut build)?;
    let chosen = if fuzz.targets.is_empty() { &known } else { &fuzz.targets };
    for name in chosen {
        Target::new(name, &output)?.run(fuzz)?;
    }
    let runs = fuzz.runs.unwrap_or(SHORT);
    println!("\nxtask fuzz: {} targets, {runs} inputs each, seed {}: no crash", chosen.len(), fuzz.seed);
    Ok(())
}

/// The names of the targets, by their files.
fn targets() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(workspace_root().join("fuzz/fuzz_targets")).context("cannot list the targets")? {
        names.extend(entry?.path().file_stem().and_then(|name| Some(name.to_str()?.to_owned())));
    }
    names.sort();
    Ok(names)
}

/// The nightly compiler has to be there, as only it tells libFuzzer what an input reached. cargo-fuzz is installed, once per
/// machine.
fn find_tools() -> Result<()> {
    if !step::succeeds(nightly().arg("--version")) {
        bail!("NOT RUN: fuzzing needs the nightly toolchain: rustup toolchain install nightly --profile minimal");
    }
    if step::succeeds(&mut cargo_fuzz("--version")) {
        return Ok(());
    }
    let mut install = nightly();
    install.args(["install", "--locked", "--debug", "--version", VERSION, "cargo-fuzz"]);
    step::run("install cargo-fuzz", &mut install)
}

fn cargo_fuzz(command: &str) -> Command {
    let mut cargo = nightly();
    cargo.args(["fuzz", command]);
    cargo
}

/// rustup's cargo, for the toolchain of this chore is another one.
fn nightly() -> Command {
    let mut cargo = step::cargo_named("cargo");
    cargo.arg("+nightly").env_remove("CARGO").env_remove("RUSTUP_TOOLCHAIN");
    cargo
}

struct Target<'a> {
    name: &'a str,
    program: PathBuf,
    corpus: PathBuf,
    /// What the last run found.
    found: PathBuf,
    /// What it said.
    log: PathBuf,
    /// What made the target crash.
    crashes: PathBuf,
}

impl<'a> Target<'a> {
    fn new(name: &'a str, output: &Path) -> Result<Self> {
        let compiler = step::output(step::command("rustc").arg("-vV"))?;
        let host = compiler.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?;
        Ok(Self {
            name,
            program: output.join(host).join("release").join(name),
            corpus: workspace_root().join("fuzz/corpus").join(name),
            found: output.join("found").join(name),
            log: output.join("found").join(format!("{name}.log")),
            crashes: output.join("crashes").join(name),
        })
    }

    fn run(&self, fuzz: &Fuzz) -> Result<()> {
        if self.found.exists() {
            fs::remove_dir_all(&self.found)?;
        }
        for directory in [&self.found, &self.crashes, &self.found.with_extension("tmp")] {
            fs::create_dir_all(directory)?;
        }
        let Some(runs) = fuzz.runs else { return self.run_short(fuzz.seed) };
        let seeds = self.found.with_extension("seeds");
        fs::write(&seeds, self.seeds()?)?;
        let mut program = self.program()?;
        program.arg(format!("-runs={runs}")).arg(format!("-seed={}", fuzz.seed));
        program.arg(format!("-max_len={}", longest(self.name))).arg("-print_final_stats=1");
        program.arg(format!("-seed_inputs=@{}", seeds.display()));
        let dictionary = workspace_root().join("fuzz/dictionaries").join(self.name);
        if dictionary.exists() {
            program.arg(format!("-dict={}", dictionary.display()));
        }
        let log = self.finish(program.arg(&self.found))?;
        println!("{}: {}", self.name, summary(&log).context("libFuzzer did not say what it did")?);
        if fuzz.keep { self.keep() } else { Ok(()) }
    }

    fn run_short(&self, seed: u32) -> Result<()> {
        let crash = self.crashes.join(format!("short-{seed}"));
        let (longest, corpus) = (longest(self.name), self.corpus.display());
        let wish = format!("{SHORT}\n{seed}\n{longest}\n{corpus}\n{}", crash.display());
        let log = self.finish(self.program()?.env("TOKENCACHE_FUZZ_SHORT", wish))?;
        let done = log.lines().find(|line| line.contains(" inputs with the digest "));
        println!("{}: {}", self.name, done.context("the target did not make the short run")?);
        Ok(())
    }

    /// Runs the target to its end; what it said.
    fn finish(&self, program: &mut Command) -> Result<String> {
        let done = step::run(&format!("fuzz {}", self.name), program);
        let log = fs::read_to_string(&self.log)?;
        if done.is_ok() {
            return Ok(log);
        }
        let lines: Vec<_> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(40)..].join("\n");
        bail!("{} crashed; the input is in {}\n{tail}", self.name, self.crashes.display());
    }

    /// The corpus in one order everywhere, which that of a directory is not.
    fn seeds(&self) -> Result<String> {
        let entries = fs::read_dir(&self.corpus).with_context(|| format!("{} has no corpus", self.name))?;
        let mut files = entries.map(|entry| Ok(entry?.path().display().to_string())).collect::<Result<Vec<_>>>()?;
        ensure!(!files.is_empty(), "the corpus of {} is empty", self.name);
        files.sort();
        Ok(files.join(","))
    }

    /// Adds what reaches edges that nothing in the corpus reaches. What is there stays: it may stand for a value.
    fn keep(&self) -> Result<()> {
        let mut merge = self.program()?;
        merge.args(["-merge=1", "-use_counters=0"]).arg(format!("-max_len={}", longest(self.name)));
        step::run(&format!("add to the corpus of {}", self.name), merge.arg(&self.corpus).arg(&self.found))
    }

    fn program(&self) -> Result<Command> {
        let mut program = step::command(&self.program);
        program.arg(format!("-artifact_prefix={}/", self.crashes.display()));
        // No certificate authorities: the system's take milliseconds to load, for each HTTP client that a file asks for.
        program.env("SSL_CERT_FILE", "/dev/null").env("SSL_CERT_DIR", "/nonexistent");
        program.env("TMPDIR", self.found.with_extension("tmp"));
        let log = File::create(&self.log).context("cannot write a log")?;
        program.stdout(log.try_clone()?).stderr(log);
        Ok(program)
    }
}

/// The longest input, in bytes. Where more means only more of the same, the time is better spent on more inputs.
fn longest(name: &str) -> u32 {
    match name {
        "retry_after" => 64,
        "policy_pattern" => 128,
        "sealed_blob" => 256,
        "certificate" => 512,
        _ => 1024,
    }
}

/// How many inputs there were, and what they reached.
fn summary(log: &str) -> Option<String> {
    let done = log.lines().rev().find(|line| line.starts_with('#') && line.contains("DONE"))?;
    let after = |word: &str| done.split_once(word).and_then(|(_, rest)| rest.split_whitespace().next());
    let runs = done.trim_start_matches('#').split_whitespace().next()?;
    let rate = after("exec/s:")?;
    Some(format!(
        "{runs} inputs, {rate} a second, {} edges and {} features in {} inputs",
        after("cov:")?,
        after("ft:")?,
        after("corp:")?
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_has_a_corpus_that_is_small_and_is_a_program_of_the_package() {
        let manifest = fs::read_to_string(workspace_root().join("fuzz/Cargo.toml")).unwrap();
        let names = targets().unwrap();
        assert!(names.len() >= 6, "{names:?}");
        let mut all = 0;
        for name in &names {
            assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
            let corpus = fs::read_dir(workspace_root().join("fuzz/corpus").join(name)).expect(name);
            let sizes: Vec<u64> = corpus.map(|entry| entry.unwrap().metadata().unwrap().len()).collect();
            assert!(!sizes.is_empty(), "{name}");
            all += sizes.iter().sum::<u64>();
        }
        assert!(all < 1024 * 1024, "the corpora have {all} bytes");
    }

    #[test]
    fn the_last_line_of_a_run_is_understood() {
        let log = "INFO: Seed: 1\n#2\tINITED cov: 5 ft: 6 corp: 1/1b exec/s: 0 rss: 30Mb\n\
                   #20000\tDONE   cov: 512 ft: 900 corp: 80/3Kb lim: 2048 exec/s: 10000 rss: 40Mb\n\
                   stat::number_of_executed_units: 20000\n";
        let expected = "20000 inputs, 10000 a second, 512 edges and 900 features in 80/3Kb inputs";
        assert_eq!(summary(log).as_deref(), Some(expected));
        assert_eq!(summary("INFO: Seed: 1\n==1==ERROR: libFuzzer: deadly signal\n"), None);
    }
}
