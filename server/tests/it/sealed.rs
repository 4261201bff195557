//! Sealed storage as clients and operators see it.

use std::time::Duration;

use tokencache_client::{CredentialState, ErrorKind, GetToken};
use tokencache_proto::v1::{RotateEncryptionKeyRequest, RowCount};

use crate::broker::{Broker, Over, Stage};

async fn get(broker: &Broker) -> tokencache_client::Result<u64> {
    Ok(broker.library().get_token(GetToken::of("crm")).await?.token.expect("a token").generation)
}

async fn a_changed_endpoint_does_not_get_the_refresh_token(over: Over) {
    let stage = Stage::new(over).await;
    let configured = stage.rotating("crm");
    let other = stage.credential("other", "");
    let broker = stage.start(&format!("{configured}{other}")).await;
    assert_eq!(get(&broker).await, Ok(1));
    broker.stop().await;

    // The same upstream by another name: to the configuration it is another endpoint.
    let swapped = configured.replace("127.0.0.1", "localhost");
    assert_ne!(swapped, configured);
    let asked = stage.upstream.calls();
    let broker = stage.start(&format!("{swapped}{other}")).await;
    let error = get(&broker).await.expect_err("the grant is bound to the other endpoint");
    assert_eq!((error.kind(), error.reason()), (ErrorKind::NeedsOperator, Some("CONFIG_TAMPERED")), "{error:?}");
    assert_eq!(stage.upstream.calls(), asked, "nothing was sent");
    let described = broker.operator().describe_credential("crm").await.expect("a description");
    assert_eq!(described.credential.state, CredentialState::Misconfigured);
    assert!(described.explanation.contains("configure a new refresh token"), "{}", described.explanation);
    let listed = broker.operator().list_credentials(10, "").await.expect("a list").credentials;
    assert_eq!(listed.len(), 2, "one that does not open hides no other");
    broker.stop().await;

    let broker = stage.start(&format!("{configured}{other}")).await;
    stage.clock.advance(Duration::from_secs(3600));
    assert_eq!(get(&broker).await, Ok(2), "the configuration was restored");
    broker.stop().await;

    // A person has logged in again, under the other name.
    let again = stage.rotating("crm").replace("127.0.0.1", "localhost");
    let broker = stage.start(&again).await;
    assert_eq!(get(&broker).await, Ok(3), "the new refresh token is taken up in place of the one that does not open");
    assert_eq!(stage.upstream.reuses(), 0);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_endpoint_does_not_get_the_refresh_token_over_sqlite() {
    a_changed_endpoint_does_not_get_the_refresh_token(Over::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_endpoint_does_not_get_the_refresh_token_over_postgres() {
    a_changed_endpoint_does_not_get_the_refresh_token(Over::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_has_everything_sealed_with_the_active_key() {
    let stage = Stage::new(Over::Sqlite).await;
    let credential = stage.rotating("crm");
    let broker = stage.start(&credential).await;
    assert_eq!(get(&broker).await, Ok(1));
    broker.stop().await;

    stage.use_another_key();
    let broker = stage.start(&credential).await;
    let rows = |name: &str| vec![RowCount { name: name.into(), rows: 2 }];
    let rotate = async |dry_run| {
        let answer = broker.admin().await.rotate_encryption_key(RotateEncryptionKeyRequest { dry_run }).await;
        answer.expect("an answer").into_inner()
    };
    let dry = rotate(true).await;
    assert_eq!((dry.active.as_str(), dry.resealed_rows, dry.remaining), ("next", 2, rows("it")));
    let done = rotate(false).await;
    assert_eq!((done.resealed_rows, done.current_rows, done.remaining), (2, 0, rows("next")));
    assert_eq!(done.unreadable, []);
    let again = rotate(false).await;
    assert_eq!((again.resealed_rows, again.current_rows), (0, 2));
    assert_eq!(get(&broker).await, Ok(1), "it is served all the while");
    broker.stop().await;
}
