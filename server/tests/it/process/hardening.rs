//! The process keeps its memory to itself: the kernel says so in `/proc`.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _},
        process::CommandExt as _,
    },
    path::Path,
    process::Command,
};

use tempfile::TempDir;

use super::{Daemon, tokencached};

const CONFIGURATION: &str = r#"[server]
listen = "127.0.0.1:0"
admin_listen = "127.0.0.1:0"
metrics_listen = "127.0.0.1:0"
insecure_allow_any_caller = true

[store]
url = "memory:"
"#;

/// A user that is not root: who runs the tests, or `nobody`.
fn ordinary_user() -> u32 {
    match fs::metadata("/proc/self").expect("this process").uid() {
        0 => 65534,
        user => user,
    }
}

/// `tokencached serve` as that user, with further arguments, from a copy that the user may run wherever the original is.
/// The copy is made by a program, for a file that this process has open for writing could not be run.
fn serve(directory: &Path, arguments: &[&str]) -> Command {
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).expect("a directory of ours");
    let copied = Command::new("cp").arg(tokencached().get_program()).arg(directory).status().expect("cp");
    assert!(copied.success(), "{copied}");
    fs::write(directory.join("tokencached.toml"), CONFIGURATION).expect("a file");
    let mut command = Command::new(directory.join("tokencached"));
    command.env_remove("RUST_LOG").env_remove("TOKENCACHE_ALLOW_CORE_DUMPS").current_dir(directory);
    command.args(["serve", "--config", "tokencached.toml"]).args(arguments).uid(ordinary_user());
    command
}

/// Whose the memory of a process is, by what `/proc` says of it, and its line of the limit of core dumps.
fn seen_from_outside(daemon: &mut Daemon) -> (Vec<u32>, String) {
    let directory = format!("/proc/{}", daemon.id());
    let owner = |file| fs::metadata(format!("{directory}/{file}")).expect("it runs").uid();
    let limits = fs::read_to_string(format!("{directory}/limits")).expect("it runs");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a line");
    (["mem", "environ", "maps"].map(owner).to_vec(), core.split_whitespace().collect::<Vec<_>>().join(" "))
}

#[tokio::test]
async fn nobody_but_root_can_read_the_memory_of_a_broker_and_no_core_is_dumped() {
    let directory = TempDir::new().expect("a directory");
    let mut daemon = Daemon::start(serve(directory.path(), &[])).await;
    let (owners, core) = seen_from_outside(&mut daemon);
    assert_eq!((owners, core.as_str()), (vec![0; 3], "Max core file size 0 0 bytes"));
    assert_eq!(daemon.stop().await.code(), Some(0));
}

#[tokio::test]
async fn a_broker_can_be_debugged_by_its_user_where_that_is_asked_for() {
    let directory = TempDir::new().expect("a directory");
    let mut daemon = Daemon::start(serve(directory.path(), &["--allow-core-dumps"])).await;
    let (owners, core) = seen_from_outside(&mut daemon);
    assert_eq!(owners, [ordinary_user(); 3]);
    let own = fs::read_to_string("/proc/self/limits").expect("this process");
    let own = own.lines().find(|line| line.starts_with("Max core file size")).expect("a line");
    assert_eq!(core, own.split_whitespace().collect::<Vec<_>>().join(" "), "the limit is left as it was");
    assert_eq!(daemon.stop().await.code(), Some(0));
}
