//! The middleware around a user's own `reqwest::Client`: what is the user's stays in force.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{Extensions, Method, StatusCode};
use reqwest::{Request, Response, redirect::Policy};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Middleware, Next};
use tokencache_client::{Timing, TokenAuth, testing::MemoryBroker};
use tokio::task::JoinSet;

use crate::{tls::Authority, upstream::Upstream};

fn broker() -> MemoryBroker {
    let broker = MemoryBroker::new();
    broker.add("api", Duration::from_secs(3600));
    broker
}

/// The user's own session; nothing of the environment's.
fn own() -> reqwest::ClientBuilder {
    reqwest::Client::builder().no_proxy()
}

fn decorated(session: reqwest::ClientBuilder, broker: &MemoryBroker) -> ClientWithMiddleware {
    let auth = TokenAuth::new(broker.client().source("api"));
    ClientBuilder::new(session.build().expect("a session")).with(auth.middleware()).build()
}

#[tokio::test]
async fn a_thousand_requests_with_a_dead_token_cost_one_report_and_one_replay_each() {
    let (broker, upstream) = (broker(), Upstream::start().await);
    let session = decorated(own(), &broker);
    session.get(upstream.url("/")).send().await.expect("an answer");
    upstream.accept(2);
    let mut requests = JoinSet::new();
    for number in 0..1000 {
        let request = session.post(upstream.url(&format!("/{number}"))).body(number.to_string());
        requests.spawn(async move { request.send().await });
    }
    for answer in requests.join_all().await {
        let answer = answer.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK);
        assert!(answer.extensions().get::<Timing>().expect("timed").replays <= 1);
    }
    assert_eq!((broker.minted("api"), broker.reports("api")), (2, 1));
    let succeeded = upstream.sent().iter().filter(|sent| sent.status == StatusCode::OK).count();
    assert_eq!(succeeded, 1001);
}

#[tokio::test]
async fn requests_of_all_methods_and_bodies_are_sent_again_as_they_were() {
    for method in [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
        for kind in 0..3 {
            let (broker, upstream) = (broker(), Upstream::start().await);
            upstream.accept(2);
            let request = decorated(own(), &broker).request(method.clone(), upstream.url("/a?b=c"));
            let request = match kind {
                0 => request,
                1 => request.body("a body"),
                // A stream, which reqwest cannot clone.
                _ => request.body(reqwest::Body::wrap(http_body_util::StreamBody::new(tokio_stream::iter(
                    [&b"a "[..], b"body"]
                        .map(|part| Ok::<_, std::io::Error>(hyper::body::Frame::data(bytes::Bytes::from(part)))),
                )))),
            };
            let answer = request.header("x-own", "kept").send().await.expect("an answer");
            assert_eq!(answer.status(), StatusCode::OK, "{method} {kind}");
            let mut sent = upstream.sent();
            for sent in &mut sent {
                sent.headers.remove("authorization").expect("a token");
                sent.status = StatusCode::OK;
            }
            assert_eq!((sent.len(), &sent[0]), (2, &sent[1]));
            assert_eq!(sent[0].headers["x-own"], "kept");
        }
    }
}

#[tokio::test]
async fn the_users_cookies_middleware_and_redirects_are_in_force() {
    #[derive(Clone)]
    struct Counts(Arc<AtomicUsize>);

    #[async_trait::async_trait]
    impl Middleware for Counts {
        async fn handle(
            &self,
            request: Request,
            extensions: &mut Extensions,
            next: Next<'_>,
        ) -> reqwest_middleware::Result<Response> {
            self.0.fetch_add(1, Ordering::SeqCst);
            next.run(request, extensions).await
        }
    }

    let (broker, upstream, counted) = (broker(), Upstream::start().await, Counts(Arc::default()));
    upstream.accept(2);
    let session = own()
        .cookie_store(true)
        .redirect(Policy::limited(1))
        .default_headers([(http::header::USER_AGENT, http::HeaderValue::from_static("theirs"))].into_iter().collect());
    let auth = TokenAuth::new(broker.client().source("api"));
    let session =
        ClientBuilder::new(session.build().expect("a session")).with(counted.clone()).with(auth.middleware()).build();
    session.get(upstream.url("/")).send().await.expect("an answer");
    assert_eq!(counted.0.load(Ordering::SeqCst), 1, "their middleware sees one request, whatever it takes");
    let answer = session.get(upstream.url("/moved?/there")).send().await.expect("an answer");
    assert_eq!(answer.url().path(), "/there");
    let sent = upstream.sent();
    assert_eq!(sent.last().expect("a request").headers["cookie"], "seen=1");
    assert!(sent.iter().all(|sent| sent.headers["user-agent"] == "theirs"));
    let loops = session.get(upstream.url("/moved?/moved?/there")).send().await.expect_err("one redirect is allowed");
    assert!(matches!(loops, reqwest_middleware::Error::Reqwest(error) if error.is_redirect()));
}

#[tokio::test]
async fn a_token_does_not_follow_a_redirect_to_another_host_whose_refusal_is_not_its() {
    let (broker, upstream, other) = (broker(), Upstream::start().await, Upstream::start().await);
    let session = decorated(own(), &broker);
    let elsewhere = other.url("/").replace("127.0.0.1", "localhost");
    let answer = session.get(upstream.url(&format!("/moved?{elsewhere}"))).send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    let sent = other.sent();
    assert_eq!(sent.len(), 1);
    assert!(!sent[0].headers.contains_key("authorization"));
    assert_eq!(broker.reports("api"), 0);
}

#[tokio::test]
async fn the_users_proxy_is_used() {
    let (broker, proxy) = (broker(), Upstream::start().await);
    let session = reqwest::Client::builder().proxy(reqwest::Proxy::http(proxy.url("")).expect("a proxy"));
    let answer = decorated(session, &broker).get("http://upstream.example/a").send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(proxy.sent()[0].headers["host"], "upstream.example");
}

#[tokio::test]
async fn the_users_authority_and_client_certificate_are_in_force() {
    let (broker, authority) = (broker(), Authority::new());
    let upstream = Upstream::start_tls(authority.acceptor("localhost", Some(&authority), b"http/1.1")).await;
    let url = upstream.url("/").replace("http://127.0.0.1", "https://localhost");
    let ca = reqwest::Certificate::from_pem(&std::fs::read(authority.file("ca.pem")).expect("a file")).expect("PEM");
    let (chain, key) = authority.write_client();
    let identity = [std::fs::read(key).expect("a file"), std::fs::read(chain).expect("a file")].concat();
    let identity = reqwest::Identity::from_pem(&identity).expect("PEM");
    let trusting = || own().tls_certs_only([ca.clone()]);
    upstream.accept(2);
    let answer = decorated(trusting().identity(identity), &broker).get(&url).send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(upstream.sent().len(), 2);
    for session in [trusting(), own()] {
        let error = decorated(session, &broker).get(&url).send().await.expect_err("no certificate, or no authority");
        assert!(matches!(error, reqwest_middleware::Error::Reqwest(error) if error.is_connect() || error.is_request()));
    }
    assert!(upstream.sent().is_empty());
}

#[tokio::test]
async fn the_users_time_out_is_in_force() {
    let broker = broker();
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", silent.local_addr().expect("an address"));
    let session = decorated(own().timeout(Duration::from_millis(50)), &broker);
    let error = session.get(url).send().await.expect_err("nobody answers");
    assert!(matches!(error, reqwest_middleware::Error::Reqwest(error) if error.is_timeout()));
}
