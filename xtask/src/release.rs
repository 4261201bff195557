//! `cargo xtask release`: the binaries, each with a list of its dependencies inside and a bill of materials beside it.
//!
//! What they say is read back and checked by `xtask/release`; a release whose lists are wrong fails here.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::{e2e::target_directory, proto, step, torture::Profile, workspace_root};

/// What is installed under the target directory. Pinned, as `.ci/run` pins its tools.
const TOOLS: [(&str, &str); 2] = [("cargo-auditable", "0.7.7"), ("cargo-cyclonedx", "0.5.9")];

/// The binaries that are released, with their packages.
const BINARIES: [(&str, &str); 2] = [("tokencached", "tokencache-server"), ("tokencache", "tokencache-cli")];

#[derive(Args)]
pub(crate) struct Release {
    /// How the binaries are built: `dev` tries out the recipe
    #[arg(long, value_enum, default_value_t = Profile::Release)]
    profile: Profile,
}

/// Leaves everything in `release-artifacts` of the target directory.
pub(crate) fn run(release: &Release) -> Result<()> {
    proto::run(&proto::Proto::exact())?;
    let tools = target_directory().join("tools");
    TOOLS.iter().try_for_each(|(name, version)| install(name, version, &tools))?;
    let artifacts = target_directory().join("release-artifacts");
    if artifacts.exists() {
        fs::remove_dir_all(&artifacts)?;
    }
    fs::create_dir_all(&artifacts)?;
    build(release.profile, &tools, &artifacts)?;
    describe(&tools, &artifacts)?;
    check(&artifacts)?;
    println!("\nxtask release: done, in {}", artifacts.display());
    Ok(())
}

/// Installs exactly this version, beside and not among the tools of the user.
fn install(name: &str, version: &str, tools: &Path) -> Result<()> {
    let stamp = tools.join(format!("{name}-{version}"));
    if stamp.exists() {
        return Ok(());
    }
    let mut install = step::cargo();
    install.args(["install", "--locked", "--debug", "--force", "--version", version, "--root"]).arg(tools).arg(name);
    step::run(&format!("install {name} {version}"), &mut install)?;
    fs::write(stamp, "").context("cannot note what was installed")
}

/// A cargo that finds these tools as its subcommands.
fn cargo(tools: &Path) -> Result<Command> {
    let mut cargo = step::cargo();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let paths = [tools.join("bin")].into_iter().chain(std::env::split_paths(&path));
    cargo.env("PATH", std::env::join_paths(paths).context("the PATH cannot be extended")?);
    Ok(cargo)
}

fn build(profile: Profile, tools: &Path, artifacts: &Path) -> Result<()> {
    let mut build = cargo(tools)?;
    build.args(["auditable", "build", "--locked", "--profile", profile.name()]);
    for (binary, package) in BINARIES {
        build.args(["--package", package, "--bin", binary]);
    }
    step::run("build the binaries, with what they are made of inside", &mut build)?;
    for (binary, _) in BINARIES {
        fs::copy(target_directory().join(profile.directory()).join(binary), artifacts.join(binary))?;
    }
    Ok(())
}

/// Writes the bills. The tool puts one for each binary of the workspace beside its sources.
fn describe(tools: &Path, artifacts: &Path) -> Result<()> {
    let mut describe = cargo(tools)?;
    describe.args(["cyclonedx", "--quiet", "--format", "json", "--spec-version", "1.5", "--describe", "binaries"]);
    step::run("describe the binaries", describe.arg("--no-build-deps"))?;
    let root = workspace_root().display().to_string();
    for path in bills_beside_sources()? {
        let name = path.file_name().and_then(|name| name.to_str()?.strip_suffix("_bin.cdx.json"));
        if let Some((binary, _)) = BINARIES.into_iter().find(|(binary, _)| Some(*binary) == name) {
            // Where it was built is nobody's business.
            let bill = fs::read_to_string(&path)?.replace(&root, "");
            fs::write(artifacts.join(format!("{binary}.cdx.json")), bill)?;
        }
        fs::remove_file(path)?;
    }
    Ok(())
}

fn bills_beside_sources() -> Result<Vec<PathBuf>> {
    let list = step::output(step::command("find").args([
        ".",
        "-name",
        "target",
        "-prune",
        "-o",
        "-name",
        "*.cdx.json",
        "-print",
    ]))?;
    Ok(list.lines().map(|path| workspace_root().join(path)).collect())
}

/// Compares what the artifacts say with what cargo knows to be compiled in.
fn check(artifacts: &Path) -> Result<()> {
    let mut check = step::cargo();
    check.args(["run", "--locked", "--quiet", "--package", "tokencache-release", "--", "--lock"]);
    check.arg(workspace_root().join("Cargo.lock")).arg("--artifacts").arg(artifacts);
    for (binary, package) in BINARIES {
        let arguments = ["tree", "--locked", "--edges=normal", "--prefix=none", "--package", package];
        let tree = target_directory().join(format!("{binary}.tree"));
        fs::write(&tree, step::output(step::cargo().args(arguments))?)?;
        check.arg("--binary").arg(format!("{binary}={}", tree.display()));
    }
    let root = workspace_root().display().to_string();
    ensure!(root.len() > 1, "the repository is the root of the file system");
    step::run("what the artifacts say of themselves", check.arg("--private").arg(root))
}
