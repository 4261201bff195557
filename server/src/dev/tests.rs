use std::os::unix::fs::PermissionsExt as _;

use rand::{SeedableRng as _, rngs::StdRng};

use super::*;

fn prepare(path: &Path, seed: u64) -> io::Result<DevHome> {
    DevHome::prepare(path, &mut StdRng::seed_from_u64(seed))
}

#[test]
fn a_second_run_finds_the_secrets_of_the_first() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("home");
    let first = prepare(&path, 1).unwrap();
    let second = prepare(&path, 2).unwrap();
    assert_eq!(first.key.client_secret(), second.key.client_secret());
    let written = fs::read_to_string(path.join(REFRESH_TOKEN_FILE)).unwrap();
    assert_eq!(&written, second.key.first_refresh_token().expose());
}

#[test]
fn everything_is_readable_by_its_owner_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("home");
    prepare(&path, 1).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    let files: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 4, "{files:?}");
    assert!(files.iter().all(|file| mode(file) == 0o600));
}

#[test]
fn a_damaged_key_is_named_and_not_replaced() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join(KEY_FILE), "abc").unwrap();
    let error = prepare(directory.path(), 1).unwrap_err();
    assert!(error.to_string().contains(KEY_FILE), "{error}");
    assert_eq!(fs::read_to_string(directory.path().join(KEY_FILE)).unwrap(), "abc");
}

#[test]
fn the_configuration_is_toml_without_a_secret() {
    let directory = tempfile::tempdir().unwrap();
    let home = prepare(directory.path(), 1).unwrap();
    let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let text = config(at(50051), at(50053));
    let table = toml::de::DeTable::parse(&text).unwrap();
    let table = table.get_ref();
    let names: Vec<_> =
        table["credentials"].get_ref().as_table().unwrap().keys().map(|key| key.get_ref().to_string()).collect();
    assert_eq!(names, ["demo", "demo-rotating", "demo-session"]);
    for secret in [home.key.client_secret(), home.key.password(), home.key.first_refresh_token()] {
        assert!(!text.contains(secret.expose().as_str()));
    }
}
