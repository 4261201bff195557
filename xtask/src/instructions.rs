//! `cargo xtask instructions`: how many instructions a hit takes, and its pieces, beside what is recorded in
//! `server/benches/instructions.txt`. A busy machine disturbs times, and not this.
//!
//! Each piece is run twice under callgrind, for different counts: the difference leaves out the start of the program.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::{step, workspace_root};

/// Where it is recorded, a line for each piece: its name and a number.
const RECORD: &str = "server/benches/instructions.txt";

/// The pieces, as `server/benches/hit.rs` names them.
const PIECES: [&str; 9] =
    ["hit", "unusual", "key-hashing", "memory", "freshness", "counting", "encoding", "sealing", "opening"];

/// How often each piece is done: the first time, and the second.
const COUNTS: [u64; 2] = [500, 2500];

/// How many more than are recorded are too many, in hundredths.
const TOLERANCE: u64 = 5;

/// Compares, or with `record` writes down what there is now.
pub(crate) fn run(record: bool) -> Result<()> {
    if !step::succeeds(step::command("valgrind").arg("--version")) {
        println!(
            "xtask instructions: NOT RUN: there is no valgrind on this machine (Debian: apt-get install valgrind)"
        );
        return Ok(());
    }
    let bench = build()?;
    let file = workspace_root().join(RECORD);
    // It depends on the compiler, and is made anew with each: `--record`.
    let recorded = fs::read_to_string(&file).unwrap_or_default();
    let (recorded, mut counted) = (read(&recorded)?, BTreeMap::new());
    for piece in PIECES {
        counted.insert(piece, count(&bench, piece)?);
    }
    let verdicts = PIECES.map(|piece| judge(piece, recorded.get(piece).copied(), counted[piece]));
    verdicts.iter().for_each(|(text, _)| println!("{text}"));
    if record {
        let lines = counted.iter().map(|(piece, count)| format!("{piece} {count}\n"));
        fs::write(&file, lines.collect::<String>()).with_context(|| format!("cannot write {RECORD}"))?;
    } else if verdicts.iter().any(|(_, too_many)| *too_many) {
        bail!("more instructions than are recorded: mend it, or record them with --record and say why");
    }
    Ok(())
}

/// Builds the benchmark; its path.
fn build() -> Result<PathBuf> {
    let mut cargo = step::cargo();
    cargo.args(["bench", "--locked", "--package", "tokencache-server", "--bench", "hit", "--no-run"]);
    let messages = step::output(cargo.arg("--message-format=json-render-diagnostics"))?;
    let mut executables = messages.lines().filter_map(|line| line.split_once("\"executable\":\"")?.1.split('"').next());
    executables.next_back().map(PathBuf::from).context("cargo built no benchmark")
}

/// The instructions that a piece takes each time.
fn count(bench: &Path, piece: &str) -> Result<u64> {
    let [few, many] = COUNTS.map(|count| collected(bench, piece, count));
    Ok((many?.saturating_sub(few?)) / (COUNTS[1] - COUNTS[0]))
}

/// What callgrind counts of a whole run.
fn collected(bench: &Path, piece: &str, count: u64) -> Result<u64> {
    let mut valgrind = step::command("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(bench);
    let output = valgrind.args(["--repeat", piece, &count.to_string()]).output().context("cannot run valgrind")?;
    let told = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("{piece} under callgrind ended with {}: {}", output.status, told.trim());
    }
    let line = told.lines().find_map(|line| line.split_once("Collected : ")).context("callgrind told no count")?;
    line.1.trim().parse().context("callgrind's count is no number")
}

fn read(text: &str) -> Result<BTreeMap<String, u64>> {
    let line = |line: &str| -> Result<(String, u64)> {
        let (piece, count) = line.split_once(' ').with_context(|| format!("{RECORD}: {line}"))?;
        Ok((piece.to_owned(), count.parse().with_context(|| format!("{RECORD}: {line}"))?))
    };
    text.lines().map(line).collect()
}

/// What to say of a piece, and whether it takes too many.
fn judge(piece: &str, before: Option<u64>, now: u64) -> (String, bool) {
    let Some(before) = before else {
        return (format!("{piece}: {now} instructions, NOT COMPARED: nothing is recorded in {RECORD}"), false);
    };
    let too_many = now * 100 > before * (100 + TOLERANCE);
    let remark = if too_many { ": TOO MANY" } else { "" };
    (format!("{piece}: {now} instructions, {before} recorded{remark}"), too_many)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_hundredths_more_are_bearable_and_six_are_not() {
        assert!(!judge("hit", Some(1000), 1050).1);
        assert!(judge("hit", Some(1000), 1051).1);
        assert!(!judge("hit", Some(1000), 10).1);
        assert!(judge("hit", None, 10).0.contains("NOT COMPARED"));
        assert_eq!(judge("hit", Some(1000), 1100).0, "hit: 1100 instructions, 1000 recorded: TOO MANY");
    }

    #[test]
    fn a_record_is_read_line_by_line() {
        let record = read("hit 4000\nmemory 300\n").unwrap();
        assert_eq!((record["hit"], record["memory"]), (4000, 300));
        assert!(read("hit\n").is_err() && read("hit many\n").is_err());
    }
}
