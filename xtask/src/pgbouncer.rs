//! Makes sure that the tests will find a pgbouncer, and installs Debian's where there is none.

use std::{env, ffi::OsStr, fs, os::unix::fs::PermissionsExt as _, path::Path};

use anyhow::{Context as _, Result, bail};

use crate::{
    postgres::{apt, may_install},
    step,
};

/// Where Debian puts it, off the PATH of most accounts.
const DEBIAN: &str = "/usr/sbin/pgbouncer";

/// Is asked whether a package may start its service.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Installs one if there is none and this machine lets us; the error says why there is none.
pub(crate) fn ensure() -> Result<()> {
    let path = env::var_os("PATH").unwrap_or_default();
    if is_there(&path, Path::new(DEBIAN)) {
        return Ok(());
    }
    if !may_install() {
        bail!("there is no pgbouncer on this machine (Debian: apt-get install pgbouncer)");
    }
    install()?;
    if !is_there(&path, Path::new(DEBIAN)) {
        bail!("the package pgbouncer brought no {DEBIAN}");
    }
    Ok(())
}

fn is_there(path: &OsStr, debian: &Path) -> bool {
    env::split_paths(path).any(|directory| directory.join("pgbouncer").is_file()) || debian.is_file()
}

/// Without starting the package's own service, which nobody here asked for.
fn install() -> Result<()> {
    let policy = Path::new(POLICY);
    let ours = !policy.exists();
    if ours {
        fs::write(policy, "#!/bin/sh\nexit 101\n").with_context(|| format!("cannot write {POLICY}"))?;
        fs::set_permissions(policy, fs::Permissions::from_mode(0o755))?;
    }
    let installed = step::run("install pgbouncer: apt-get update", apt().arg("update")).and_then(|()| {
        let mut install = apt();
        install.args(["install", "--yes", "--no-install-recommends", "pgbouncer"]);
        step::run("install pgbouncer: apt-get install", &mut install)
    });
    if ours {
        fs::remove_file(policy).with_context(|| format!("cannot remove {POLICY}"))?;
    }
    installed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_found_on_the_path_and_where_debian_puts_it() {
        let root = tempfile::tempdir().unwrap();
        let (binary, none) = (root.path().join("pgbouncer"), root.path().join("none"));
        assert!(!is_there(root.path().as_os_str(), &none));
        fs::write(&binary, "").unwrap();
        assert!(is_there(root.path().as_os_str(), &none));
        assert!(is_there("".as_ref(), &binary));
    }
}
