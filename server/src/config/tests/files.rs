//! Reading from disk: the file itself, the secrets that it names, and `check-config`.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn write(path: &Path, text: impl AsRef<[u8]>, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn load(path: &Path) -> Result<Config, ConfigError> {
    Config::load(path, &toy::registry())
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let directory = directory();
    let path = directory.path().join("missing.toml");
    let message = format!("{}: cannot read the file: entity not found", path.display());
    assert_eq!(load(&path).unwrap_err().problems, [message]);
    assert!(load(directory.path()).is_err());
}

#[test]
fn a_file_that_is_not_utf_8_is_refused_with_the_line() {
    let directory = directory();
    let path = directory.path().join("c.toml");
    write(&path, b"[server]\nlisten = \"\xff\"\n", 0o600);
    let message = format!("{}: line 2 is not UTF-8", path.display());
    assert_eq!(load(&path).unwrap_err().problems, [message]);
}

#[test]
fn an_endless_file_is_refused() {
    let message = "/dev/zero: the file is longer than 16 MiB".to_owned();
    assert_eq!(load(Path::new("/dev/zero")).unwrap_err().problems, [message]);
}

#[test]
fn a_secret_file_that_others_can_read_is_warned_of() {
    let directory = directory();
    let path = directory.path().join("c.toml");
    write(&path, format!("{CREDENTIAL}client_secret = {{ file = \"s\" }}\n"), 0o644);
    let secret = directory.path().join("s");

    write(&secret, "hunter2", 0o640);
    let [warning] = &load(&path).unwrap().warnings[..] else { panic!("one warning") };
    let place = format!("{}:5:17: credentials.ci.client_secret: ", path.display());
    assert!(warning.starts_with(&place), "{warning}");
    assert!(warning.contains("(mode 0640)") && warning.ends_with(&format!("chmod 600 {}", secret.display())));

    write(&secret, "hunter2", 0o600);
    assert_eq!(load(&path).unwrap().warnings, Vec::<String>::new());
}

#[tokio::test]
async fn a_check_tries_every_secret_and_tells_every_problem_in_the_order_of_the_file() {
    let directory = directory();
    let path = directory.path().join("c.toml");
    write(
        &path,
        format!("{CREDENTIAL}client_secret = {{ file = \"s\" }}\nsize = 0\n[authn]\napi_keys = true\n"),
        0o644,
    );
    let report = check(&path, &toy::registry()).await;
    assert!(!report.is_ok());
    let [file, secret] = [path.display(), directory.path().join("s").display()].map(|p| p.to_string());
    assert_eq!(
        report.to_string(),
        format!(
            "{file}:5:17: credentials.ci.client_secret: cannot read the file {secret}: entity not found\n\
             {file}:6:8: credentials.ci.size: expected an integer from 1 to 10\n\
             {file}: 2 problems"
        )
    );
}

#[test]
fn a_line_break_in_a_path_does_not_break_the_line_of_its_problem() {
    let text = "[authn.mtls]\nca_file = \"a\\r\\nforged:1:1: line\"\ntrust_domain = \"d.example\"\n";
    let error = parse(text).expect_err("there is no such file");
    let about = error.problems.iter().find(|problem| problem.contains("ca_file")).expect("a problem");
    assert!(about.contains("a\\r\\nforged") && !about.contains(['\r', '\n']), "{about}");
}

#[tokio::test]
async fn a_check_of_a_good_file_sums_it_up() {
    let directory = directory();
    let path = directory.path().join("c.toml");
    write(&directory.path().join("s"), "hunter2", 0o600);
    let more = "client_secret = { file = \"s\" }\nrefresh_window = \"10m\"\nreject_on = [401, \"expired\"]\n";
    let rotating = CREDENTIAL.replace("credentials.ci", "credentials.\"crm/prod\"").replace("toy", "toy_rotating");
    let text = format!(
        "[store]\nurl = \"memory:\"\n{CREDENTIAL}{more}{rotating}when_degraded = \"refuse\"\n[authn]\napi_keys = true\n"
    );
    write(&path, text, 0o644);
    let report = check(&path, &toy::registry()).await;
    assert!(report.is_ok(), "{report}");
    assert_eq!(
        report.to_string(),
        format!(
            "server: client API on 127.0.0.1:50051, admin API on 127.0.0.1:50052, metrics on 127.0.0.1:9464; \
             store memory:\n\
             credential ci: toy, refresh window 10m, reject on 401 expired\n\
             credential crm/prod: toy, rotating refresh token, strict, refresh window by lifetime, reject on 401, \
             refuses when degraded\n\
             {}: ok",
            path.display()
        )
    );
}

#[tokio::test]
async fn a_check_of_a_missing_file_is_a_report_too() {
    let registry = toy::registry();
    // A task may run it: the problems that it collects are not shared with other threads.
    let checking: std::pin::Pin<Box<dyn Future<Output = Report> + Send>> =
        Box::pin(check(Path::new("/nonexistent/c.toml"), &registry));
    let report = checking.await;
    let line = "/nonexistent/c.toml: cannot read the file: entity not found\n/nonexistent/c.toml: 1 problem";
    assert_eq!(report.to_string(), line);
}
