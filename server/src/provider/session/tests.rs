//! Tests of the configuration and of the log-out; log-ins are in `server/tests/fixtures/exchanges`.

use tokencache_testkit::http::{Reply, ScriptedServer};

use crate::{
    error::ErrorKind,
    provider::{SharedProvider, registry::tests::build_in},
    types::Secret,
};

const LOGIN: &str = "provider = \"session\"\nlogin = { url = \"https://a.example/login\" }\n";

fn problems(keys: &str) -> String {
    build_in(std::path::Path::new("."), keys).expect_err(keys).join("\n")
}

#[test]
fn each_mistake_has_its_own_message() {
    let token = "token = { cookie = \"SID\" }\n";
    for (keys, expected) in [
        (format!("provider = \"session\"\n{token}"), "the key `login` is missing"),
        (LOGIN.to_owned(), "the key `token` is missing"),
        (format!("{LOGIN}token = {{}}"), "exactly one of `json_pointer`, `header` and `cookie`"),
        (format!("{LOGIN}token = {{ cookie = \"a\", header = \"b\" }}"), "exactly one of"),
        (format!("{LOGIN}token = {{ header = \"a b\" }}"), "not the name of a header"),
        (format!("{LOGIN}token = {{ json_pointer = \"a\" }}"), "expected a JSON pointer"),
        (format!("{LOGIN}{token}lifetime = \"0s\""), "expected at least \"1s\""),
        (format!("{LOGIN}{token}lifetime = {{ pointer = \"/a\" }}"), "the key `json_pointer` is missing"),
        (format!("{LOGIN}{token}logout = {{ url = \"http://a.example\" }}"), "plain http"),
        (
            format!("{LOGIN}{token}logout = {{ url = \"https://a.example\", metod = \"GET\" }}"),
            "did you mean `method`?",
        ),
        (
            format!(
                "provider = \"session\"\n{token}login = {{ url = \"https://a.example\", json = {{}}, form = {{}} }}"
            ),
            "at most one of `json` and `form`",
        ),
        (
            format!(
                "provider = \"session\"\n{token}login = {{ url = \"https://a.example\", form = {{ a = {{ token = true }} }} }}"
            ),
            "exactly one of `env`, `file` and `command`",
        ),
        (
            format!(
                "provider = \"session\"\n{token}login = {{ url = \"https://a.example\", json = {{ a = 1979-05-27 }} }}"
            ),
            "a value that JSON has",
        ),
    ] {
        let found = problems(&keys);
        assert!(found.contains(expected), "{keys}\n→ {found}");
    }
}

async fn log_out(keys: &str, reply: Reply) -> (Result<(), ErrorKind>, String) {
    let server = ScriptedServer::start(vec![reply]).await.unwrap();
    let keys = format!("{LOGIN}token_type = \"Session\"\n{}", keys.replace("URL", server.url()));
    let provider: SharedProvider = build_in(std::path::Path::new("."), &keys).unwrap().provider;
    assert!(provider.capabilities().revocable);
    let revoked = provider.revoke(Secret::from("t0k")).await.map_err(|error| error.kind());
    (revoked, server.requests().concat())
}

#[tokio::test]
async fn a_log_out_presents_the_token_as_it_is_told_or_as_it_came() {
    let ok = || Reply::new(204, "", "");
    for (keys, expected) in [
        ("token = { json_pointer = \"/t\" }\nlogout = { url = \"URL/out\" }", "authorization: Session t0k\r\n"),
        ("token = { cookie = \"SID\" }\nlogout = { url = \"URL/out\", method = \"GET\" }", "cookie: SID=t0k\r\n"),
        (
            "token = { cookie = \"SID\" }\nlogout = { url = \"URL/out\", headers = { x-session = { token = true } } }",
            "x-session: t0k\r\n",
        ),
        (
            "token = { json_pointer = \"/t\" }\nlogout = { url = \"URL/out\", json = { ids = [ { token = true } ], all = false } }",
            "\r\n\r\n{\"all\":false,\"ids\":[\"t0k\"]}",
        ),
        (
            "token = { json_pointer = \"/t\" }\nlogout = { url = \"URL/out\", form = { sid = { token = true } } }",
            "\r\n\r\nsid=t0k",
        ),
    ] {
        let (revoked, request) = log_out(keys, ok()).await;
        assert_eq!(revoked, Ok(()), "{keys}");
        assert!(request.contains(expected), "{keys}\n→ {request}");
        assert_eq!(request.matches("t0k").count(), 1, "{request}");
    }
}

#[tokio::test]
async fn a_session_that_has_ended_already_is_logged_out() {
    let keys = "token = { cookie = \"SID\" }\nlogout = { url = \"URL/out\" }";
    for (status, expected) in [(401, Ok(())), (302, Ok(())), (500, Err(ErrorKind::UpstreamDown))] {
        assert_eq!(log_out(keys, Reply::new(status, "", "")).await.0, expected, "{status}");
    }
}
