//! The blocking handle with ureq.

use std::{thread, time::Duration};

use tokencache_client::{Client, Refusal, blocking::BlockingSource, testing::MemoryBroker};

use crate::upstream::Upstream;

#[test]
fn a_blocking_session_is_decorated_without_a_runtime_of_its_own() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime for the servers");
    let (broker, endpoint, upstream) = runtime.block_on(async {
        let broker = MemoryBroker::new();
        broker.add("api", Duration::from_secs(3600));
        let endpoint = broker.listen().await.expect("a port");
        (broker, endpoint, Upstream::start().await)
    });
    upstream.accept(2);
    let source = BlockingSource::new(Client::builder().endpoint(endpoint), "api").expect("a source");
    let session = ureq::Agent::new_with_config(
        ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(Duration::from_secs(20))).build(),
    );
    let send = || {
        let answer = source.send(
            |token| {
                let request = session.post(upstream.url("/a")).header("authorization", token.authorization().expose());
                request.send(&b"body"[..])
            },
            |answer| (answer.status() == 401).then(|| Refusal::status(401)),
        );
        answer.expect("a token").expect("an answer").status()
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..20).map(|_| scope.spawn(send)).collect();
        for thread in threads {
            assert_eq!(thread.join().expect("no panic"), 200);
        }
    });
    let sent = upstream.sent();
    assert!(sent.iter().all(|sent| sent.body == "body"));
    assert_eq!(sent.iter().filter(|sent| sent.status == 200).count(), 20);
    assert_eq!(source.current().expect("a token").generation, 2);
    assert_eq!((broker.minted("api"), broker.reports("api")), (2, 1));
}
