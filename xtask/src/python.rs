//! Finds Python, and runs the tests of the package in `client/python` in a virtual environment under `target/`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    e2e,
    postgres::{apt, may_install},
    step, workspace_root,
};

/// What the package supports.
const OLDEST: (u32, u32) = (3, 9);

/// Makes sure that there is an environment with what the tests need.
///
/// The environment is made anew only where Python or the requirements changed.
pub(crate) fn prepare() -> Result<PathBuf> {
    let found = find()?;
    let requirements = source().join("requirements-test.txt");
    let wanted = format!("{found}\n{}", fs::read_to_string(&requirements)?);
    let directory = e2e::target_directory().join("python");
    let stamp = directory.join("installed-requirements.txt");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(directory);
    }
    if directory.exists() {
        fs::remove_dir_all(&directory).with_context(|| format!("cannot remove {}", directory.display()))?;
    }
    step::run("make a virtual environment", step::command("python3").args(["-m", "venv"]).arg(&directory))?;
    let mut install = pip(&directory);
    install.args(["install", "--quiet", "--requirement"]).arg(requirements);
    step::run("install what the Python tests need", &mut install)?;
    fs::write(stamp, wanted)?;
    Ok(directory)
}

/// Builds the broker, installs the package and runs its tests, where the environment is there.
pub(crate) fn test(directory: &Path) -> Result<()> {
    e2e::build()?;
    let mut install = pip(directory);
    // With the build back end of the environment, so that nothing is downloaded.
    install.args(["install", "--quiet", "--no-deps", "--no-build-isolation", "--force-reinstall"]).arg(source());
    step::run("install the Python package", &mut install)?;
    let mut tests = python(directory);
    tests.args(["-m", "pytest", "--quiet"]).current_dir(source());
    tests.env("TOKENCACHED", e2e::target_directory().join("debug/tokencached"));
    step::run("the tests of the Python package", &mut tests)
}

/// Makes sure that there is a Python that can make virtual environments; its version. The error says why there is none.
fn find() -> Result<String> {
    let (major, minor) = OLDEST;
    let needed = format!("the Python package's tests need Python {major}.{minor} or later as python3 on the PATH");
    let Ok(found) = step::output(step::command("python3").arg("--version")) else {
        bail!("{needed}, and there is no python3");
    };
    let found = found.trim();
    if version(found).is_none_or(|version| version < OLDEST) {
        bail!("{needed}, and python3 is {found}");
    }
    if !makes_environments() {
        // Debian ships that part of Python apart.
        if !may_install() {
            bail!("python3 cannot make virtual environments (Debian: apt-get install python3-venv)");
        }
        install()?;
        if !makes_environments() {
            bail!("python3 cannot make virtual environments in spite of the package python3-venv");
        }
    }
    Ok(found.to_owned())
}

fn makes_environments() -> bool {
    step::succeeds(step::command("python3").args(["-c", "import ensurepip, venv"]))
}

fn install() -> Result<()> {
    step::run("install python3-venv: apt-get update", apt().arg("update"))?;
    let mut install = apt();
    install.args(["install", "--yes", "--no-install-recommends", "python3-venv"]);
    step::run("install python3-venv: apt-get install", &mut install)
}

fn source() -> PathBuf {
    workspace_root().join("client/python")
}

/// The environment's Python, which leaves nothing in the tree.
fn python(directory: &Path) -> Command {
    let mut python = step::command(directory.join("bin/python"));
    python.env("PYTHONDONTWRITEBYTECODE", "1");
    python
}

fn pip(directory: &Path) -> Command {
    let mut pip = python(directory);
    pip.args(["-m", "pip", "--disable-pip-version-check", "--no-input"]);
    pip
}

/// Major and minor of `Python 3.11.2`.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.strip_prefix("Python ")?.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        assert_eq!(version("Python 3.11.2"), Some((3, 11)));
        assert!(version("Python 3.8.18") < Some(OLDEST));
        assert!(version("Python 3.13.0rc1") > Some(OLDEST));
        assert_eq!(version("nonsense"), None);
    }

    #[test]
    fn the_requirements_are_pinned_and_name_no_registry() {
        let requirements = fs::read_to_string(source().join("requirements-test.txt")).unwrap();
        for line in requirements.lines().filter(|line| !line.starts_with('#')) {
            assert!(line.contains("==") && !line.contains("://") && !line.starts_with('-'), "{line}");
        }
    }
}
