//! `cargo xtask test`: every test of the repository, on a machine that may be fresh.

use anyhow::Result;

use crate::{e2e, node, pgbouncer, postgres, step};

/// Makes sure that there is a Postgres, then runs all tests, those that need more than a Postgres where that is present,
/// then the end-to-end run where Node is.
pub(crate) fn run() -> Result<()> {
    postgres::ensure()?;
    step::run("unit, conformance and integration tests", step::cargo().args(["test", "--workspace", "--locked"]))?;
    let faults = run_ignored("faults of a database server", "database::own::", postgres::find_binaries())?;
    let pooler = run_ignored("the store behind pgbouncer", "database::pgbouncer::", pgbouncer::ensure())?;
    let end_to_end = match node::find() {
        Ok(node) => {
            e2e::drive(&node)?;
            "passed".to_owned()
        }
        Err(reason) => format!("NOT RUN: {reason:#}"),
    };
    println!("\nxtask test: cargo test: passed");
    println!("xtask test: faults of a database server: {faults}");
    println!("xtask test: behind pgbouncer: {pooler}");
    println!("xtask test: end to end: {end_to_end}");
    Ok(())
}

/// Runs the tests of a module that `cargo test` leaves out, if what they need is there; what became of them. With the
/// workspace's features, so that nothing is compiled again.
fn run_ignored(headline: &str, module: &str, needed: Result<()>) -> Result<String> {
    if let Err(reason) = needed {
        return Ok(format!("NOT RUN: {reason:#}"));
    }
    let mut cargo = step::cargo();
    cargo.args(["test", "--workspace", "--locked", "--test", "it", "--", "--ignored", module]);
    step::run(headline, &mut cargo)?;
    Ok("passed".to_owned())
}
