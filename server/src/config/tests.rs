//! Whole files: every mistake has its message, and the samples have none.

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::{
    credential::{RejectOn, WhenDegraded},
    error::ErrorKind,
    provider::MintRequest,
    types::{CredentialName, Selector, TokenKey},
};

mod files;
mod samples;
mod toy;

/// The directory that the fixtures pretend to be in.
const DIRECTORY: &str = "/etc/tokencache";

const CREDENTIAL: &str =
    "[credentials.ci]\nprovider = \"toy\"\ntoken_url = \"https://idp.example/token\"\nclient_id = \"ci\"\n";

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse("config.toml", text, DIRECTORY, &toy::registry())
}

fn credential(config: &Config, name: &str) -> std::sync::Arc<crate::credential::Credential> {
    config.credentials.get(&CredentialName::parse(name).unwrap()).cloned().unwrap()
}

#[test]
fn each_mistake_has_its_message_and_all_are_told_at_once() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/config");
    let mut wrong = Vec::new();
    let mut cases = 0;
    for case in fs::read_dir(&fixtures).unwrap() {
        let case = case.unwrap().path();
        let text = fs::read_to_string(case.join("config.toml")).unwrap();
        let expected = fs::read_to_string(case.join("problems.txt")).unwrap();
        let found = parse(&text).map_or_else(|error| format!("{error}\n"), |_| "no problem\n".into());
        assert!(!found.contains("hunter2") && !found.contains("31337"), "a secret in {found}");
        if found != expected {
            wrong.push(format!("{}\nexpected:\n{expected}found:\n{found}", case.display()));
        }
        cases += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(cases >= 80, "only {cases} cases in {}", fixtures.display());
}

#[test]
fn the_default_file_means_the_same_as_an_empty_one() {
    for text in ["", DEFAULT] {
        let config = Config::parse("default.toml", text, "", &toy::registry()).unwrap();
        assert_eq!(config.server, ServerConfig::default());
        assert_eq!(config.store, StoreConfig::default());
        assert_eq!(config.encryption, EncryptionConfig::default());
        assert_eq!(config.cache, CacheConfig::default());
        assert_eq!(config.audit, AuditSettings::default());
        assert_eq!(config.telemetry, TelemetryConfig::default());
        assert!(config.credentials.is_empty());
        assert_eq!(config.warnings, Vec::<String>::new());
    }
}

#[test]
fn the_rules_of_a_credential_win_over_the_defaults() {
    let text = format!(
        "[defaults]\nrefresh_window = \"7m\"\nreject_on = [401, 403]\n\n{CREDENTIAL}\n\
         [credentials.\"own/rules\"]\nprovider = \"toy\"\ntoken_url = \"https://idp.example/token\"\nclient_id = \"x\"\n\
         refresh_window = \"3m\"\nidle_window = \"1d\"\nreject_on = [419, \"SESSION_EXPIRED\"]\nwhen_degraded = \"refuse\"\n"
    );
    let config = parse(&text).unwrap();

    let inherited = credential(&config, "ci");
    assert_eq!(inherited.refresh.window, Some(Duration::from_secs(7 * 60)));
    assert_eq!(inherited.refresh.idle_window, None);
    assert_eq!(inherited.reject_on, RejectOn { statuses: vec![401, 403], errors: vec![] });
    assert_eq!(inherited.when_degraded, WhenDegraded::Serve);

    let own = credential(&config, "own/rules");
    assert_eq!(own.refresh.window, Some(Duration::from_secs(3 * 60)));
    assert_eq!(own.refresh.idle_window, Some(Duration::from_secs(24 * 3600)));
    assert_eq!(own.reject_on, RejectOn { statuses: vec![419], errors: vec!["SESSION_EXPIRED".into()] });
    assert_eq!(own.when_degraded, WhenDegraded::Refuse);
}

#[test]
fn an_endpoint_has_its_own_rules_or_the_default_ones_whichever_credential_asks_it() {
    let oauth2 = |name: &str, url: &str| {
        format!(
            "[credentials.{name}]\nprovider = \"oauth2\"\ngrant = \"client_credentials\"\nclient_id = \"c\"\n{url}\n"
        )
    };
    let text = [
        "[defaults]\nmax_concurrent = 16\n[endpoints.\"https://idp.example:443\"]\nfailures_to_open = 3\n".to_owned(),
        oauth2("one", "token_url = \"https://IDP.example/token\""),
        oauth2("two", "issuer = \"https://idp.example/tenant\""),
        oauth2("other", "token_url = \"https://idp.example:8443/token\""),
        "[credentials.legacy]\nprovider = \"session\"\ntoken = { cookie = \"SID\" }\n\
         login = { url = \"https://idp.example/login\" }\n"
            .to_owned(),
        "[credentials.static]\nprovider = \"fixed\"\ntoken = { file = \"t\" }\n".to_owned(),
    ];
    let config = parse(&text.concat()).unwrap();
    assert_eq!(config.warnings, Vec::<String>::new());
    let endpoint = |name| {
        let endpoint = credential(&config, name).endpoint.clone()?;
        Some((endpoint.origin.to_string(), endpoint.rules.max_concurrent, endpoint.rules.failures_to_open))
    };
    for name in ["one", "two", "legacy"] {
        assert_eq!(endpoint(name), Some(("https://idp.example".to_owned(), 16, 3)), "{name}");
    }
    assert_eq!(endpoint("other"), Some(("https://idp.example:8443".to_owned(), 16, 5)));
    assert_eq!(endpoint("static"), None);
}

#[test]
fn an_endpoint_that_nobody_asks_is_warned_of() {
    let config = parse(&format!("[endpoints.\"https://idp.exmple\"]\nmax_concurrent = 8\n{CREDENTIAL}")).unwrap();
    assert_eq!(
        config.warnings,
        ["config.toml:1:1: endpoints.\"https://idp.exmple\": no credential asks this endpoint"]
    );
}

#[tokio::test(start_paused = true)]
async fn an_attempt_takes_no_longer_than_the_timeout_of_its_credential() {
    let hung = CREDENTIAL.replace("toy", "toy_hung");
    for (text, limit) in [
        (hung.clone(), 10),
        (format!("[defaults]\ntimeout = \"7s\"\n{hung}"), 7),
        (format!("[defaults]\ntimeout = \"7s\"\n{hung}timeout = \"3s\"\n"), 3),
    ] {
        let credential = credential(&parse(&text).unwrap(), "ci");
        let key = TokenKey::new(Selector::new(credential.name.clone(), vec![], None, vec![]));
        let start = tokio::time::Instant::now();
        let failure = credential.provider.mint(MintRequest { key, grant: None }).await.unwrap_err();
        assert_eq!((failure.error.kind(), start.elapsed()), (ErrorKind::UpstreamSlow, Duration::from_secs(limit)));
    }
}

#[test]
fn what_is_asked_of_the_upstream_is_kept_as_written() {
    let asks = "scopes = [\"b\", \"a\"]\naudience = \"api\"\nresources = [\"https://API.example\"]\n";
    let config = parse(&format!("{CREDENTIAL}{asks}")).unwrap();
    let defaults = &credential(&config, "ci").defaults;
    assert_eq!(defaults.scopes, ["b", "a"]);
    assert_eq!(defaults.audience.as_deref(), Some("api"));
    assert_eq!(defaults.resources, ["https://API.example"]);
}

#[test]
fn keys_of_a_credential_share_what_is_the_same_of_them() {
    let defaults = "scopes = [\"b\", \"a\"]\n";
    for defaults in ["", defaults] {
        let catalog = parse(&format!("{CREDENTIAL}{defaults}")).unwrap().credentials;
        let selector = |audience: Option<&str>| {
            let own_name = CredentialName::parse("ci").unwrap();
            catalog.complete(Selector::new(own_name, vec![], audience.map(str::to_owned), vec![]))
        };
        let name = |selector: &Selector| selector.credential().as_str().as_ptr();
        let place = |key: &TokenKey| std::ptr::from_ref(key.hash_ref());
        // As they are read from a store: each has everything of its own.
        let stored = |asked: &Selector| {
            let (own_name, audience) = (CredentialName::parse("ci").unwrap(), asked.audience().map(str::to_owned));
            TokenKey::new(Selector::new(own_name, asked.scopes().to_vec(), audience, vec![]))
        };
        let [bare, other] = [selector(None), selector(Some("x"))].map(TokenKey::new);
        let [bare_row, other_row] = [&bare, &other].map(|key| catalog.shared(stored(key.selector())));
        assert_eq!(place(&bare_row), place(&bare), "there is but one of it");
        assert_eq!((name(other_row.selector()), other_row), (name(bare.selector()), other));
    }
    let unknown = TokenKey::new(Selector::new(CredentialName::parse("gone").unwrap(), vec![], None, vec![]));
    assert_eq!(parse(CREDENTIAL).unwrap().credentials.shared(unknown.clone()), unknown);
}

#[test]
fn relative_paths_start_at_the_directory_of_the_file() {
    let config = parse("[server]\nlisten = \"unix:api.sock\"\n\n[store]\nurl = \"sqlite:db/tokens.db\"\n").unwrap();
    assert_eq!(config.server.listen, Listen::Unix("/etc/tokencache/api.sock".into()));
    assert_eq!(config.store.url, "sqlite:/etc/tokencache/db/tokens.db");
    assert_eq!(parse("").unwrap().store.url, "sqlite:/etc/tokencache/tokencache.db");
}

#[test]
fn loopback_addresses_and_free_ports_are_allowed() {
    let text = "[server]\nlisten = \"127.1.2.3:0\"\nadmin_listen = \"[::1]:0\"\nmetrics_listen = \"0.0.0.0:0\"\n";
    let config = parse(text).unwrap();
    assert_eq!(config.server.listen, Listen::Tcp(SocketAddr::from(([127, 1, 2, 3], 0))));
    assert_eq!(config.warnings, Vec::<String>::new());
}

#[test]
fn a_configuration_by_which_nobody_could_call_says_so() {
    assert!(parse("").unwrap().nobody_could_call());
    for text in
        ["[authn]\napi_keys = true\n", "[authn]\nunix_users = true\n", "[server]\ninsecure_allow_any_caller = true\n"]
    {
        assert!(!parse(text).unwrap().nobody_could_call(), "{text}");
    }
}

#[test]
fn letting_everybody_in_or_going_without_tls_takes_a_switch_and_is_warned_of() {
    let text =
        "[server]\nlisten = \"0.0.0.0:50051\"\ninsecure_allow_any_caller = true\ninsecure_allow_plaintext = true\n";
    let config = parse(text).unwrap();
    assert!(config.server.listen.is_exposed());
    let [any_caller, plaintext] = &config.warnings[..] else { panic!("{:?}", config.warnings) };
    assert!(
        any_caller.starts_with("config.toml:3:29: server.insecure_allow_any_caller: callers who show"),
        "{any_caller}"
    );
    assert!(plaintext.starts_with("config.toml:4:28: server.insecure_allow_plaintext: other machines"), "{plaintext}");
}

#[test]
fn a_secret_in_the_body_of_a_request_is_warned_of() {
    let text = "[credentials.legacy]\n\
                provider = \"session\"\n\
                token = { cookie = \"SID\" }\n\
                [credentials.legacy.login]\n\
                url = \"https://old.example/\"\n\
                headers = { x-api-key = \"31337\", x-password = { env = \"X\" } }\n\
                json = { users = [{ name = \"bot\", Password = \"hunter2\" }] }\n";
    let warnings = parse(text).unwrap().warnings;
    let [header, body] = &warnings[..] else { panic!("{warnings:?}") };
    assert!(header.starts_with("config.toml:6:25: credentials.legacy.login.headers.x-api-key: this looks"), "{header}");
    assert!(
        body.starts_with("config.toml:7:46: credentials.legacy.login.json.users[0].Password: this looks"),
        "{body}"
    );
    assert!(!warnings.concat().contains("hunter2") && !warnings.concat().contains("31337"));
}

#[test]
fn what_a_provider_warns_of_is_told_with_the_place_of_its_credential() {
    let config = parse(&CREDENTIAL.replace("client_id", "# client_id")).unwrap();
    assert_eq!(config.warnings, ["config.toml:1:1: credentials.ci: client_id: nobody is nobody"]);
}

proptest! {
    #[test]
    fn no_text_makes_it_panic_and_every_problem_is_one_line_with_a_place(
        cut in any::<prop::sample::Index>(),
        length in 0..40_usize,
        inserted in "[\\PC\n]{0,12}|[\\[\\]{}=.,\"'#\n]{0,6}",
    ) {
        let sample = format!("{DEFAULT}{CREDENTIAL}client_secret = {{ file = \"s\" }}\nscopes = [\"a\", \"b\"]\n");
        let chars: Vec<_> = sample.chars().collect();
        let at = cut.index(chars.len());
        let rest = chars.iter().skip(at + length);
        let text: String = chars[..at].iter().copied().chain(inserted.chars()).chain(rest.copied()).collect();
        for problem in parse(&text).err().map(|error| error.problems).unwrap_or_default() {
            prop_assert!(problem.starts_with("config.toml:") && !problem.contains('\n'), "{problem:?}");
        }
    }
}

#[test]
fn a_deeply_nested_file_is_a_problem_and_not_a_crash() {
    let text = format!("x = {}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(parse(&text).is_err());
    let keys = format!("{} = 1", vec!["a"; 100_000].join("."));
    assert!(parse(&keys).is_err());
}
