//! What a panic could show: the Debug of whatever holds a secret.

use std::{collections::BTreeMap, fmt::Debug, time::Duration};

use tokencache_proto::v1;
use tokencache_server::{
    config::Config,
    error::{Error, ErrorKind},
    provider::{MintFailure, MintRequest, Minted, registry::ProviderRegistry},
    store::{Commit, Fence, Grant, GrantCandidate, GrantSeed, GrantUpdate, TokenRow},
    time::Timestamp,
    types::{CredentialName, Fingerprint, Generation, Secret, Selector, Terms, Token, TokenKey},
};

use super::{
    assert_no_canary,
    search::{canary, hits},
};

fn secret() -> Secret {
    Secret::from(canary("held"))
}

/// Panics over a value, as an `expect` would, and looks at the message.
fn assert_silent(value: impl Debug + Send + 'static) {
    for message in [format!("{value:?}"), format!("{value:#?}")] {
        assert_no_canary("a message", message.as_bytes());
    }
    let failed: Result<(), _> = std::hint::black_box(Err(value));
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| failed.expect("a panic on purpose")));
    let payload = panic.expect_err("it panics");
    let message = payload.downcast_ref::<String>().expect("a message");
    assert!(message.starts_with("a panic on purpose"));
    assert_no_canary("a panic", message.as_bytes());
}

fn key() -> TokenKey {
    TokenKey::new(Selector::new(CredentialName::parse("c").expect("a name"), vec![], None, vec![]))
}

fn token() -> Token {
    let at = Timestamp::from_millis(0);
    Token {
        fingerprint: Fingerprint::of(&secret()),
        access_token: secret(),
        terms: Terms::new("Bearer".into(), vec![], attributes()),
        issued_at: at,
        expires_at: at,
        refresh_at: at,
        generation: Generation::new(1),
    }
}

fn attributes() -> BTreeMap<String, String> {
    [("sid".to_owned(), canary("attribute"))].into()
}

#[test]
fn what_providers_and_stores_hold_is_not_shown() {
    let (at, credential) = (Timestamp::from_millis(0), key().credential().clone());
    let grant = GrantUpdate {
        base_version: 1,
        as_of: 1,
        sent: secret().into(),
        refresh_token: secret().into(),
        late: Some(secret()),
        refused: vec![secret().into()],
        intent: None,
        at,
    };
    let config = Fingerprint::of(&secret());
    assert_silent(token());
    assert_silent(MintRequest { key: key(), grant: Some(secret()) });
    assert_silent(Minted {
        access_token: secret(),
        token_type: "Bearer".into(),
        lifetime: Duration::from_secs(1),
        scopes: None,
        attributes: attributes(),
        grant: Some(secret()),
    });
    let error = Error::new(ErrorKind::UpstreamDown, "down");
    assert_silent(MintFailure { error, grant: Some(secret()), in_doubt: true });
    let fence = Fence::Next;
    assert_silent(Commit { key: key(), token: token(), fence, config, last_used_at: at, grant: Some(grant.clone()) });
    assert_silent(grant);
    assert_silent(GrantSeed {
        credential: credential.clone(),
        refresh_token: secret().into(),
        previous: Some(secret().into()),
        at,
    });
    assert_silent(GrantCandidate { base_version: 1, refresh_token: secret(), fingerprint: Some(config), at });
    assert_silent(Grant {
        credential,
        version: 1,
        refresh_token: secret(),
        previous: Some(secret()),
        previous_since: 1,
        seed: config,
        planted: 1,
        journal: 0,
        intent: None,
        stray: None,
        needs_reauth: None,
        retry: false,
        updated_at: at,
    });
    assert_silent(TokenRow {
        key: key(),
        generation: Generation::new(1),
        min_generation: Generation::new(1),
        token: Some(token()),
        config,
        failures: None,
        last_used_at: at,
    });
}

#[test]
fn messages_with_a_token_do_not_show_it() {
    let token = v1::Token {
        access_token: canary("message"),
        attributes: attributes().into_iter().collect(),
        ..Default::default()
    };
    assert_silent(token.clone());
    assert_silent(v1::GetTokenResponse { token: Some(token.clone()), ..Default::default() });
    let event = Some(v1::watch_tokens_response::Event::Token(token));
    assert_silent(v1::WatchTokensResponse { event, ..Default::default() });
}

#[test]
fn a_configuration_does_not_show_the_arguments_of_its_commands() {
    let command = format!("{{ command = [\"echo\", \"{}\"] }}", canary("argument"));
    let text = format!(
        "[store]\nurl = \"postgres://u@h/d\"\npassword = {command}\n[credentials.a]\nprovider = \"fixed\"\ntoken = {command}\n\
         [credentials.b]\nprovider = \"oauth2\"\ngrant = \"password\"\ntoken_url = \"https://idp.example/\"\nclient_id = \"c\"\n\
         client_secret = {command}\nusername = \"u\"\npassword = {command}\nextra_params = {{ p = {command} }}\n\
         extra_headers = {{ x-p = {command} }}\n[credentials.c]\nprovider = \"session\"\ntoken = {{ cookie = \"S\" }}\n\
         login = {{ url = \"https://old.example/\", json = {{ p = {command} }}, headers = {{ x-p = {command} }} }}\n"
    );
    let config = Config::parse("c.toml", &text, "/", &ProviderRegistry::builtin()).expect("a valid configuration");
    assert_eq!(config.credentials.len(), 3);
    assert_silent(config);
}

#[test]
fn a_value_that_shows_its_secret_would_be_noticed() {
    let shown = std::panic::catch_unwind(|| assert_silent(canary("shown")));
    assert!(shown.is_err());
    assert!(!hits(format!("{:?}", Some(canary("shown"))).as_bytes()).is_empty());
}
