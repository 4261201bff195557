//! `cargo xtask e2e`: builds the binaries and lets the driver in `xtask/e2e` run them against a real identity provider.

use anyhow::Result;

use crate::{node, postgres, step, workspace_root};

/// Finds what the run needs, then drives it; every failure is an error.
pub(crate) fn run() -> Result<()> {
    let node = node::find()?;
    postgres::ensure()?;
    drive(&node)
}

/// Builds, installs and runs, where `node` and a Postgres are known to be there.
pub(crate) fn drive(node: &str) -> Result<()> {
    let target = target_directory();
    let idp = node::install(&target)?;
    build()?;

    let mut driver = step::command(target.join("debug/tokencache-e2e"));
    driver.arg("--idp").arg(idp).arg("--binaries").arg(target.join("debug"));
    step::run(&format!("end to end, with Node {node}"), &mut driver)
}

/// Builds the binaries into `debug` of the target directory.
pub(crate) fn build() -> Result<()> {
    step::run("build the binaries", &mut step::cargo_build_of_tests())
}

/// Where cargo puts what it builds.
pub(crate) fn target_directory() -> std::path::PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(directory) => workspace_root().join(directory),
        None => workspace_root().join("target"),
    }
}
