//! `cargo xtask torture`: builds the server and lets the driver in `xtask/torture` hurt a fleet of it.

use anyhow::Result;
use clap::Args;

use crate::{e2e::target_directory, postgres, step};

/// The packages whose binaries take part.
const PACKAGES: [&str; 2] = ["tokencache-server", "tokencache-torture"];

#[derive(Args)]
pub(crate) struct Torture {
    /// What is done, and in which order
    #[arg(long)]
    seed: u64,
    /// How long the faults and the load last
    #[arg(long)]
    seconds: u64,
    /// How many replicas there are
    #[arg(long, default_value_t = 3)]
    replicas: usize,
    /// What else the driver is told, after `--`; `-- --help` lists it
    #[arg(last = true)]
    rest: Vec<String>,
}

/// Builds and runs; a violated invariant is an error.
pub(crate) fn run(torture: &Torture) -> Result<()> {
    postgres::ensure()?;
    let target = target_directory();
    let mut build = step::cargo();
    build.args(["build", "--locked", "--bins"]);
    for package in PACKAGES {
        build.args(["--package", package]);
    }
    step::run("build the binaries", &mut build)?;

    let mut driver = step::command(target.join("debug/tokencache-torture"));
    driver.arg("--binaries").arg(target.join("debug")).arg("--output").arg(target.join("torture"));
    driver.args(["--seed", &torture.seed.to_string(), "--seconds", &torture.seconds.to_string()]);
    driver.args(["--replicas", &torture.replicas.to_string()]).args(&torture.rest);
    step::run(&format!("torture, seed {}", torture.seed), &mut driver)
}
