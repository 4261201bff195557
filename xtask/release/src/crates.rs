//! Sets of crates, each with its version.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context as _, Result, ensure};

/// Crates, as `name version`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Crates(BTreeSet<String>);

impl Crates {
    /// All of a lock file.
    pub(crate) fn of_lock_file(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        // Cargo writes one key a line, the name before the version.
        let value =
            |line: &str, key: &str| Some(line.strip_prefix(key)?.strip_prefix(" = \"")?.strip_suffix('"')?.to_owned());
        let mut name = None;
        let mut crates = Vec::new();
        for line in text.lines() {
            name = value(line, "name").or(name);
            if let Some(version) = value(line, "version") {
                crates.extend(name.take().map(|name| (name, version)));
            }
        }
        ensure!(!crates.is_empty(), "{} is no lock file", path.display());
        Ok(crates.into_iter().collect())
    }

    /// Of lines `name vVERSION …`, without procedural macros: they are run by the compiler and not compiled in.
    pub(crate) fn of_tree(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let lines = text.lines().filter(|line| !line.contains("(proc-macro)"));
        let crates: Self = lines
            .filter_map(|line| {
                let mut words = line.split_whitespace();
                Some((words.next()?.to_owned(), words.next()?.strip_prefix('v')?.to_owned()))
            })
            .collect();
        ensure!(crates.len() > 1, "{} is no tree of crates", path.display());
        Ok(crates)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// That each of `compiled` is here, and nothing that is not in `locked`.
    pub(crate) fn check(&self, compiled: &Self, locked: &Self) -> Result<()> {
        let list = |crates: Vec<&String>| crates.iter().take(10).map(|it| it.as_str()).collect::<Vec<_>>().join(", ");
        let missing: Vec<_> = compiled.0.difference(&self.0).collect();
        ensure!(missing.is_empty(), "{} crates are missing that are compiled in: {}", missing.len(), list(missing));
        let unknown: Vec<_> = self.0.difference(&locked.0).collect();
        ensure!(unknown.is_empty(), "{} crates are not in the lock file: {}", unknown.len(), list(unknown));
        Ok(())
    }
}

impl FromIterator<(String, String)> for Crates {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(crates: I) -> Self {
        Self(crates.into_iter().map(|(name, version)| format!("{name} {version}")).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crates(all: &[&str]) -> Crates {
        Crates(all.iter().map(|it| (*it).to_owned()).collect())
    }

    #[test]
    fn a_list_that_lacks_a_crate_or_names_a_foreign_one_is_refused() {
        let (compiled, locked) = (crates(&["a 1.0.0", "b 2.0.0"]), crates(&["a 1.0.0", "b 2.0.0", "c 3.0.0"]));
        let error = |all: &[&str]| crates(all).check(&compiled, &locked).map_err(|error| error.to_string()).err();
        assert_eq!(error(&["a 1.0.0", "b 2.0.0"]), None);
        assert_eq!(error(&["a 1.0.0", "b 2.0.0", "c 3.0.0"]), None);
        assert_eq!(error(&["a 1.0.0"]).as_deref(), Some("1 crates are missing that are compiled in: b 2.0.0"));
        let foreign = error(&["a 1.0.0", "b 2.0.0", "b 2.0.1"]);
        assert_eq!(foreign.as_deref(), Some("1 crates are not in the lock file: b 2.0.1"));
        assert!(error(&[]).is_some());
    }

    #[test]
    fn a_tree_and_a_lock_file_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let (tree, lock) = (directory.path().join("tree"), directory.path().join("Cargo.lock"));
        fs::write(&tree, "a v1.0.0 (/somewhere)\nserde_derive v1.0.1 (proc-macro)\nb v2.0.0\nb v2.0.0 (*)\n").unwrap();
        fs::write(&lock, "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nsource = \"x\"\n").unwrap();
        assert_eq!(Crates::of_tree(&tree).unwrap(), crates(&["a 1.0.0", "b 2.0.0"]));
        assert_eq!(Crates::of_lock_file(&lock).unwrap(), crates(&["a 1.0.0"]));
        fs::write(&tree, "").unwrap();
        assert!(Crates::of_tree(&tree).is_err());
    }
}
