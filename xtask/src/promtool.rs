//! Has Prometheus' own tool check the alert rules and the configuration of `deploy/prometheus`, and installs Debian's where
//! there is none.

use anyhow::{Result, bail};

use crate::{debian, postgres::may_install, step};

/// What it checks, from the top of the repository.
const CHECKS: [(&str, [&str; 3]); 3] = [
    ("alert rules", ["check", "rules", "deploy/prometheus/alerts.yml"]),
    ("what each alert is for", ["test", "rules", "deploy/prometheus/alerts.test.yml"]),
    ("the configuration of Prometheus", ["check", "config", "deploy/prometheus/prometheus.yml"]),
];

/// Installs it if there is none and this machine lets us; the error says why there is none.
pub(crate) fn ensure() -> Result<()> {
    if is_there() {
        return Ok(());
    }
    if !may_install() {
        bail!("there is no promtool on this machine (Debian: apt-get install prometheus)");
    }
    debian::install("prometheus")?;
    if !is_there() {
        bail!("the package prometheus brought no promtool");
    }
    Ok(())
}

/// Checks everything.
pub(crate) fn check() -> Result<()> {
    for (what, arguments) in CHECKS {
        step::run(&format!("promtool: {what}"), step::command("promtool").args(arguments))?;
    }
    Ok(())
}

fn is_there() -> bool {
    step::succeeds(step::command("promtool").arg("--version"))
}
