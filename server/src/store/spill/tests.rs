use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::store::{
    conformance::samples::{commit_with_grant, credential, key},
    sealed::{KeyId, KeyMaterial, KeyRing},
};

fn writes() -> Vec<Write> {
    let served = Commit { fence: Fence::Above, ..commit_with_grant(&key("b/c"), 9, 3, "r2") };
    let Some(update) = served.grant.clone() else { unreachable!("it has one") };
    vec![
        Write::Token(Commit { grant: None, ..commit_with_grant(&key("a"), 1, 0, "") }),
        Write::Token(served),
        Write::Grant(credential("c"), update),
    ]
}

fn sealer(key: &KeyMaterial, config: &'static str) -> Option<Arc<Sealer>> {
    let id = KeyId::parse("k1").expect("a name");
    let ring = KeyRing::new(id, key).expect("a key");
    Some(Arc::new(Sealer::new(ring, move |_| Some(Fingerprint::of_bytes(config.as_bytes())))))
}

fn new_key() -> KeyMaterial {
    KeyMaterial::generate().expect("randomness")
}

#[test]
fn what_is_spilled_is_read_again_to_the_byte() {
    for sealer in [None, sealer(&new_key(), "config")] {
        is_read_again_to_the_byte(sealer);
    }
}

fn is_read_again_to_the_byte(sealer: Option<Arc<Sealer>>) {
    let directory = tempfile::tempdir().expect("a directory");
    let spill = Spill::new(&directory.path().join("made/when/needed"), sealer);
    assert_eq!(spill.files().expect("none yet"), Vec::<PathBuf>::new());
    let file = spill.save("r1-1", &writes()).expect("written");
    assert_eq!(spill.files().expect("readable"), std::slice::from_ref(&file));
    // Debug hides the secrets; the tokens are compared by themselves.
    let Spilt { writes: read, left } = spill.read(&file).expect("valid");
    assert_eq!(left, Vec::<String>::new());
    assert_eq!(format!("{read:?}"), format!("{:?}", writes()));
    let tokens = |writes: &[Write]| -> Vec<Option<Token>> {
        let token = |write: &Write| if let Write::Token(commit) = write { Some(commit.token.clone()) } else { None };
        writes.iter().map(token).collect()
    };
    assert_eq!(tokens(&read), tokens(&writes()));
    let secret = |write: &Write| match write {
        Write::Token(commit) => commit.grant.as_ref().map(|grant| grant.refresh_token.value.clone()),
        Write::Grant(_, update) => Some(update.refresh_token.value.clone()),
    };
    assert_eq!(read.iter().map(secret).collect::<Vec<_>>(), writes().iter().map(secret).collect::<Vec<_>>());
}

#[test]
fn its_owner_alone_can_read_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let spill = Spill::new(&directory.path().join("spill"), None);
    let file = spill.save("r1-1", &writes()).expect("written");
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!((mode(&file), mode(spill.directory())), (0o600, 0o700));
}

#[test]
fn a_file_that_is_no_spill_is_an_error_that_tells_nothing_of_it() {
    let directory = tempfile::tempdir().expect("a directory");
    for text in [
        "s3cr3t",
        r#"{"form":2,"writes":[]}"#,
        r#"{"form":3,"writes":[]}"#,
        r#"{"form":1,"writes":[{"credential":"s3cr3t !"}]}"#,
    ] {
        let file = directory.path().join("x.spill.json");
        fs::write(&file, text).expect("written");
        let error = Spill::new(directory.path(), None).read(&file).expect_err(text);
        assert!(!error.to_string().contains("s3cr3t"), "{error}");
    }
}

#[test]
fn what_is_sealed_holds_no_secret_in_the_clear_and_opens_in_its_place_alone() {
    let (directory, key) = (tempfile::tempdir().expect("a directory"), new_key());
    let spill = Spill::new(directory.path(), sealer(&key, "config"));
    let file = spill.save("r1-1", &writes()).expect("written");
    let text = fs::read_to_string(&file).expect("readable");
    // None of them can be in base64 by chance.
    for secret in ["token 9", "token 1", "sent at 3", "one.example"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    let left = |spill: &Spill, file: &Path| spill.read(file).map(|spilt| (spilt.writes.len(), spilt.left.len()));
    assert_eq!(left(&spill, &file).expect("valid"), (3, 0));

    let reconfigured = Spill::new(directory.path(), sealer(&key, "another token URL"));
    assert_eq!(left(&reconfigured, &file).expect("valid"), (0, 3));
    let other_key = Spill::new(directory.path(), sealer(&new_key(), "config"));
    assert_eq!(left(&other_key, &file).expect("valid"), (0, 3));
    assert!(Spill::new(directory.path(), None).read(&file).is_err());

    let moved = directory.path().join("r2-1.spill.json");
    fs::copy(&file, &moved).expect("copied");
    assert_eq!(left(&spill, &moved).expect("valid"), (0, 3), "another file");
    let mut form: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    form["writes"].as_array_mut().expect("writes").swap(0, 2);
    fs::write(&file, form.to_string()).expect("written");
    assert_eq!(left(&spill, &file).expect("valid"), (1, 2), "another place in the file");
}

#[test]
fn what_was_spilled_in_the_clear_is_taken_only_where_that_is_accepted() {
    let (directory, key) = (tempfile::tempdir().expect("a directory"), new_key());
    let file = Spill::new(directory.path(), None).save("r1-1", &writes()).expect("written");
    let error = Spill::new(directory.path(), sealer(&key, "c")).read(&file).expect_err("it is in the clear");
    assert!(error.to_string().contains("accept_plaintext"), "{error}");
    let ring = KeyRing::new(KeyId::parse("k1").expect("a name"), &key).expect("a key");
    let accepting = Sealer::new(ring, |_| None).accepting_plaintext(true);
    let spilt = Spill::new(directory.path(), Some(Arc::new(accepting))).read(&file).expect("accepted");
    assert_eq!(spilt.writes.len(), 3);
}
