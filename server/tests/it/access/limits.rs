//! What is too much is refused, and those who keep to the limits do not notice.

use std::time::Duration;

use tokencache_client::GetToken;
use tokencache_proto::v1::{GetTokenRequest, token_service_client::TokenServiceClient};
use tokio::{io::AsyncReadExt as _, net::TcpStream, time::timeout};
use tonic::{Code, Request, transport::Channel};

use crate::broker::{Over, Stage, come_again, reason};

#[tokio::test]
async fn calls_beyond_the_limit_are_shed_with_the_time_to_come_again() {
    let stage = Stage::new(Over::Memory).await;
    let tables = format!("[limits]\nmax_calls = 2\n{}", stage.credential("ci", ""));
    let broker = stage.start_guarded("insecure_allow_any_caller = true\n", &tables).await;
    stage.upstream.hold();
    let client = broker.tokens().await;
    let request = || Request::new(GetTokenRequest { credential: "ci".into(), ..Default::default() });
    // Each takes its place sooner or later, whatever the third call does meanwhile.
    let take_place = |mut client: TokenServiceClient<Channel>| async move {
        loop {
            match client.get_token(request()).await {
                Err(status) if status.code() == Code::ResourceExhausted => {}
                ended => return ended,
            }
        }
    };
    let waiting: Vec<_> = (0..2).map(|_| tokio::spawn(take_place(client.clone()))).collect();
    let shed = async || match client.clone().get_token(request()).await {
        Err(status) if status.code() == Code::ResourceExhausted => Some(status),
        _ => None,
    };
    let mut refused = None;
    crate::broker::eventually("a third call is shed", async || {
        refused = timeout(Duration::from_millis(200), shed()).await.ok().flatten();
        refused.is_some()
    })
    .await;
    let refused = refused.expect("it was shed");
    assert_eq!(reason(&refused), "OVERLOADED");
    assert!(come_again(&refused).is_some(), "{refused:?}");
    stage.upstream.release();
    for call in waiting {
        call.await.expect("no panic").expect("they were there first");
    }
    broker.stop().await;
}

#[tokio::test]
async fn each_caller_has_a_rate_of_its_own() {
    let stage = Stage::new(Over::Memory).await;
    let tables = format!("[limits]\ncalls_per_second_per_caller = 3\n{}", stage.credential("ci", ""));
    let broker = stage.start_guarded("insecure_allow_any_caller = true\n", &tables).await;
    let mut client = broker.tokens().await;
    let mut refused = 0;
    for _ in 0..200 {
        let request = GetTokenRequest { credential: "ci".into(), ..Default::default() };
        if let Err(status) = client.get_token(request).await {
            assert_eq!((status.code(), reason(&status).as_str()), (Code::ResourceExhausted, "TOO_MANY_REQUESTS"));
            assert!(come_again(&status).is_some(), "{status:?}");
            refused += 1;
        }
    }
    assert!(refused > 100, "{refused} of 200 were refused");
    // Who waits as it is told gets through.
    crate::broker::eventually("the rate allows the next one", async || {
        broker.library().get_token(GetToken::of("ci")).await.is_ok()
    })
    .await;
    broker.stop().await;
}

#[tokio::test]
async fn a_connection_too_many_is_closed_at_once() {
    let stage = Stage::new(Over::Memory).await;
    let tables = format!("[limits]\nmax_connections = 2\n{}", stage.credential("ci", ""));
    let broker = stage.start_guarded("insecure_allow_any_caller = true\n", &tables).await;
    let mut first = broker.tokens().await;
    let _second = broker.tokens().await;
    let request = || GetTokenRequest { credential: "ci".into(), ..Default::default() };
    first.get_token(request()).await.expect("within the limit");
    let mut third = TcpStream::connect(broker.client).await.expect("the kernel accepts");
    let read = timeout(Duration::from_secs(60), third.read(&mut [0; 1])).await.expect("an end");
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    first.get_token(request()).await.expect("those before it go on");
    broker.stop().await;
}
