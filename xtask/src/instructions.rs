//! `cargo xtask instructions`: how many instructions a hit takes, and its pieces, beside what is recorded in
//! `server/benches/instructions.txt`. A busy machine disturbs times, and not this.
//!
//! Each piece is run under callgrind, which counts in one function of the benchmark alone: the start of the program takes
//! now more and now less.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::{step, workspace_root};

/// Where it is recorded. Of each processor, for some code is chosen by what that can do, a paragraph: the compiler and the
/// processor, then a line for each piece with its name and a number.
const RECORD: &str = "server/benches/instructions.txt";

/// The pieces, as `server/benches/hit.rs` names them.
const PIECES: [&str; 9] =
    ["hit", "unusual", "key-hashing", "memory", "freshness", "counting", "encoding", "sealing", "opening"];

/// How often each piece is done.
const COUNT: u64 = 500;

/// The function of the benchmark in which is counted.
const COUNTED: &str = "--toggle-collect=*what_is_counted*";

/// How many more than are recorded are too many, in hundredths.
const TOLERANCE: u64 = 5;

/// How many instructions each piece takes.
type Counts = BTreeMap<String, u64>;

/// By the compiler and the processor.
type Records = BTreeMap<String, Counts>;

/// Compares, or with `record` writes down what there is now; what became of it.
pub(crate) fn run(record: bool) -> Result<String> {
    if !step::succeeds(step::command("valgrind").arg("--version")) {
        return Ok("NOT RUN: there is no valgrind on this machine (Debian: apt-get install valgrind)".to_owned());
    }
    let compiler = step::output(step::command("rustc").arg("--version"))?;
    let compiler = compiler.trim();
    let maker = format!("{compiler} on {}", processor());
    let bench = build()?;
    let file = workspace_root().join(RECORD);
    let mut records = read(&fs::read_to_string(&file).unwrap_or_default())?;
    let mut counted = Counts::new();
    for piece in PIECES {
        counted.insert(piece.to_owned(), count(&bench, piece)?);
    }
    if record {
        print!("{}", write(&Records::from([(maker.clone(), counted.clone())])));
        // Of another compiler they are of no use any more.
        records.retain(|by, _| by.starts_with(&format!("{compiler} on ")));
        records.insert(maker, counted);
        fs::write(&file, write(&records)).with_context(|| format!("cannot write {RECORD}"))?;
        return Ok("recorded".to_owned());
    }
    let Some(recorded) = records.get(&maker) else {
        counted.iter().for_each(|(piece, count)| println!("{piece}: {count} instructions"));
        return Ok(format!("NOT COMPARED: this is '{maker}', and {}", known(&records)));
    };
    let verdicts = PIECES.map(|piece| judge(piece, recorded.get(piece).copied(), counted[piece]));
    verdicts.iter().for_each(|(text, _)| println!("{text}"));
    if verdicts.iter().any(|(_, too_many)| *too_many) {
        bail!("more instructions than are recorded: mend it, or record them with --record and say why");
    }
    Ok("no piece takes 5 % more than is recorded".to_owned())
}

/// Whose are recorded, for people.
fn known(records: &Records) -> String {
    let makers: Vec<_> = records.keys().map(|by| format!("'{by}'")).collect();
    if makers.is_empty() {
        return "none are recorded: do so with --record".to_owned();
    }
    format!("recorded are those of {}", makers.join(", "))
}

/// This machine's processor.
fn processor() -> String {
    let about = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let value = |name: &str| {
        let mut lines = about.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(found, _)| found.trim() == name).map_or("unknown", |(_, value)| value.trim())
    };
    format!("{}, family {}, model {}", value("model name"), value("cpu family"), value("model"))
}

/// Builds the benchmark; its path.
fn build() -> Result<PathBuf> {
    let mut cargo = step::cargo();
    cargo.args(["bench", "--locked", "--profile", "counted", "--package", "tokencache-server", "--bench", "hit"]);
    cargo.arg("--no-run");
    let messages = step::output(cargo.arg("--message-format=json-render-diagnostics"))?;
    // The binaries of the package are built beside it.
    let benchmarks = messages.lines().filter(|line| line.contains("\"kind\":[\"bench\"]"));
    let mut executables = benchmarks.filter_map(|line| line.split_once("\"executable\":\"")?.1.split('"').next());
    executables.next_back().map(PathBuf::from).context("cargo built no benchmark")
}

/// The instructions that a piece takes each time.
fn count(bench: &Path, piece: &str) -> Result<u64> {
    let mut valgrind = step::command("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null", COUNTED]).arg(bench);
    let output = valgrind.args(["--repeat", piece, &COUNT.to_string()]).output().context("cannot run valgrind")?;
    let told = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("{piece} under callgrind ended with {}: {}", output.status, told.trim());
    }
    let line = told.lines().find_map(|line| line.split_once("Collected : ")).context("callgrind told no count")?;
    let total: u64 = line.1.trim().parse().context("callgrind's count is no number")?;
    if total == 0 {
        bail!("callgrind found no function {COUNTED}: nothing was counted");
    }
    Ok(total / COUNT)
}

fn read(text: &str) -> Result<Records> {
    let line = |line: &str| -> Result<(String, u64)> {
        let (piece, count) = line.split_once(' ').with_context(|| format!("{RECORD}: {line}"))?;
        Ok((piece.to_owned(), count.parse().with_context(|| format!("{RECORD}: {line}"))?))
    };
    let paragraph = |paragraph: &str| -> Result<(String, Counts)> {
        let (maker, lines) = paragraph.split_once('\n').unwrap_or((paragraph, ""));
        Ok((maker.to_owned(), lines.lines().map(line).collect::<Result<_>>()?))
    };
    text.trim_end().split("\n\n").filter(|text| !text.is_empty()).map(paragraph).collect()
}

fn write(records: &Records) -> String {
    let paragraph = |(maker, counts): (&String, &Counts)| {
        let lines: String = counts.iter().map(|(piece, count)| format!("{piece} {count}\n")).collect();
        format!("{maker}\n{lines}")
    };
    records.iter().map(paragraph).collect::<Vec<_>>().join("\n")
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
    fn a_record_is_read_as_it_is_written() {
        let counts = |hit| Counts::from([("hit".to_owned(), hit), ("memory".to_owned(), 300)]);
        let records = Records::from([("rustc on a".to_owned(), counts(4000)), ("rustc on b".to_owned(), counts(5000))]);
        let text = "rustc on a\nhit 4000\nmemory 300\n\nrustc on b\nhit 5000\nmemory 300\n";
        assert_eq!(known(&records), "recorded are those of 'rustc on a', 'rustc on b'");
        assert_eq!((&*write(&records), read(text).unwrap()), (text, records));
        assert!(read("rustc on a\nhit\n").is_err() && read("rustc on a\nhit many\n").is_err());
        assert_eq!(read("").unwrap(), Records::new());
        assert_eq!(known(&Records::new()), "none are recorded: do so with --record");
    }
}
