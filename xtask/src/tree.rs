//! `cargo xtask tree`: the central crates are compiled in one version each, with one crypto back end.
//!
//! Two versions of hyper or tower mean traits that look alike and do not fit; two crypto back ends mean that rustls
//! cannot choose, and panics at the first connection.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};

use crate::step;

/// Present in exactly one version.
const SINGLE: [&str; 7] = ["hyper", "http", "rustls", "axum", "tower", "prost", "aws-lc-rs"];

/// Not present at all.
const ABSENT: [&str; 6] = ["ring", "openssl", "openssl-sys", "native-tls", "boring", "mbedtls"];

/// Checks the dependencies of the whole workspace, for all platforms, tests and build scripts included.
pub(crate) fn run() -> Result<()> {
    let arguments = ["tree", "--workspace", "--locked", "--target=all", "--prefix=none", "--format={p}"];
    let tree = step::output(step::cargo().args(arguments))?;
    let faults = faults(&tree);
    if !faults.is_empty() {
        bail!("{} (`cargo tree --workspace --target all -i NAME` tells who asks for it)", faults.join("; "));
    }
    println!("one version each of {}; no {}", SINGLE.join(", "), ABSENT.join(", "));
    Ok(())
}

/// What is wrong with a tree of lines `name vVERSION …`.
fn faults(tree: &str) -> Vec<String> {
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for line in tree.lines() {
        let mut words = line.split_whitespace();
        if let (Some(name), Some(version)) = (words.next(), words.next()) {
            versions.entry(name).or_default().insert(version);
        }
    }
    let single = SINGLE.iter().filter_map(|name| match versions.get(name) {
        None => Some(format!("{name} is not in the tree: is the list in xtask/src/tree.rs out of date?")),
        Some(found) if found.len() > 1 => {
            Some(format!("{name} is compiled in {} versions: {}", found.len(), join(found)))
        }
        Some(_) => None,
    });
    let absent =
        ABSENT.iter().filter_map(|name| versions.get(name).map(|found| format!("{name} {} is banned", join(found))));
    single.chain(absent).collect()
}

fn join(versions: &BTreeSet<&str>) -> String {
    versions.iter().copied().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> String {
        SINGLE.map(|name| format!("{name} v1.0.0\n")).concat()
    }

    #[test]
    fn one_version_each_is_fine_however_often_it_is_named() {
        assert_eq!(faults(&format!("{}{}", good(), good())), Vec::<String>::new());
    }

    #[test]
    fn a_second_version_is_a_fault() {
        let tree = good() + "hyper v0.14.32 (*)\n";
        assert_eq!(faults(&tree), ["hyper is compiled in 2 versions: v0.14.32, v1.0.0"]);
    }

    #[test]
    fn a_second_crypto_back_end_is_a_fault() {
        assert_eq!(faults(&(good() + "ring v0.17.14\n")), ["ring v0.17.14 is banned"]);
    }

    #[test]
    fn a_tree_that_cannot_be_read_is_a_fault() {
        assert_eq!(faults("").len(), SINGLE.len());
    }

    #[test]
    fn a_crate_of_a_similar_name_is_not_meant() {
        assert_eq!(faults(&(good() + "hyper-util v0.1.21\nhttp-body v1.0.1\n")), Vec::<String>::new());
    }
}
