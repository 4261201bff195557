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

#[tokio::test]
async fn fixed_conforms() {
    let keys = "provider = \"fixed\"\ntoken = { file = \"secret\" }";
    check(&Scripted { has_upstream: false, ..Scripted::new(keys, Reply::Silence) }).await;
}
