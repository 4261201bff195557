//! `cargo xtask test`: every test of the repository, on a machine that may be fresh.

use anyhow::Result;

use crate::{
    bugs, drill, e2e, instructions, node, pgbouncer, postgres, promtool, python, step,
    torture::{self, Profile},
};

/// Of the short torture run, which is the same in each run of the tests.
const SEED: &str = "21";
const SECONDS: &str = "10";

/// Makes sure that there is a Postgres, then runs all tests, those that need more than a Postgres where that is present,
/// then the end-to-end run where Node is and the tests of the Python package where Python and its libraries are, then a
/// short torture run and short drills, then without each rule of the broker that can be left out; at last the instructions
/// of a hit are counted, where valgrind is.
pub(crate) fn run() -> Result<()> {
    postgres::ensure()?;
    step::run_tests(
        "unit, conformance and integration tests",
        step::cargo().args(["test", "--workspace", "--locked"]),
    )?;
    let it = ["--test", "it"];
    let standby = run_ignored("servers with a standby", &["--lib"], "postgres::node::", postgres::find_binaries())?;
    let faults = run_ignored("faults of a database server", &it, "database::own::", postgres::find_binaries())?;
    let pooler = run_ignored("the store behind pgbouncer", &it, "database::pgbouncer::", pgbouncer::ensure())?;
    let alerts = match promtool::ensure() {
        Ok(()) => {
            promtool::check()?;
            run_ignored("metrics as Prometheus reads them", &it, "metrics::prometheus", Ok(()))?
        }
        Err(reason) => format!("NOT RUN: {reason:#}"),
    };
    let end_to_end = match node::find() {
        Ok(node) => {
            e2e::drive(&node)?;
            "passed".to_owned()
        }
        Err(reason) => format!("NOT RUN: {reason:#}"),
    };
    let python_package = match python::prepare() {
        Ok(directory) => {
            python::test(&directory)?;
            "passed".to_owned()
        }
        Err(reason) => format!("NOT RUN: {reason:#}"),
    };
    let (torture, drills) = hurt()?;
    bugs::run()?;
    let instructions = instructions::run(false)?;
    println!("\nxtask test: cargo test: passed");
    println!("xtask test: servers with a standby: {standby}");
    println!("xtask test: faults of a database server: {faults}");
    println!("xtask test: behind pgbouncer: {pooler}");
    println!("xtask test: alerts and metrics, by Prometheus' own tool: {alerts}");
    println!("xtask test: end to end: {end_to_end}");
    println!("xtask test: the Python package: {python_package}");
    println!("xtask test: torture run of {SECONDS} s: {torture}");
    println!("xtask test: rules left out one by one: each missed by a test");
    println!("xtask test: instructions of a hit: {instructions}");
    println!("xtask test: drills, short, times not judged: {drills}");
    Ok(())
}

/// Runs the tests of a module that `cargo test` leaves out, if what they need is there; what became of them. With the
/// workspace's features, so that nothing is compiled again.
fn run_ignored(headline: &str, targets: &[&str], module: &str, needed: Result<()>) -> Result<String> {
    if let Err(reason) = needed {
        return Ok(format!("NOT RUN: {reason:#}"));
    }
    let mut cargo = step::cargo();
    cargo.args(["test", "--workspace", "--locked"]).args(targets).args(["--", "--ignored", module]);
    step::run_tests(headline, &mut cargo)?;
    Ok("passed".to_owned())
}

/// A short torture run and short drills; what became of them. This machine has other things to do, so times are printed
/// and not judged.
fn hurt() -> Result<(&'static str, String)> {
    torture::build(Profile::Dev)?;
    let mut run = torture::driver(Profile::Dev);
    run.args(["run", "--failpoints", "--expect-acknowledged", "--seed", SEED, "--seconds", SECONDS]);
    step::run(&format!("torture, seed {SEED}, {SECONDS} s"), &mut run)?;
    if let Err(reason) = postgres::find_binaries() {
        return Ok(("passed, without faults of the database", format!("NOT RUN: {reason:#}")));
    }
    drill::perform(Profile::Dev, &["all", "--lenient", "--at-once", "3"].map(str::to_owned))?;
    Ok(("passed", "passed".to_owned()))
}
