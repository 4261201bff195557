//! Makes sure that the tests will find a Postgres, and installs Debian's where nothing else is there.
//!
//! Which one is then used is the business of the test kit; the order here is the same.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::step;

/// Names a server for the tests: a URL of a role that may create databases.
const VARIABLE: &str = "TOKENCACHE_TEST_POSTGRES";

/// Where Debian puts the server binaries, off the PATH.
const DEBIAN_VERSIONS: &str = "/usr/lib/postgresql";

/// Keeps Debian's package from starting a server of its own, which nobody here asked for.
const CREATE_CLUSTER_CONF: &str = "/etc/postgresql-common/createcluster.conf";

/// Where the tests' Postgres comes from.
#[derive(Debug, PartialEq, Eq)]
enum Source {
    Variable,
    Docker,
    Binaries(PathBuf),
    Installable,
    Nowhere,
}

/// Says where the tests' Postgres comes from, and installs one if there is none and this machine lets us.
pub(crate) fn ensure() -> Result<()> {
    match find(docker_answers) {
        Source::Variable => println!("postgres: the server that {VARIABLE} names"),
        Source::Docker => println!("postgres: a container"),
        Source::Binaries(path) => println!("postgres: a throw-away cluster of {}", path.display()),
        Source::Installable => install()?,
        Source::Nowhere => bail!(
            "the tests need a Postgres: set {VARIABLE} to a URL such as postgres://user:password@host/postgres, or start \
             a Docker engine, or install the server's binaries (Debian: apt-get install postgresql)"
        ),
    }
    Ok(())
}

/// Makes sure that there are binaries for servers of a test's own, wherever the shared one comes from.
pub(crate) fn find_binaries() -> Result<()> {
    let found = binaries(&env::var_os("PATH").unwrap_or_default(), Path::new(DEBIAN_VERSIONS));
    found.map(drop).context("there are no binaries of Postgres on this machine (Debian: apt-get install postgresql)")
}

/// Docker is asked last of the cheap questions but ranks before local binaries, as in the test kit.
fn find(docker_answers: impl Fn() -> bool) -> Source {
    choose(
        env::var_os(VARIABLE).is_some_and(|url| !url.is_empty()),
        docker_answers,
        binaries(&env::var_os("PATH").unwrap_or_default(), Path::new(DEBIAN_VERSIONS)),
        may_install(),
    )
}

fn choose(variable: bool, docker: impl Fn() -> bool, binaries: Option<PathBuf>, may_install: bool) -> Source {
    if variable {
        Source::Variable
    } else if docker() {
        Source::Docker
    } else if let Some(path) = binaries {
        Source::Binaries(path)
    } else if may_install {
        Source::Installable
    } else {
        Source::Nowhere
    }
}

fn docker_answers() -> bool {
    step::succeeds(step::command("docker").args(["version", "--format", "{{.Server.Version}}"]))
}

/// The directory of `postgres` and `initdb`: on the PATH, or the newest of Debian's.
fn binaries(path: &std::ffi::OsStr, debian: &Path) -> Option<PathBuf> {
    let complete = |directory: &PathBuf| ["postgres", "initdb"].iter().all(|name| directory.join(name).is_file());
    if let Some(directory) = env::split_paths(path).find(complete) {
        return Some(directory);
    }
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir(debian)
        .ok()?
        .filter_map(Result::ok)
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, directory)| complete(directory))
        .collect();
    versions.sort();
    versions.pop().map(|(_, directory)| directory)
}

/// Only root on a machine with apt: anything else would ask for a password or guess at a package's name.
pub(crate) fn may_install() -> bool {
    let root = step::output(step::command("id").arg("-u")).is_ok_and(|id| id.trim() == "0");
    root && step::succeeds(step::command("apt-get").arg("--version"))
}

fn install() -> Result<()> {
    let conf = Path::new(CREATE_CLUSTER_CONF);
    if !conf.exists() {
        fs::create_dir_all("/etc/postgresql-common")?;
        fs::write(conf, "create_main_cluster = false\n")
            .with_context(|| format!("cannot write {CREATE_CLUSTER_CONF}"))?;
    }
    step::run("install Postgres: apt-get update", apt().arg("update"))?;
    step::run(
        "install Postgres: apt-get install",
        apt().args(["install", "--yes", "--no-install-recommends", "postgresql"]),
    )
}

pub(crate) fn apt() -> Command {
    let mut apt = step::command("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive").args(["--quiet", "-o", "Dpkg::Options::=--force-confold"]);
    apt
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory_with(names: &[&str], under: &Path) -> PathBuf {
        fs::create_dir_all(under).unwrap();
        for name in names {
            fs::write(under.join(name), "").unwrap();
        }
        under.to_owned()
    }

    #[test]
    fn the_variable_ranks_before_docker_before_binaries_before_an_installation() {
        let bin = || Some(PathBuf::from("/bin"));
        assert_eq!(choose(true, || true, bin(), true), Source::Variable);
        assert_eq!(choose(false, || true, bin(), true), Source::Docker);
        assert_eq!(choose(false, || false, bin(), true), Source::Binaries("/bin".into()));
        assert_eq!(choose(false, || false, None, true), Source::Installable);
        assert_eq!(choose(false, || false, None, false), Source::Nowhere);
    }

    #[test]
    fn docker_is_not_asked_where_the_variable_is_set() {
        assert_eq!(choose(true, || unreachable!(), None, false), Source::Variable);
    }

    #[test]
    fn the_newest_complete_version_of_debian_is_found() {
        let root = tempfile::tempdir().unwrap();
        directory_with(&["postgres", "initdb"], &root.path().join("9/bin"));
        let newest = directory_with(&["postgres", "initdb"], &root.path().join("15/bin"));
        directory_with(&["psql"], &root.path().join("17/bin"));
        assert_eq!(binaries("".as_ref(), root.path()), Some(newest));
    }

    #[test]
    fn a_link_to_the_server_alone_is_not_an_installation() {
        let root = tempfile::tempdir().unwrap();
        let path = directory_with(&["postgres"], &root.path().join("bin"));
        assert_eq!(binaries(path.as_os_str(), &root.path().join("none")), None);
    }
}
