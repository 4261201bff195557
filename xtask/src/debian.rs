//! Installs a package of Debian's, without starting the service that comes with it: nobody here asked for that.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use anyhow::{Context as _, Result};

use crate::{postgres::apt, step};

/// Is asked whether a package may start its service.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Installs `package`.
pub(crate) fn install(package: &str) -> Result<()> {
    let policy = Path::new(POLICY);
    let ours = !policy.exists();
    if ours {
        fs::write(policy, "#!/bin/sh\nexit 101\n").with_context(|| format!("cannot write {POLICY}"))?;
        fs::set_permissions(policy, fs::Permissions::from_mode(0o755))?;
    }
    let installed = step::run(&format!("install {package}: apt-get update"), apt().arg("update")).and_then(|()| {
        let mut install = apt();
        install.args(["install", "--yes", "--no-install-recommends", package]);
        step::run(&format!("install {package}: apt-get install"), &mut install)
    });
    if ours {
        fs::remove_file(policy).with_context(|| format!("cannot remove {POLICY}"))?;
    }
    installed
}
