//! Runs the programs that a chore consists of, each under a headline and with its duration.

use std::{
    ffi::OsStr,
    io::{BufRead as _, BufReader, Read, Write},
    process::{Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::workspace_root;

/// A command that runs at the top of the repository and cannot wait for a person's answer.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(workspace_root()).stdin(Stdio::null());
    command
}

/// The cargo that runs this chore.
pub(crate) fn cargo() -> Command {
    cargo_named(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Builds all programs as `cargo test --workspace` has built what they stand on, which then is not compiled again. With an
/// example among them cargo selects the features that tests have.
pub(crate) fn cargo_build_of_tests() -> Command {
    let mut build = cargo();
    build.args(["build", "--locked", "--workspace", "--bins", "--examples"]);
    build
}

/// A cargo of this name, for packages of its own.
pub(crate) fn cargo_named(program: impl AsRef<OsStr>) -> Command {
    let mut command = command(program);
    // Set by the outer cargo for this package; an inner cargo would take them for its own.
    for name in ["CARGO_MANIFEST_DIR", "CARGO_PKG_NAME", "CARGO_PKG_VERSION", "RUST_RECURSION_COUNT"] {
        command.env_remove(name);
    }
    command
}

/// Runs a command to its end under a headline; its failure is an error that names it.
pub(crate) fn run(headline: &str, command: &mut Command) -> Result<()> {
    println!("\n== {headline}");
    let begun = now();
    let status = command.status().with_context(|| format!("cannot run {}", program(command)))?;
    ended(headline, command, status, begun.elapsed())
}

/// The most failed tests whose messages are told again, how many lines of each, and how much of a line.
const TOLD_AGAIN: usize = 20;
const LINES: usize = 3;
const LINE: usize = 300;

/// The same for tests that Rust's harness runs: the error tells again what the failed ones said, for that stands far above
/// the end of what they print, where a log may be cut.
pub(crate) fn run_tests(headline: &str, command: &mut Command) -> Result<()> {
    run_tests_into(headline, command, &mut std::io::stdout())
}

fn run_tests_into(headline: &str, command: &mut Command, to: &mut impl Write) -> Result<()> {
    println!("\n== {headline}");
    let begun = now();
    let mut tests =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot run {}", program(command)))?;
    let printed = tests.stdout.take().context("the output is a pipe")?;
    let messages = pass_on(printed, to)?;
    let status = tests.wait().with_context(|| format!("cannot wait for {}", program(command)))?;
    let result = ended(headline, command, status, begun.elapsed());
    result.map_err(|error| anyhow!("{error}\n{}", messages.join("\n")))
}

fn ended(headline: &str, command: &Command, status: ExitStatus, took: Duration) -> Result<()> {
    if !status.success() {
        bail!("{headline}: {} ended with {status} after {}", program(command), seconds(took));
    }
    println!("== {headline}: done in {}", seconds(took));
    Ok(())
}

/// Passes on what tests print, as it comes; the messages of those that panicked.
fn pass_on(from: impl Read, to: &mut impl Write) -> Result<Vec<String>> {
    let (mut from, mut line) = (BufReader::new(from), Vec::new());
    let (mut messages, mut wanted) = (Vec::new(), 0);
    while from.read_until(b'\n', &mut line)? > 0 {
        to.write_all(&line)?;
        let text = String::from_utf8_lossy(&line);
        if text.contains("panicked at ") {
            wanted = LINES;
        }
        if wanted > 0 && messages.len() < TOLD_AGAIN * LINES {
            messages.push(text.trim_end().chars().take(LINE).collect());
            wanted -= 1;
        }
        line.clear();
    }
    to.flush()?;
    Ok(messages)
}

/// What a command prints, if it succeeds.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {}", program(command)))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!("{} ended with {}: {}", program(command), output.status, complaint.trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("{} did not print UTF-8", program(command)))
}

/// Whether a command can be run and succeeds; what it prints is dropped.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

fn program(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

fn seconds(took: Duration) -> String {
    format!("{:.1} s", took.as_secs_f64())
}

#[expect(clippy::disallowed_methods, reason = "a chore has no clock to inject; it tells a person how long it took")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_of_a_failed_step_names_the_step_and_the_program() {
        let error = run("the step", command("sh").args(["-c", "exit 7"])).unwrap_err().to_string();
        assert!(error.starts_with("the step: sh ended with exit status: 7"), "{error}");
    }

    #[test]
    fn the_error_of_failed_tests_tells_again_what_they_said() {
        let printed = "running\nthread 'a' panicked at a.rs:1:2:\nleft\nright\nmore\n";
        let script = "printf '%s' \"$0\"; exit 101";
        let (mut tests, mut passed_on) = (command("sh"), vec![]);
        let error =
            run_tests_into("tests", tests.args(["-c", script, printed]), &mut passed_on).unwrap_err().to_string();
        assert_eq!(passed_on, printed.as_bytes());
        let (head, said) = error.split_once('\n').expect("several lines");
        assert!(head.starts_with("tests: sh ended with exit status: 101"), "{head}");
        assert_eq!(said, "thread 'a' panicked at a.rs:1:2:\nleft\nright");
    }

    #[test]
    fn what_tests_print_is_passed_on_and_of_what_they_said_a_part_is_kept() {
        let printed = [b"panicked at \xff\n".repeat(100), b"x".repeat(1000)].concat();
        let mut passed_on = Vec::new();
        let messages = pass_on(&printed[..], &mut passed_on).expect("both are in memory");
        assert_eq!(passed_on, printed);
        assert_eq!(messages.len(), TOLD_AGAIN * LINES);
        assert!(messages.iter().all(|message| message.chars().count() <= LINE));
    }

    #[test]
    fn a_program_that_is_not_there_does_not_succeed() {
        assert!(!succeeds(&mut command("no-such-program-anywhere")));
        let error = output(&mut command("no-such-program-anywhere")).unwrap_err().to_string();
        assert_eq!(error, "cannot run no-such-program-anywhere");
    }
}
