//! Every source and every way it can fail; none of them shows the secret.

use std::path::Path;

use tempfile::TempDir;
use toml::de::DeTable;

use super::*;
use crate::config::reader::Problems;

const CANARY: &str = "hunter2";

fn file(directory: &TempDir, bytes: &[u8]) -> SecretSource {
    let path = directory.path().join("secret");
    std::fs::write(&path, bytes).unwrap();
    SecretSource::File(path)
}

fn command(words: &[&str]) -> SecretSource {
    SecretSource::Command(words.iter().map(|&word| word.into()).collect())
}

async fn text(source: &SecretSource) -> String {
    source.read().await.unwrap().expose().clone()
}

/// The error of a source; neither it nor its Debug shows the secret.
async fn error(source: &SecretSource) -> String {
    let error = source.read().await.unwrap_err();
    let shown = format!("{error} {error:?} {source:?}");
    assert!(!shown.contains(CANARY), "{shown}");
    error.to_string()
}

#[tokio::test]
async fn one_trailing_line_break_of_a_file_is_not_part_of_the_secret() {
    let directory = TempDir::new().unwrap();
    for (bytes, secret) in [
        ("s", "s"),
        ("s\n", "s"),
        ("s\r\n", "s"),
        ("s\n\n", "s\n"),
        (" s ", " s "),
        ("s\r", "s\r"),
        ("a\nb\n", "a\nb"),
        ("ß", "ß"),
    ] {
        assert_eq!(text(&file(&directory, bytes.as_bytes())).await, secret, "{bytes:?}");
    }
}

#[tokio::test]
async fn a_replaced_file_is_seen_at_the_next_read() {
    let directory = TempDir::new().unwrap();
    let source = file(&directory, b"one");
    assert_eq!(text(&source).await, "one");
    file(&directory, b"two");
    assert_eq!(text(&source).await, "two");
}

#[tokio::test]
async fn an_unusable_file_says_what_is_wrong_with_it() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("secret");
    let from = format!("the secret from the file {} is", path.display());
    for (bytes, what) in [
        (&b""[..], "empty"),
        (b"\n", "empty"),
        (b"hunter2\xff", "not UTF-8"),
        (&[b'x'; MAX_LEN + 1], "longer than 64 KiB"),
    ] {
        assert_eq!(error(&file(&directory, bytes)).await, format!("{from} {what}"));
    }
    assert_eq!(text(&file(&directory, &[b'x'; MAX_LEN])).await.len(), MAX_LEN);
}

#[tokio::test]
async fn a_sparse_file_of_a_terabyte_is_not_read_whole() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("secret");
    File::create(&path).unwrap().set_len(1 << 40).unwrap();
    let expected = format!("the secret from the file {} is longer than 64 KiB", path.display());
    assert_eq!(error(&SecretSource::File(path)).await, expected);
}

#[tokio::test]
async fn what_is_not_a_regular_file_is_refused_without_opening_it() {
    let directory = TempDir::new().unwrap();
    let pipe = directory.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for path in [pipe.as_path(), directory.path(), Path::new("/dev/zero")] {
        let expected = format!("{} is not a regular file", path.display());
        assert_eq!(error(&SecretSource::File(path.into())).await, expected);
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_named() {
    let missing = SecretSource::File("/nonexistent/secret".into());
    assert_eq!(error(&missing).await, "cannot read the file /nonexistent/secret: entity not found");
}

#[tokio::test]
async fn a_variable_is_taken_as_it_is() {
    // Cargo sets this one for every test; setting one here would be unsound beside other threads.
    assert_eq!(text(&SecretSource::Env("CARGO_PKG_NAME".into())).await, "tokencache-server");
    let unset = SecretSource::Env("TOKENCACHE_NO_SUCH_VARIABLE".into());
    assert_eq!(error(&unset).await, "the environment variable TOKENCACHE_NO_SUCH_VARIABLE is not set");
}

#[test]
fn a_variable_keeps_its_line_break_and_must_be_utf_8() {
    let source = SecretSource::Env("X".into());
    assert_eq!(source.secret_in(b"s\n").unwrap().expose(), "s\n");
    let error = source.secret_in(b"hunter2\xff").unwrap_err();
    assert_eq!(error.to_string(), "the secret from the environment variable X is not UTF-8");
}

#[tokio::test]
async fn a_command_gives_its_output_without_a_shell_between() {
    assert_eq!(text(&command(&["printf", "%s\\n", "$HOME; a  b"])).await, "$HOME; a  b");
}

#[tokio::test]
async fn a_command_that_fails_says_how_and_not_what_it_printed() {
    let source = command(&["sh", "-c", "echo hunter2; echo hunter2 >&2; exit 3"]);
    assert_eq!(error(&source).await, "sh failed: exit status: 3");
    let source = command(&["sh", "-c", "kill -9 $$"]);
    assert_eq!(error(&source).await, "sh failed: signal: 9 (SIGKILL)");
}

#[tokio::test]
async fn a_command_that_cannot_be_run_is_named_without_its_arguments() {
    let source = command(&["/nonexistent/program", CANARY]);
    assert_eq!(error(&source).await, "cannot run /nonexistent/program: entity not found");
    assert_eq!(error(&command(&["true", CANARY])).await, "the secret from the command true is empty");
}

#[tokio::test]
async fn a_command_that_prints_for_ever_is_cut_off() {
    assert_eq!(error(&command(&["yes"])).await, "the secret from the command yes is longer than 64 KiB");
}

#[tokio::test(start_paused = true)]
async fn a_command_that_hangs_is_given_up() {
    // The paused clock runs ahead as soon as everything waits, so this takes no time.
    assert_eq!(error(&command(&["sleep", "600"])).await, "the command sleep gave no secret within 10 s");
}

#[test]
fn a_program_with_a_slash_is_looked_for_from_the_directory_of_the_file() {
    let text = "a = { command = [\"bin/get\", \"./x\"] }\nb = { command = [\"pass\", \"x/y\"] }\nc = { command = [\"/bin/cat\"] }";
    let problems = Problems::new("f", text, "/etc".into());
    let table = DeTable::parse(text).unwrap();
    let section = Section::new(&problems, "", table.get_ref(), 0);
    assert_eq!(section.secret("a"), Some(command(&["/etc/bin/get", "./x"])));
    assert_eq!(section.secret("b"), Some(command(&["pass", "x/y"])));
    assert_eq!(section.secret("c"), Some(command(&["/bin/cat"])));
    assert!(problems.is_empty());
}

#[test]
fn a_file_that_only_its_owner_can_use_is_not_open() {
    use std::os::unix::fs::PermissionsExt as _;

    let directory = TempDir::new().unwrap();
    let source = file(&directory, b"s");
    let path = directory.path().join("secret");
    let set = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    for mode in [0o600, 0o400, 0o700] {
        set(mode);
        assert_eq!(source.open_mode(), None, "{mode:o}");
    }
    for mode in [0o604, 0o640, 0o602, 0o610] {
        set(mode);
        assert_eq!(source.open_mode(), Some((path.as_path(), mode)));
    }
    assert_eq!(SecretSource::File("/dev/null".into()).open_mode(), None);
    assert_eq!(SecretSource::Env("PATH".into()).open_mode(), None::<(&Path, u32)>);
}

#[test]
fn commands_that_differ_in_an_argument_differ_in_identity() {
    let (one, other) = (command(&["pass", "a"]), command(&["pass", "b"]));
    assert_eq!(format!("{one:?}"), format!("{other:?}"));
    assert_ne!(one.identity(), other.identity());
    assert_ne!(SecretSource::Env("x".into()).identity(), SecretSource::File("x".into()).identity());
}
