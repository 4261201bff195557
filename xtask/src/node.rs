//! Finds Node and installs the identity provider of the end-to-end run under `target/`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::{step, workspace_root};

/// What oidc-provider needs.
const OLDEST: (u32, u32) = (20, 20);

/// The files that make up the package.
const FILES: [&str; 3] = ["package.json", "package-lock.json", "provider.mjs"];

/// Makes sure that a usable Node and its npm are on the PATH; the error says what was found and what is needed.
pub(crate) fn find() -> Result<String> {
    let (major, minor) = OLDEST;
    let needed = format!("the end-to-end run needs Node {major}.{minor} or later with npm on the PATH");
    let Ok(found) = step::output(step::command("node").arg("--version")) else {
        bail!("{needed}, and there is no node");
    };
    let found = found.trim();
    if version(found).is_none_or(|version| version < OLDEST) {
        bail!("{needed}, and node is {found}");
    }
    if !step::succeeds(step::command("npm").arg("--version")) {
        bail!("{needed}, and there is no npm");
    }
    Ok(found.to_owned())
}

/// Installs the package as its lock file says, unless it is there already, and returns its directory.
///
/// Scripts of packages are not run: nothing in the lock file needs one.
pub(crate) fn install(target: &Path) -> Result<PathBuf> {
    let source = workspace_root().join("server/tests/idp");
    let directory = target.join("idp");
    let stamp = directory.join("node_modules/.installed-lock");
    fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    for file in FILES {
        fs::copy(source.join(file), directory.join(file)).with_context(|| format!("cannot copy {file}"))?;
    }
    let lock = fs::read(source.join("package-lock.json"))?;
    if fs::read(&stamp).is_ok_and(|installed| installed == lock) {
        return Ok(directory);
    }
    let mut npm = step::command("npm");
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(&directory);
    step::run("install the identity provider (npm ci)", &mut npm)?;
    fs::write(stamp, lock)?;
    Ok(directory)
}

/// Major and minor of `v20.20.2`.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.strip_prefix('v')?.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        assert_eq!(version("v20.20.2"), Some((20, 20)));
        assert!(version("v18.20.4") < Some(OLDEST));
        assert!(version("v20.9.0") < Some(OLDEST));
        assert!(version("v22.1.0") > Some(OLDEST));
        assert_eq!(version("nonsense"), None);
    }

    #[test]
    fn the_lock_file_names_no_registry() {
        let lock = fs::read_to_string(workspace_root().join("server/tests/idp/package-lock.json")).unwrap();
        assert!(lock.contains("\"integrity\""));
        assert!(!lock.contains("\"resolved\""));
    }
}
