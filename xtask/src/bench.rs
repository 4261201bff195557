//! `cargo xtask bench`: builds what is shipped, and has the driver in `xtask/bench` measure it beside others.

use anyhow::Result;
use clap::Args;

use crate::{e2e::target_directory, step, workspace_root};

/// The packages whose binaries take part.
const PACKAGES: [&str; 2] = ["tokencache-server", "tokencache-bench"];

#[derive(Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Bench {
    /// `run`, which may be left out, or `scale`, and options; `--help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// Builds and measures; a missed target is no error, a failed call is one.
pub(crate) fn run(bench: &Bench) -> Result<()> {
    build()?;
    let programs = target_directory().join("release");
    let mut driver = step::command(programs.join("tokencache-bench"));
    driver.arg("--binaries").arg(&programs).arg("--output").arg(workspace_root().join("docs/benchmarks"));
    driver.args(deed(&bench.rest));
    step::run("bench", &mut driver)
}

/// Builds as what is shipped is built.
fn build() -> Result<()> {
    let mut build = step::cargo();
    build.args(["build", "--locked", "--bins", "--release"]);
    for package in PACKAGES {
        build.args(["--package", package]);
    }
    step::run("build the binaries, optimised", &mut build)
}

/// What the driver is told; to compare is the default.
fn deed(rest: &[String]) -> Vec<&str> {
    let named = rest.first().is_some_and(|first| !first.starts_with('-'));
    let first = if named { None } else { Some("run") };
    first.into_iter().chain(rest.iter().map(String::as_str)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_alone_are_those_of_the_comparison() {
        let rest = |words: &[&str]| -> Vec<String> { words.iter().map(|word| (*word).to_owned()).collect() };
        assert_eq!(deed(&rest(&[])), ["run"]);
        assert_eq!(deed(&rest(&["--quick"])), ["run", "--quick"]);
        assert_eq!(deed(&rest(&["scale", "--quick"])), ["scale", "--quick"]);
    }
}
