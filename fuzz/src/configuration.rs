//! Configuration files.

use std::cell::RefCell;

use tokencache_server::{config::Config, provider::registry::ProviderRegistry, types::CredentialName};
use toml::de::{DeTable, DeValue};

/// What stands for a secret that somebody wrote into the file.
const CANARY: &str = "hunter2";

/// The keys that take a secret, which never stands in the file.
const SECRET_KEYS: [&str; 5] = ["client_secret", "password", "refresh_token", "token", "k"];

/// So many files are read before the HTTP clients that they need are forgotten.
const CLIENTS_KEPT: u32 = 1000;

thread_local! {
    static REGISTRY: RefCell<(u32, ProviderRegistry)> = RefCell::new((0, ProviderRegistry::builtin()));
}

/// The text of a file.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    // No device is waited for.
    if text.contains("/dev/") || text.contains("/proc/") {
        return;
    }
    REGISTRY.with_borrow_mut(|(read, registry)| {
        *read += 1;
        if *read % CLIENTS_KEPT == 0 {
            *registry = ProviderRegistry::builtin();
        }
        check_text(text, registry);
    });
}

fn check_text(text: &str, registry: &ProviderRegistry) {
    let parse = |text: &str| Config::parse("c.toml", text, "/nonexistent/tokencache", registry);
    let (read, told) = match parse(text) {
        Ok(config) => {
            let warnings = config.warnings.clone();
            (Some(config), warnings)
        }
        Err(error) => {
            assert!(!error.problems.is_empty());
            (None, error.problems)
        }
    };
    for line in &told {
        check_line(line, text);
    }
    if text.contains(CANARY) && is_only_where_secrets_may_not_stand(text) {
        assert!(!told.iter().any(|line| line.contains(CANARY)), "{told:?}");
        assert!(!format!("{read:?}").contains(CANARY));
    }
    let Some(config) = read else { return };
    for credential in config.credentials.iter() {
        let name = credential.name.as_str();
        assert_eq!(CredentialName::parse(name).as_ref(), Ok(&credential.name));
        assert!(!name.split('/').any(|segment| matches!(segment, "" | "." | "..")));
    }
    check_stays_strict(text, parse);
}

/// One line, with a place that is in the file.
fn check_line(line: &str, text: &str) {
    assert!(!line.contains(['\n', '\r']), "{line:?}");
    let mut parts = line.strip_prefix("c.toml:").expect("the file").splitn(3, ':');
    let mut number = || parts.next().and_then(|number| number.parse::<usize>().ok()).expect("a number");
    let (row, column) = (number(), number());
    let there = text.split('\n').nth(row - 1).expect("a line of the file");
    assert!((1..=there.chars().count() + 1).contains(&column), "{line:?}");
}

/// A file that is accepted is refused with one more key that nobody knows.
fn check_stays_strict(text: &str, parse: impl Fn(&str) -> Result<Config, tokencache_server::config::ConfigError>) {
    let problems = parse(&format!("{text}\n[unheard-of]\nx = 1\n")).expect_err("an unknown key").problems;
    assert!(problems.iter().any(|problem| problem.contains("unknown key")), "{problems:?}");
}

/// Whether the canary is nowhere but in the values of keys that take secrets.
fn is_only_where_secrets_may_not_stand(text: &str) -> bool {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut values = 0;
    errors.is_empty() && count(table.get_ref(), &mut values) && values == text.matches(CANARY).count()
}

/// Counts the canaries that are such values. Whether all are.
fn count(table: &DeTable<'_>, values: &mut usize) -> bool {
    table.iter().all(|(key, value)| {
        let key: &str = key.get_ref();
        let plain = !key.contains(CANARY);
        plain
            && match value.get_ref() {
                DeValue::String(text) => {
                    *values += text.matches(CANARY).count();
                    SECRET_KEYS.contains(&key) || !text.contains(CANARY)
                }
                DeValue::Table(inner) => count(inner, values),
                DeValue::Array(_) => !format!("{value:?}").contains(CANARY),
                _ => true,
            }
    })
}
