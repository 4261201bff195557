use std::{os::unix::fs::PermissionsExt as _, sync::Arc};

use rand::{SeedableRng as _, rngs::StdRng};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    config::Config,
    credential::Credential,
    provider::{MintRequest, Minted, registry::ProviderRegistry},
    time::SystemClock,
    types::{Secret, Selector, TokenKey},
};

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
    assert_eq!(files.len(), 5, "{files:?}");
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
    let text = config(at(50051), at(9464), at(50053));
    let table = toml::de::DeTable::parse(&text).unwrap();
    let table = table.get_ref();
    let names: Vec<_> =
        table["credentials"].get_ref().as_table().unwrap().keys().map(|key| key.get_ref().to_string()).collect();
    assert_eq!(names, ["demo", "demo-rotating", "demo-session"]);
    for secret in [home.key.client_secret(), home.key.password(), home.key.first_refresh_token()] {
        assert!(!text.contains(secret.expose().as_str()));
    }
}

/// A run of dev mode: the upstream answers, and the configuration was read.
struct Run {
    config: Config,
    upstream: SocketAddr,
    stop: CancellationToken,
    worker: tokio::task::JoinHandle<io::Result<()>>,
}

impl Run {
    async fn start(path: &Path, port: u16) -> Self {
        let home = prepare(path, 1).unwrap();
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let directory = home.path().to_owned();
        let upstream = DemoUpstream::new(listener, home, Arc::new(SystemClock)).unwrap();
        let address = upstream.address();
        let text = config(SocketAddr::from(([127, 0, 0, 1], 50051)), SocketAddr::from(([127, 0, 0, 1], 9464)), address);
        let config = Config::parse("dev", &text, directory, &ProviderRegistry::builtin()).unwrap();
        let stop = CancellationToken::new();
        let worker = tokio::spawn(upstream.run(stop.clone()));
        Self { config, upstream: address, stop, worker }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.worker.await.unwrap().unwrap();
    }

    fn rotating(&self) -> &Credential {
        self.config.credentials.iter().find(|credential| credential.name.as_str() == "demo-rotating").unwrap()
    }

    async fn hello(&self, minted: &Minted) -> u16 {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let authorization = format!("{} {}", minted.token_type, minted.access_token.expose());
        let request = client.get(format!("http://{}/api/hello", self.upstream)).header("authorization", authorization);
        request.send().await.unwrap().status().as_u16()
    }
}

async fn mint(credential: &Credential, grant: Option<Secret>) -> Minted {
    let key = TokenKey::new(Selector::new(credential.name.clone(), vec![], None, vec![]));
    credential.provider.mint(MintRequest { key, grant }).await.unwrap()
}

#[tokio::test]
async fn every_configured_credential_opens_the_api_until_its_token_is_revoked() {
    let directory = tempfile::tempdir().unwrap();
    let run = Run::start(directory.path(), 0).await;
    assert_eq!((run.config.credentials.len(), run.config.warnings.as_slice()), (3, &[][..]));
    for credential in run.config.credentials.iter() {
        let grant = credential.provider.configured_grant().await.unwrap();
        let minted = mint(credential, grant).await;
        assert_eq!(run.hello(&minted).await, 200, "{}", credential.name);
        credential.provider.revoke(minted.access_token.clone()).await.unwrap();
        let expected = if credential.provider.capabilities().revocable { 401 } else { 200 };
        assert_eq!(run.hello(&minted).await, expected, "{}", credential.name);
    }
    run.stop().await;
}

#[tokio::test]
async fn a_second_run_goes_on_with_the_rotated_refresh_token_of_the_first() {
    let directory = tempfile::tempdir().unwrap();
    let first = Run::start(directory.path(), 0).await;
    let configured = first.rotating().provider.configured_grant().await.unwrap();
    let minted = mint(first.rotating(), configured).await;
    let port = first.upstream.port();
    first.stop().await;
    let second = Run::start(directory.path(), port).await;
    assert_eq!(second.hello(&minted).await, 200);
    let again = mint(second.rotating(), minted.grant).await;
    assert_eq!(second.hello(&again).await, 200);
    assert!(again.grant.is_some());
    second.stop().await;
}
