//! Runs the programs that a chore consists of, each under a headline and with its duration.

use std::{
    ffi::OsStr,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

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
    let took = begun.elapsed();
    if !status.success() {
        bail!("{headline}: {} ended with {status} after {}", program(command), seconds(took));
    }
    println!("== {headline}: done in {}", seconds(took));
    Ok(())
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
    fn a_program_that_is_not_there_does_not_succeed() {
        assert!(!succeeds(&mut command("no-such-program-anywhere")));
        let error = output(&mut command("no-such-program-anywhere")).unwrap_err().to_string();
        assert_eq!(error, "cannot run no-such-program-anywhere");
    }
}
