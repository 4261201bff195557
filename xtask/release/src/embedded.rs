//! The list that `cargo auditable` puts into a binary.

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::crates::Crates;

/// Reads it back, as `cargo audit bin` and scanners of images do.
pub(crate) fn read(binary: &Path) -> Result<Crates> {
    let info = auditable_info::audit_info_from_file(binary, auditable_info::Limits::default());
    let info = info.context("it has no list of its dependencies")?;
    Ok(info.packages.into_iter().map(|package| (package.name, package.version.to_string())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binary_that_was_built_without_it_is_refused() {
        let error = read(&std::env::current_exe().unwrap()).unwrap_err();
        assert_eq!(error.to_string(), "it has no list of its dependencies");
    }
}
