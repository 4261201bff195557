//! An upstream that is recorded, and then is not there.

use std::{fs, sync::Arc, time::Duration};

use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use tokencache_client::{
    TokenAuth,
    testing::{Cassette, CassetteError, MemoryBroker},
};

use crate::upstream::Upstream;

fn session(cassette: Arc<Cassette>) -> ClientWithMiddleware {
    let broker = MemoryBroker::new();
    broker.add("api", Duration::from_secs(3600));
    let auth = TokenAuth::new(broker.client().source("api"));
    let own = reqwest::Client::builder().no_proxy().build().expect("a session");
    ClientBuilder::new(own).with(auth.middleware()).with_arc(cassette).build()
}

#[tokio::test]
async fn what_was_recorded_is_replayed_the_refusal_too() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("api.json");
    let upstream = Upstream::start().await;
    upstream.accept(2);
    let url = upstream.url("/a?password=s3cr3t");
    let send = async |session: &ClientWithMiddleware, body: &'static str| {
        let answer = session.post(&url).body(body).send().await?;
        Ok::<_, reqwest_middleware::Error>((answer.status().as_u16(), answer.text().await.expect("a body")))
    };
    let recording = session(Arc::new(Cassette::record(&path)));
    assert_eq!(send(&recording, "hello").await.expect("an answer"), (200, "hello".into()));
    assert_eq!(upstream.sent().len(), 2);

    let text = fs::read_to_string(&path).expect("a file");
    assert!(!text.contains("token-") && !text.contains("s3cr3t") && text.contains("hello"), "{text}");
    let cassette = Arc::new(Cassette::replay(&path).expect("a cassette"));
    let replaying = session(Arc::clone(&cassette));
    assert_eq!(cassette.left(), 2);
    assert_eq!(send(&replaying, "hello").await.expect("an answer"), (200, "hello".into()));
    assert_eq!((upstream.sent().len(), cassette.left()), (0, 0));
    let error = send(&replaying, "hello").await.expect_err("it is at its end");
    assert!(error.to_string().contains("at its end"), "{error}");

    let other = session(Arc::new(Cassette::replay(&path).expect("a cassette")));
    let error = send(&other, "goodbye").await.expect_err("another body");
    assert!(error.to_string().contains("hello") && error.to_string().contains("goodbye"), "{error}");
}

#[test]
fn what_is_no_cassette_is_said_to_be_none() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("api.json");
    assert!(matches!(Cassette::replay(&path), Err(CassetteError::Io(..))));
    fs::write(&path, "no JSON").expect("a file");
    let error = Cassette::replay(&path).expect_err("it is none");
    assert!(error.to_string().contains("record it anew"), "{error}");
}
