//! Makes sure that the tests will find a pgbouncer, and installs Debian's where there is none.

use std::{env, ffi::OsStr, path::Path};

use anyhow::{Result, bail};

use crate::{debian, postgres::may_install};

/// Where Debian puts it, off the PATH of most accounts.
const DEBIAN: &str = "/usr/sbin/pgbouncer";

/// Installs one if there is none and this machine lets us; the error says why there is none.
pub(crate) fn ensure() -> Result<()> {
    let path = env::var_os("PATH").unwrap_or_default();
    if is_there(&path, Path::new(DEBIAN)) {
        return Ok(());
    }
    if !may_install() {
        bail!("there is no pgbouncer on this machine (Debian: apt-get install pgbouncer)");
    }
    debian::install("pgbouncer")?;
    if !is_there(&path, Path::new(DEBIAN)) {
        bail!("the package pgbouncer brought no {DEBIAN}");
    }
    Ok(())
}

fn is_there(path: &OsStr, debian: &Path) -> bool {
    env::split_paths(path).any(|directory| directory.join("pgbouncer").is_file()) || debian.is_file()
}

#[cfg(test)]
mod tests {
    use std::fs;

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
