//! The built-in providers, checked.

use tempfile::TempDir;
use tokencache_testkit::http::{ClosedPort, Reply, ScriptedServer};

use super::*;
use crate::provider::registry::tests::build_in;

/// A provider of the registry before a scripted upstream.
struct Scripted {
    directory: TempDir,
    /// The keys of the credential; `URL` stands for that of the upstream.
    keys: &'static str,
    /// What an upstream that works answers.
    works: Reply,
    has_upstream: bool,
    servers: tokio::sync::Mutex<Vec<ScriptedServer>>,
    closed: ClosedPort,
}

impl Scripted {
    fn new(keys: &'static str, works: Reply) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("secret"), format!("{CANARY}-secret")).expect("a file");
        Self {
            directory,
            keys,
            works,
            has_upstream: true,
            servers: tokio::sync::Mutex::default(),
            closed: ClosedPort::take().expect("a port"),
        }
    }

    fn reply(&self, upstream: Upstream) -> Reply {
        match upstream {
            Upstream::Works | Upstream::IsGone => self.works.clone(),
            Upstream::Fails => Reply::json(500, &format!("{{\"error\":\"{CANARY}\"}}")),
            Upstream::Babbles => Reply::new(200, &format!("x-error: {CANARY}\r\n"), CANARY),
            Upstream::Hangs => Reply::Silence,
        }
    }
}

#[async_trait]
impl Harness for Scripted {
    fn has_upstream(&self) -> bool {
        self.has_upstream
    }

    async fn provider(&self, upstream: Upstream) -> SharedProvider {
        let server = ScriptedServer::start(vec![self.reply(upstream)]).await.expect("a server");
        let url = if upstream == Upstream::IsGone { self.closed.url() } else { server.url() };
        let built = build_in(self.directory.path(), &self.keys.replace("URL", url)).expect("valid keys");
        self.servers.lock().await.push(server);
        built.provider
    }
}

fn token() -> Reply {
    let body = format!(
        r#"{{"access_token":"{CANARY}-at","token_type":"bearer","expires_in":60,"refresh_token":"{CANARY}-rt2","x":"{CANARY}"}}"#
    );
    Reply::json(200, &body)
}

#[tokio::test]
async fn oauth2_with_refresh_token_conforms() {
    let keys = r#"
        provider = "oauth2"
        grant = "refresh_token"
        token_url = "URL/token"
        revocation_url = "URL/revoke"
        client_id = "c"
        client_secret = { file = "secret" }
        refresh_token = { file = "secret" }
        attributes = { x = "/x" }
    "#;
    check(&Scripted::new(keys, token())).await;
}

#[tokio::test]
async fn session_conforms() {
    let keys = r#"
        provider = "session"
        login = { url = "URL/login", json = { user = "bot", password = { file = "secret" } } }
        token = { json_pointer = "/access_token" }
        lifetime = { json_pointer = "/expires_in" }
        attributes = { x = "/x" }
        logout = { url = "URL/logout" }
    "#;
    check(&Scripted::new(keys, token())).await;
}

#[tokio::test]
async fn fixed_conforms() {
    let keys = "provider = \"fixed\"\ntoken = { file = \"secret\" }";
    check(&Scripted { has_upstream: false, ..Scripted::new(keys, Reply::Silence) }).await;
}

/// Without a grant to rotate, and with a body that the grant `client_credentials` does not use.
fn plain_token() -> Reply {
    Reply::json(200, &format!(r#"{{"access_token":"{CANARY}-at","token_type":"Bearer"}}"#))
}

#[tokio::test]
async fn oauth2_with_client_credentials_conforms() {
    let keys = r#"
        provider = "oauth2"
        grant = "client_credentials"
        token_url = "URL/token"
        client_id = "c"
        client_secret = { file = "secret" }
        client_auth = "client_secret_post"
        extra_params = { api_key = { file = "secret" } }
        extra_headers = { x-api-key = { file = "secret" } }
    "#;
    check(&Scripted::new(keys, plain_token())).await;
}

#[tokio::test]
async fn oauth2_with_password_conforms() {
    let keys = r#"
        provider = "oauth2"
        grant = "password"
        token_url = "URL/token"
        client_id = "c"
        username = "bot"
        password = { file = "secret" }
    "#;
    check(&Scripted::new(keys, plain_token())).await;
}
