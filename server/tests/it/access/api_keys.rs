//! API keys over real calls.

use std::time::Duration;

use tokencache_client::{GetToken, Secret};
use tokencache_server::{
    app::{Opened, open_store},
    authn::api_key::generate,
    rng::SharedRng,
    store::StoreRegistry,
    time::{Clock as _, SystemClock},
};

use tokencache_proto::v1::TailAuditEventsRequest;
use tokio::time::timeout;
use tonic::{Request, Status};

use crate::broker::{Over, Stage, eventually, reason};

const ACCESS: &str = "[authn]\napi_keys = true\n[grants.ci]\nsubjects = [\"key:ci\"]\ncredentials = [\"ci\"]\n\
                      actions = [\"get\", \"watch\", \"invalidate\"]\n\
                      [grants.reader]\nsubjects = [\"key:ci\"]\ncredentials = [\"**\"]\nactions = [\"audit\"]\n";

#[tokio::test]
async fn a_key_opens_what_its_grant_says_until_it_is_revoked() {
    for over in [Over::Sqlite, Over::Postgres] {
        let stage = Stage::new(over).await;
        let tables = format!("{ACCESS}{}{}", stage.credential("ci", ""), stage.credential("other", ""));
        let broker = stage.start_guarded("", &tables).await;
        // As the command line does: in the store itself, beside the broker.
        let config = stage.config_with("", &tables);
        let opened = open_store(&config, &StoreRegistry::builtin(), std::sync::Arc::new(SystemClock)).await;
        let Opened { store, .. } = opened.expect("a store");
        let now = SystemClock.now();
        let (key, row) = generate("ci", now, None, &SharedRng::from_os());
        let id = row.id.clone();
        store.add_api_key(row).await.expect("it is kept");
        let client = tokencache_client::Client::builder()
            .endpoint(format!("http://{}", broker.client))
            .bearer_token(Secret::new(key.expose().as_str()))
            .allow_cleartext_bearer_token(true)
            .build()
            .expect("valid settings");
        eventually("the new key is known", async || client.get_token(GetToken::of("ci")).await.is_ok()).await;
        let refused = client.get_token(GetToken::of("other")).await.expect_err("no grant");
        assert_eq!(refused.reason(), Some("NOT_ALLOWED"), "{refused}");
        let absent = client.get_token(GetToken::of("absent")).await.expect_err("no such credential");
        assert_eq!((absent.reason(), absent.to_string()), (Some("NOT_ALLOWED"), refused.to_string()));

        let mut watching = client.watch([tokencache_client::Selector::new("ci")]).await.expect("it may watch");
        watching.next().await.expect("the current token").expect("a token");
        let mut request = Request::new(TailAuditEventsRequest::default());
        request.metadata_mut().insert("authorization", format!("Bearer {}", key.expose()).parse().expect("a header"));
        let mut tail = broker.admin().await.tail_audit_events(request).await.expect("it may read").into_inner();
        assert!(store.revoke_api_key(id, now).await.expect("the store answers"));
        eventually("the key is refused", async || {
            client.get_token(GetToken::of("ci")).await.is_err_and(|error| error.reason() == Some("BAD_IDENTITY"))
        })
        .await;
        let ended = timeout(Duration::from_secs(60), async {
            loop {
                match watching.next().await {
                    Some(Ok(_)) => {}
                    other => return other,
                }
            }
        });
        let ended = ended.await.expect("an open watch ends with its identity");
        assert!(ended.is_none_or(|end| end.is_err_and(|error| error.reason() == Some("BAD_IDENTITY"))));
        let last = timeout(Duration::from_secs(60), async {
            while tail.message().await?.is_some() {}
            Ok::<_, Status>(())
        });
        let last = last.await.expect("so does a tail of the audit log").expect_err("it says why");
        assert_eq!(reason(&last), "BAD_IDENTITY");
        broker.stop().await;
    }
}
