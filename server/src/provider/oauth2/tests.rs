//! Tests of the configuration and of discovery; exchanges are in `server/tests/fixtures/exchanges`.

mod egress;

use tokencache_testkit::http::{Reply, ScriptedServer};

use crate::{
    error::ErrorKind,
    provider::{
        GrantUse, MintRequest, Rotation,
        conformance::request,
        registry::tests::{build, build_in},
    },
    types::Secret,
};

const BASE: &str = "provider = \"oauth2\"\ngrant = \"client_credentials\"\nclient_id = \"c\"\n";

fn problems(keys: &str) -> String {
    build(&format!("provider = \"oauth2\"\n{keys}")).expect_err(keys).join("\n")
}

fn assert_mistakes(common: &str, mistakes: &[(&str, &str)]) {
    for (keys, expected) in mistakes {
        let found = problems(&format!("{common}{keys}"));
        assert!(found.contains(expected), "{keys}\n→ {found}");
        assert!(!found.contains("s3cr3t"), "{found}");
    }
}

#[test]
fn each_mistake_with_a_grant_has_its_own_message() {
    let strange = "grant = \"refresh_token\"\nrefresh_token = { env = \"X\" }\nrotation = \"grace\"";
    assert_mistakes(
        "token_url = \"https://a.example/t\"\nclient_id = \"c\"\n",
        &[
            ("", "the key `grant` is missing"),
            ("grant = \"client_credential\"", "did you mean `client_credentials`?"),
            ("grant = \"jwt_bearer\"", "\"jwt_bearer\" is not supported yet"),
            ("grant = \"refresh_token\"", "this grant needs the key `refresh_token`"),
            ("grant = \"password\"\nusername = \"u\"", "this grant needs the key `password`"),
            ("grant = \"client_credentials\"\nrotation = \"none\"", "rotation: this grant does not use it"),
            ("grant = \"client_credentials\"\nusername = \"u\"", "username: this grant does not use it"),
            (strange, "a grace period is written as { grace = \"30s\" }"),
        ],
    );
}

#[test]
fn each_mistake_with_an_endpoint_has_its_own_message() {
    assert_mistakes(
        "grant = \"client_credentials\"\nclient_id = \"c\"\n",
        &[
            ("", "exactly one of `issuer` and `token_url` is needed"),
            ("issuer = \"https://a.example\"\ntoken_url = \"https://a.example\"", "exactly one of"),
            ("token_url = \"http://a.example/t\"", "token_url: plain http is allowed to loopback hosts only"),
            ("token_url = \"https://u:s3cr3t@a.example/t\"", "a URL must not hold a password"),
            ("token_url = \"token\"", "an absolute URL"),
            ("issuer = \"https://a.example/?x\"", "an issuer has neither a query nor a fragment"),
        ],
    );
}

#[test]
fn each_other_mistake_has_its_own_message() {
    assert_mistakes(
        "grant = \"client_credentials\"\ntoken_url = \"https://a.example/t\"\n",
        &[
            ("", "the key `client_id` is missing"),
            ("client_auth = \"client_secret_post\"", "this `client_auth` needs the key `client_secret`"),
            ("client_auth = \"private_key_jwt\"", "\"private_key_jwt\" is not supported yet"),
            (
                "client_auth = \"none\"\nclient_secret = { env = \"X\" }",
                "client_secret: client_auth = \"none\" does not use it",
            ),
            ("client_secret = \"s3cr3t\"", "a secret must not stand in the file"),
            ("extra_params = { scope = \"x\" }", "`scope` is set by the provider itself"),
            ("extra_headers = { Host = \"x\" }", "`Host` is set by the provider itself"),
            ("extra_headers = { \"a b\" = \"x\" }", "`a b` is not a valid header"),
            ("token_types = []", "without a token type no token could be accepted"),
            ("attributes = { a = \"b\" }", "`a` is not a JSON pointer"),
            ("max_lifetime = \"1ms\"", "max_lifetime: expected at least \"1s\""),
            ("client_id = \"c\"\nhttp = { ca_file = \"missing.pem\" }", "cannot read the file"),
            ("http = { client_cert_file = \"c\" }", "`client_cert_file` and `client_key_file` go together"),
            ("http = { timeout = \"0s\" }", "http.timeout: expected more than zero"),
            ("http = { proxy = \"http://u:s3cr3t@proxy\" }", "a URL must not hold a password"),
        ],
    );
}

#[test]
fn all_mistakes_are_told_at_once_and_no_known_key_is_called_unknown() {
    let found =
        problems("grant = \"x\"\ntoken_url = \"ftp://a\"\nclient_secret = \"s\"\nrefresh_tokn = 1\nrotation = 7");
    for expected in
        ["credentials.x.grant", "token_url", "client_id", "client_secret", "refresh_tokn: unknown key", "rotation"]
    {
        assert!(found.contains(expected), "{expected} in\n{found}");
    }
    assert_eq!(found.matches("unknown key").count(), 1, "{found}");
}

#[test]
fn rotation_is_strict_unless_said_otherwise() {
    for (key, rotation) in [
        ("", Rotation::Strict),
        ("rotation = \"strict\"", Rotation::Strict),
        ("rotation = \"none\"", Rotation::None),
        ("rotation = { grace = \"30s\" }", Rotation::Grace(std::time::Duration::from_secs(30))),
    ] {
        let keys = format!(
            "provider = \"oauth2\"\ngrant = \"refresh_token\"\nclient_id = \"c\"\ntoken_url = \"https://a.example\"\n\
             refresh_token = {{ env = \"X\" }}\n{key}"
        );
        assert_eq!(build(&keys).unwrap().provider.capabilities().grant, GrantUse::Refresh(rotation));
    }
}

#[test]
fn the_identity_is_whom_the_broker_authenticates_to_and_as_whom() {
    let identity = |keys: &str| build(&format!("{BASE}{keys}")).unwrap().identity;
    let base = identity("token_url = \"https://a.example/t\"");
    assert_eq!(
        base,
        identity("token_url = \"https://a.example/t\"\nclient_secret = { env = \"X\" }\nmax_lifetime = \"1h\"")
    );
    assert_ne!(base, identity("token_url = \"https://b.example/t\""));
    assert_ne!(base, identity("issuer = \"https://a.example/t\""));
    assert_ne!(base, identity("token_url = \"https://a.example/t\"\nextra_params = { tenant = \"x\" }"));
}

#[test]
fn unverified_certificates_are_warned_of() {
    let built = build(&format!("{BASE}token_url = \"https://a.example\"\nhttp = {{ verify = false }}")).unwrap();
    assert!(built.warnings[0].contains("not verified"), "{:?}", built.warnings);
    assert!(build(&format!("{BASE}token_url = \"https://a.example\"")).unwrap().warnings.is_empty());
}

fn metadata(issuer: &str, token_endpoint: &str) -> Reply {
    Reply::json(200, &format!(r#"{{"issuer":"{issuer}","token_endpoint":"{token_endpoint}","revocation_endpoint":7}}"#))
}

fn token() -> Reply {
    Reply::json(200, r#"{"access_token":"at","token_type":"Bearer","expires_in":60}"#)
}

fn paths(server: &ScriptedServer) -> Vec<String> {
    server.requests().iter().filter_map(|request| Some(request.split(' ').nth(1)?.to_owned())).collect()
}

#[tokio::test]
async fn metadata_are_fetched_once_and_again_after_a_failure() {
    let idp = ScriptedServer::start(vec![token(), token(), Reply::json(500, "{}"), token()]).await.unwrap();
    let issuer = issuer_of(&format!("{}/token", idp.url())).await;
    let provider = build(&format!("{BASE}issuer = \"{}\"", issuer.url())).unwrap().provider;
    for expected in [true, true, false, true] {
        assert_eq!(provider.mint(request()).await.is_ok(), expected);
    }
    assert_eq!(paths(&issuer), ["/.well-known/oauth-authorization-server"; 2]);
    assert_eq!(paths(&idp).len(), 4);
    // An endpoint that is not a URL counts as absent.
    provider.revoke(Secret::from("at")).await.unwrap();
    assert_eq!(paths(&idp).len(), 4);
}

/// An issuer whose metadata name this token endpoint.
async fn issuer_of(token_endpoint: &str) -> ScriptedServer {
    ScriptedServer::with_own_url(|url| vec![metadata(url, token_endpoint)]).await.expect("a server")
}

#[tokio::test]
async fn metadata_of_another_issuer_are_refused_to_the_letter() {
    let server = issuer_of("http://127.0.0.1:1/token").await;
    let provider = build(&format!("{BASE}issuer = \"{}/\"", server.url())).unwrap().provider;
    let failure = provider.mint(request()).await.unwrap_err();
    assert_eq!((failure.error.kind(), failure.in_doubt), (ErrorKind::Misconfigured, false), "{failure:?}");
    assert!(failure.error.message().contains("name another issuer"), "{failure:?}");
}

#[tokio::test]
async fn metadata_cannot_send_the_secret_over_plain_http() {
    let server = issuer_of("http://evil.example/token").await;
    let provider = build(&format!("{BASE}issuer = \"{}\"", server.url())).unwrap().provider;
    let failure = provider.mint(request()).await.unwrap_err();
    assert_eq!(failure.error.kind(), ErrorKind::Misconfigured, "{failure:?}");
    assert!(failure.error.message().contains("token_endpoint at evil.example: plain http"), "{failure:?}");
}

#[tokio::test]
async fn without_rfc_8414_metadata_those_of_openid_connect_count() {
    let idp = ScriptedServer::start(vec![token()]).await.unwrap();
    let endpoint = idp.url().to_owned();
    let server =
        ScriptedServer::with_own_url(|url| vec![Reply::json(404, "{}"), metadata(&format!("{url}/t"), &endpoint)])
            .await
            .unwrap();
    let provider = build(&format!("{BASE}issuer = \"{}/t\"", server.url())).unwrap().provider;
    provider.mint(request()).await.unwrap();
    assert_eq!(paths(&server), ["/.well-known/oauth-authorization-server/t", "/t/.well-known/openid-configuration"]);
}

#[tokio::test]
async fn known_metadata_are_used_while_the_issuer_has_none() {
    let idp = ScriptedServer::start(vec![Reply::json(500, "{}"), token()]).await.unwrap();
    let endpoint = idp.url().to_owned();
    let replies = |url: &str| vec![metadata(url, &endpoint), Reply::json(503, "{}")];
    let server = ScriptedServer::with_own_url(replies).await.unwrap();
    let provider = build(&format!("{BASE}issuer = \"{}\"", server.url())).unwrap().provider;
    provider.mint(request()).await.unwrap_err();
    provider.mint(request()).await.unwrap();
    assert_eq!(paths(&server).len(), 3);
}

#[tokio::test]
async fn secrets_are_read_anew_at_each_mint() {
    let server = ScriptedServer::start(vec![token()]).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let keys = format!(
        "{BASE}token_url = \"{}\"\nclient_auth = \"client_secret_post\"\nclient_secret = {{ file = \"s\" }}",
        server.url()
    );
    let provider = build_in(directory.path(), &keys).unwrap().provider;
    let failure = provider.mint(request()).await.unwrap_err();
    assert_eq!((failure.error.kind(), failure.in_doubt), (ErrorKind::Misconfigured, false), "{failure:?}");
    for secret in ["one", "two"] {
        std::fs::write(directory.path().join("s"), secret).unwrap();
        provider.mint(request()).await.unwrap();
        assert!(server.requests().last().unwrap().ends_with(&format!("&client_secret={secret}")));
    }
}

#[tokio::test]
async fn a_token_is_revoked_with_the_authentication_of_the_client() {
    let refusal = Reply::json(401, r#"{"error":"invalid_client"}"#);
    let server = ScriptedServer::start(vec![Reply::new(200, "", ""), refusal]).await.unwrap();
    let url = server.url();
    let keys = format!("{BASE}token_url = \"{url}/token\"\nrevocation_url = \"{url}/revoke\"");
    let provider = build(&keys).unwrap().provider;
    assert!(provider.capabilities().revocable);
    provider.revoke(Secret::from("a/t")).await.unwrap();
    let request = server.requests().remove(0);
    assert!(request.starts_with("POST /revoke HTTP/1.1\r\n"), "{request}");
    assert!(request.ends_with("\r\n\r\ntoken=a%2Ft&token_type_hint=access_token&client_id=c"), "{request}");
    assert_eq!(provider.revoke(Secret::from("a/t")).await.unwrap_err().kind(), ErrorKind::Misconfigured);
}

#[tokio::test]
async fn a_kept_connection_that_ends_costs_client_credentials_nothing_and_nothing_else_meets_one() {
    let refresh = "grant = \"refresh_token\"\nrefresh_token = { env = \"X\" }";
    let password = "grant = \"password\"\nusername = \"u\"\npassword = { env = \"PATH\" }";
    for (grant, secret, requests) in
        [("grant = \"client_credentials\"", None, 3), (refresh, Some(Secret::from("rt")), 2), (password, None, 2)]
    {
        let ends = Reply::Bytes(vec![]);
        let server = ScriptedServer::start(vec![token().then(ends), token()]).await.unwrap();
        let keys = format!("provider = \"oauth2\"\nclient_id = \"c\"\ntoken_url = \"{}\"\n{grant}", server.url());
        let provider = build(&keys).unwrap().provider;
        for _ in 0..2 {
            let minted = provider.mint(MintRequest { grant: secret.clone(), ..request() }).await;
            assert!(minted.is_ok(), "{grant}: {minted:?}");
        }
        assert_eq!(server.requests().len(), requests, "{grant}");
    }
}
