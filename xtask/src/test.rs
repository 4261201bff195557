//! `cargo xtask test`: every test of the repository, on a machine that may be fresh.

use anyhow::Result;

use crate::{e2e, node, postgres, step};

/// Makes sure that there is a Postgres, then runs all tests, then the end-to-end run where Node is present.
pub(crate) fn run() -> Result<()> {
    postgres::ensure()?;
    step::run("unit, conformance and integration tests", step::cargo().args(["test", "--workspace", "--locked"]))?;
    let end_to_end = match node::find() {
        Ok(node) => {
            e2e::drive(&node)?;
            "passed".to_owned()
        }
        Err(reason) => format!("NOT RUN: {reason:#}"),
    };
    println!("\nxtask test: cargo test: passed; end to end: {end_to_end}");
    Ok(())
}
