//! `cargo xtask bugs`: leaves out one rule of the broker after the other, and fails where no test misses it.
//!
//! All of them are in one build (see `server/src/bug.rs`). The tests must pass with every rule in place, and each rule
//! names the tests of which at least one must fail without it.

use std::{collections::BTreeSet, path::PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

use crate::step;

/// The rules, and which tests are run without each.
const BUGS: &[(&str, &str)] = &[
    ("no-fence", "store::memory"),
    ("foreign-lease-released", "store::memory"),
    ("ack-before-commit", "cache::tests::fleet"),
    ("ack-without-waiting", "cache::tests::fleet"),
    ("lease-from-answer", "cache::tests::fleet"),
    ("no-catch-up", "cache::tests::fleet"),
    ("notify-only", "cache::tests::fleet"),
    ("gaps-ignored", "cache::fleet"),
    ("old-token-reinserted", "cache::memory"),
    ("flight-past-floor", "cache::tests::fleet"),
    ("failure-displaces-token", "cache::tests::serving"),
    ("next-attempt-ignored", "cache::tests::serving"),
    ("rotates-without-the-store", "cache::tests::alone"),
    ("previous-dropped", "store::memory"),
    ("candidate-dropped", "store::memory"),
    ("candidates-not-tried", "cache::flight::grant"),
    ("intent-fenced-on-version-alone", "store::memory"),
    ("foreign-intent-ended", "store::memory"),
    ("takeover-without-waiting", "cache::flight::grant"),
    ("invalid-grant-always-believed", "store::memory"),
    ("served-before-commit", "cache::tests::alone"),
    ("served-token-lost", "store::memory"),
];

/// Which rule is left out.
const VARIABLE: &str = "TOKENCACHE_BUG";

/// Builds once, then runs.
pub(crate) fn run() -> Result<()> {
    let tests = build()?;
    let mut missed = Vec::new();
    let filters: BTreeSet<&str> = BUGS.iter().map(|(_, filter)| *filter).collect();
    let mut sound = step::command(&tests);
    sound.args(filters).arg("--quiet").env_remove(VARIABLE);
    step::run("with every rule in place", &mut sound)?;
    for (bug, filter) in BUGS {
        let output = step::command(&tests).arg(filter).env(VARIABLE, bug).env("RUST_BACKTRACE", "0").output();
        let output = output.with_context(|| format!("cannot run {}", tests.display()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(!text.contains("names none of"), "the broker knows no bug {bug}");
        let failed = |line: &str| line.strip_prefix("test ")?.strip_suffix(" ... FAILED").map(str::to_owned);
        let by: Vec<String> = text.lines().filter_map(failed).collect();
        if output.status.success() || by.is_empty() {
            println!("{bug:<28} NOT CAUGHT by {filter}");
            missed.push(*bug);
        } else {
            println!("{bug:<28} caught by {} tests: {}", by.len(), by[0]);
        }
    }
    if missed.is_empty() {
        println!("\nxtask bugs: {} rules left out, each missed by a test", BUGS.len());
        return Ok(());
    }
    bail!("no test misses {}", missed.join(", "))
}

/// The unit tests of the server with all bugs in them.
fn build() -> Result<PathBuf> {
    let mut build = step::cargo();
    // Of the whole workspace, as the tests are: what the server stands on is not compiled again then.
    build.args(["test", "--locked", "--workspace", "--lib", "--features", "tokencache-server/seeded-bugs"]);
    build.args(["--no-run", "--message-format", "json"]);
    println!("\n== build the server's tests with seeded bugs");
    let messages = step::output(&mut build)?;
    // One field of one message: no reason for a parser in a program that is compiled before everything else.
    let executable = |line: &str| Some(PathBuf::from(line.split_once("\"executable\":\"")?.1.split_once('"')?.0));
    let is_server = |line: &&str| line.contains("\"name\":\"tokencache_server\"");
    messages.lines().filter(is_server).filter_map(executable).next_back().context("cargo built no tests of the server")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace_root;

    #[test]
    fn every_rule_that_can_be_left_out_is() {
        let source = std::fs::read_to_string(workspace_root().join("server/src/bug/chosen.rs")).unwrap();
        let name = |line: &str| Some(line.trim().strip_prefix("(\"")?.split('"').next()?.to_owned());
        let known: Vec<String> = source.lines().filter_map(name).collect();
        let here: Vec<&str> = BUGS.iter().map(|(bug, _)| *bug).collect();
        assert_eq!(known, here);
        assert!(here.len() >= 12);
    }
}
