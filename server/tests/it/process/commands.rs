//! The commands that end by themselves: what they print and how they exit.

use std::fs;

use tempfile::TempDir;
use tokencache_testkit::Postgres;

use super::{FREE_PORTS, Outcome, tokencached};

fn directory() -> TempDir {
    TempDir::new().expect("a directory")
}

/// Runs the program in a directory, which has `tokencached.toml` with this text.
fn run(directory: &TempDir, configuration: &str, arguments: &[&str]) -> Outcome {
    fs::write(directory.path().join("tokencached.toml"), configuration).expect("a file");
    Outcome::of(tokencached().current_dir(directory.path()).args(arguments))
}

#[test]
fn the_version_is_told() {
    let outcome = Outcome::of(tokencached().arg("--version"));
    assert_eq!(outcome.code(), Some(0));
    assert_eq!(outcome.stdout, format!("tokencached {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_wrong_command_line_is_refused_with_two() {
    for arguments in [
        &[][..],
        &["serve"],
        &["serve", "--dev", "--config", "x"],
        &["serve", "--config", "x", "--listen", "127.0.0.1:1"],
    ] {
        let outcome = Outcome::of(tokencached().args(arguments));
        assert_eq!(outcome.code(), Some(2), "{arguments:?}: {outcome:?}");
        assert!(outcome.stderr.contains("Usage"), "{outcome:?}");
    }
}

#[test]
fn the_default_configuration_is_printed_and_is_valid() {
    let printed = Outcome::of(tokencached().arg("default-config"));
    assert_eq!((printed.code(), printed.stderr.as_str()), (Some(0), ""));
    assert_eq!(printed.stdout, include_str!("../../../src/config/default.toml"));

    let checked = run(&directory(), &printed.stdout, &["check-config", "tokencached.toml"]);
    assert_eq!(checked.code(), Some(0), "{checked:?}");
    assert!(checked.stdout.ends_with("tokencached.toml: ok\n"), "{checked:?}");
}

#[test]
fn a_good_configuration_is_summed_up() {
    let configuration = "[credentials.static]\nprovider = \"fixed\"\ntoken = { command = [\"echo\", \"t\"] }\n";
    let outcome = run(&directory(), configuration, &["check-config", "tokencached.toml"]);
    assert_eq!((outcome.code(), outcome.stderr.as_str()), (Some(0), ""));
    assert!(outcome.stdout.contains("\ncredential static: fixed, refresh window by lifetime, reject on 401\n"));
}

#[test]
fn a_bad_configuration_is_told_whole_and_refused_with_one() {
    let configuration = "[server]\nlisten = \"nowhere\"\n[credentials.a]\nprovider = \"fixd\"\n";
    let outcome = run(&directory(), configuration, &["check-config", "tokencached.toml"]);
    assert_eq!((outcome.code(), outcome.stderr.as_str()), (Some(1), "tokencached: the configuration has problems\n"));
    for expected in
        ["tokencached.toml:2:10: server.listen: ", "tokencached.toml:4:12: ", "tokencached.toml: 2 problems\n"]
    {
        assert!(outcome.stdout.contains(expected), "{expected}: {outcome:?}");
    }
}

#[test]
fn a_secret_that_cannot_be_read_is_a_problem_of_the_check_alone() {
    let configuration = "[credentials.a]\nprovider = \"fixed\"\ntoken = { file = \"missing\" }\n";
    let directory = directory();
    let outcome = run(&directory, configuration, &["check-config", "tokencached.toml"]);
    assert_eq!(outcome.code(), Some(1), "{outcome:?}");
    assert!(outcome.stdout.contains("credentials.a.token: cannot read the file "), "{outcome:?}");
    assert_eq!(run(&directory, configuration, &["migrate", "--config", "tokencached.toml"]).code(), Some(0));
}

#[test]
fn a_configuration_that_is_not_there_is_named() {
    for arguments in
        [&["check-config", "gone.toml"][..], &["serve", "--config", "gone.toml"], &["migrate", "--config", "gone.toml"]]
    {
        let outcome = run(&directory(), "", arguments);
        assert_eq!(outcome.code(), Some(1), "{outcome:?}");
        let said = outcome.stdout + &outcome.stderr;
        assert!(said.contains("gone.toml: cannot read the file"), "{said}");
    }
}

#[test]
fn a_bad_configuration_is_not_served() {
    let outcome = run(&directory(), "[server]\nlissten = \"x\"\n", &["serve", "--config", "tokencached.toml"]);
    assert_eq!(outcome.code(), Some(1), "{outcome:?}");
    assert!(outcome.stderr.starts_with("tokencached: tokencached.toml:2:1: "), "{outcome:?}");
    assert!(outcome.stderr.contains("`listen`"), "the nearest key is named: {outcome:?}");
}

#[test]
fn a_store_that_outlives_the_process_is_not_served_without_a_key_and_what_to_do_is_told() {
    let store = format!("{FREE_PORTS}[store]\nurl = \"sqlite:tokens.db\"\n");
    let outcome = run(&directory(), &store, &["serve", "--config", "tokencached.toml"]);
    assert_eq!(outcome.code(), Some(1), "{outcome:?}");
    for told in ["no key to seal", "tokencached key generate --file tokencache.key", "[encryption]"] {
        assert!(outcome.stderr.contains(told), "{outcome:?}");
    }
}

#[test]
fn a_key_that_was_generated_seals_and_one_that_is_none_is_told_of() {
    let directory = directory();
    let configuration = "[store]\nurl = \"sqlite:tokens.db\"\n[encryption]\nactive = \"k1\"\n\
                         keys = { k1 = { file = \"k1.key\" } }\n";
    let status = ["key", "status", "--config", "tokencached.toml"];
    let outcome = run(&directory, configuration, &["key", "generate", "--file", "k1.key"]);
    assert_eq!(outcome.code(), Some(0), "{outcome:?}");
    assert_eq!(run(&directory, configuration, &["key", "generate", "--file", "k1.key"]).code(), Some(1), "it exists");
    assert_eq!(run(&directory, configuration, &["migrate", "--config", "tokencached.toml"]).code(), Some(0));
    let outcome = run(&directory, configuration, &status);
    assert_eq!(outcome.code(), Some(0), "{outcome:?}");
    assert!(outcome.stdout.starts_with("active key: k1\nrows to be sealed anew: 0\n"), "{outcome:?}");

    fs::write(directory.path().join("k1.key"), "s3cr3t").expect("a file");
    let outcome = run(&directory, configuration, &status);
    assert_eq!(outcome.code(), Some(1));
    assert!(outcome.stderr.contains("the key k1 of [encryption]: a key is 32 bytes"), "{outcome:?}");
    assert!(!outcome.stderr.contains("s3cr3t"), "{outcome:?}");

    let printed = Outcome::of(tokencached().args(["key", "generate"])).stdout;
    assert_eq!(printed.trim_end().len(), 44, "base64 of 32 bytes");
}

#[test]
fn sqlite_is_migrated_any_number_of_times() {
    let directory = directory();
    for _ in 0..2 {
        let configuration = "[store]\nurl = \"sqlite:data/tokens.db\"\n";
        let outcome = run(&directory, configuration, &["migrate", "--config", "tokencached.toml"]);
        assert_eq!((outcome.code(), outcome.stdout.as_str()), (Some(0), "the schema is up to date\n"), "{outcome:?}");
    }
    assert!(directory.path().join("data/tokens.db").exists());
}

#[tokio::test]
async fn postgres_is_migrated_any_number_of_times() {
    let server = Postgres::start().await.expect("a Postgres to test with");
    let url = server.new_database().await.expect("a new database");
    let directory = directory();
    let configuration = format!("[store]\nurl = \"{url}\"\npassword = {{ env = \"PG_PASSWORD\" }}\n");
    fs::write(directory.path().join("tokencached.toml"), configuration).expect("a file");
    for _ in 0..2 {
        let outcome = Outcome::of(
            tokencached()
                .current_dir(directory.path())
                .env("PG_PASSWORD", server.password().unwrap_or("unused"))
                .args(["migrate", "--config", "tokencached.toml"]),
        );
        assert_eq!((outcome.code(), outcome.stdout.as_str()), (Some(0), "the schema is up to date\n"), "{outcome:?}");
    }
}

#[test]
fn a_file_that_is_no_database_is_not_migrated() {
    let directory = directory();
    fs::write(directory.path().join("tokens.db"), "this is a text, and not a short one either ".repeat(99))
        .expect("a file");
    let outcome =
        run(&directory, "[store]\nurl = \"sqlite:tokens.db\"\n", &["migrate", "--config", "tokencached.toml"]);
    assert_eq!(outcome.code(), Some(1), "{outcome:?}");
    assert!(outcome.stderr.starts_with("tokencached: the store: "), "{outcome:?}");
}

const ACCESS: &str = "[authn]\napi_keys = true\n[grants.ci]\nsubjects = [\"key:ci\"]\ncredentials = [\"git/*\"]\n\
                      actions = [\"get\"]\nscopes = [\"read\"]\n[credentials.\"git/a\"]\nprovider = \"fixed\"\n\
                      token = { command = [\"echo\", \"t\"] }\n";

#[test]
fn a_policy_says_which_grant_decides_and_why_the_others_do_not() {
    let directory = directory();
    let ask = |more: &[&str]| {
        let question = ["explain-policy", "--config", "tokencached.toml", "--action", "get"];
        let outcome = run(&directory, ACCESS, &[&question[..], more].concat());
        assert_eq!(outcome.code(), Some(0), "{outcome:?}");
        outcome.stdout
    };
    let allowed = ask(&["--subject", "key:ci", "--credential", "git/a", "--scope", "read"]);
    assert_eq!(allowed, "allowed by the grant `ci`\n");
    for (subject, credential, scope, why) in [
        ("key:cd", "git/a", "read", "it is not for this subject"),
        ("key:ci", "crm", "read", "it is not for this credential"),
        ("key:ci", "git/a", "write", "it limits the scopes"),
    ] {
        let denied = ask(&["--subject", subject, "--credential", credential, "--scope", scope]);
        assert!(denied.starts_with("denied: no grant covers it\n  grant `ci`: "), "{denied}");
        assert!(denied.contains(why), "{denied}");
    }
    let outcome = run(
        &directory,
        ACCESS,
        &["explain-policy", "--config", "tokencached.toml", "--subject", "x", "--action", "gett"],
    );
    assert_eq!((outcome.code(), outcome.stderr.contains("an action is get, watch")), (Some(1), true), "{outcome:?}");
}

#[test]
fn an_api_key_is_shown_once_listed_and_revoked() {
    let directory = directory();
    let generated = run(&directory, ACCESS, &["key", "generate", "--file", "k1.key"]);
    assert_eq!(generated.code(), Some(0), "{generated:?}");
    let configuration = format!("{ACCESS}[encryption]\nactive = \"k1\"\nkeys = {{ k1 = {{ file = \"k1.key\" }} }}\n");
    let key = |arguments: &[&str]| {
        run(&directory, &configuration, &[&["api-key", "--config", "tokencached.toml"][..], arguments].concat())
    };
    let made = key(&["create", "ci", "--expires-in", "90d"]);
    assert_eq!(made.code(), Some(0), "{made:?}");
    let id = made.stdout.strip_prefix("tck_").and_then(|rest| rest.split('_').next()).expect("an id").to_owned();
    let secret = made.stdout.trim().rsplit('_').next().expect("a secret").to_owned();
    assert!(made.stderr.contains(&id) && !made.stderr.contains(&secret), "{made:?}");
    let listed = key(&["list"]);
    assert!(listed.stdout.contains(&id) && listed.stdout.contains("live"), "{listed:?}");
    assert!(!listed.stdout.contains(&secret), "{listed:?}");
    assert_eq!(key(&["revoke", &id]).code(), Some(0));
    assert!(key(&["list"]).stdout.contains("revoked"));
    let unknown = key(&["revoke", "0123456789abcdef"]);
    assert!(unknown.code() == Some(1) && unknown.stderr.contains("api-key list"), "{unknown:?}");
    assert!(key(&["create", "C I"]).stderr.contains("a name consists of"));
}
