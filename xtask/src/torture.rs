//! `cargo xtask torture`: builds the server with its failpoints, and lets the driver in `xtask/torture` hurt a fleet of it.

use std::process::Command;

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::{e2e::target_directory, postgres, step};

/// The packages whose binaries take part.
const PACKAGES: [&str; 2] = ["tokencache-server", "tokencache-torture"];

/// The server can be told at which points of a refresh to die.
const FEATURE: &str = "tokencache-server/failpoints";

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
    /// How the programs are built
    #[arg(long, value_enum, default_value_t = Profile::Dev)]
    profile: Profile,
    /// What else the driver is told, after `--`; `-- --help` lists it
    #[arg(last = true)]
    rest: Vec<String>,
}

/// How programs are built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Profile {
    /// As tests are.
    Dev,
    /// As what is shipped, but with failpoints.
    Release,
}

impl Profile {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Release => "release",
        }
    }

    pub(crate) fn directory(self) -> &'static str {
        match self {
            Self::Dev => "debug",
            Self::Release => "release",
        }
    }
}

/// Builds and runs; a violated invariant is an error.
pub(crate) fn run(torture: &Torture) -> Result<()> {
    postgres::ensure()?;
    build(torture.profile)?;
    let mut driver = driver(torture.profile);
    driver.args(["run", "--failpoints", "--seed", &torture.seed.to_string()]);
    driver.args(["--seconds", &torture.seconds.to_string()]);
    driver.args(["--replicas", &torture.replicas.to_string()]).args(&torture.rest);
    step::run(&format!("torture, seed {}", torture.seed), &mut driver)
}

/// Builds what takes part.
pub(crate) fn build(profile: Profile) -> Result<()> {
    let mut build = match profile {
        Profile::Dev => step::cargo_build_of_tests(),
        Profile::Release => {
            let mut build = step::cargo();
            build.args(["build", "--locked", "--bins", "--profile", profile.name()]);
            for package in PACKAGES {
                build.args(["--package", package]);
            }
            build
        }
    };
    step::run("build the binaries, with failpoints", build.args(["--features", FEATURE]))
}

/// The driver, told where the programs are.
pub(crate) fn driver(profile: Profile) -> Command {
    let target = target_directory();
    let programs = target.join(profile.directory());
    let mut driver = step::command(programs.join("tokencache-torture"));
    driver.arg("--binaries").arg(programs).arg("--output").arg(target.join("torture"));
    driver
}
