//! Tests against upstreams that break the rules of HTTP.

use tokencache_testkit::http::{ClosedPort, Reply, ScriptedServer};

use super::*;

fn client(settings: &HttpSettings) -> HttpClient {
    HttpClients::default().get(&local(settings)).expect("a client")
}

/// The settings of a credential whose configuration has a URL on this machine.
fn local(settings: &HttpSettings) -> HttpSettings {
    settings.clone().naming([&Url::parse("http://127.0.0.1").expect("a URL")])
}

fn call(url: &str) -> Call {
    Call {
        method: Method::POST,
        url: Url::parse(url).expect("a URL"),
        headers: HeaderMap::new(),
        body: Zeroizing::new(b"x=s3cr3t".to_vec()),
        within: None,
        repeatable: false,
    }
}

async fn exchange(reply: Reply, settings: HttpSettings) -> Result<Answer, HttpFailure> {
    let server = ScriptedServer::start(vec![reply]).await.expect("a server");
    client(&settings).send(call(&format!("{}/token?k=s3cr3t", server.url()))).await
}

fn hasty() -> HttpSettings {
    HttpSettings { timeout: Duration::from_millis(300), ..HttpSettings::default() }
}

#[tokio::test]
async fn an_answer_is_read_whole_whatever_its_status() {
    let answer = exchange(Reply::new(418, "x-a: b\r\n", "hello"), HttpSettings::default()).await.unwrap();
    assert_eq!((answer.status.as_u16(), &answer.body[..], answer.fault), (418, &b"hello"[..], None));
    assert_eq!(answer.headers["x-a"], "b");
}

#[tokio::test]
async fn a_request_asks_for_no_compression_and_carries_its_body() {
    let server = ScriptedServer::start(vec![Reply::json(200, "{}")]).await.unwrap();
    client(&HttpSettings::default()).send(call(server.url())).await.unwrap();
    let request = server.requests().remove(0).to_lowercase();
    assert!(request.starts_with("post / http/1.1\r\n") && request.ends_with("\r\n\r\nx=s3cr3t"), "{request}");
    assert!(request.contains("accept-encoding: identity\r\n"), "{request}");
}

#[tokio::test]
async fn no_more_than_64_kib_of_a_body_are_read() {
    let exact = exchange(Reply::new(200, "", vec![b' '; MAX_BODY]), HttpSettings::default()).await.unwrap();
    assert_eq!((exact.body.len(), exact.fault), (MAX_BODY, None));
    let longer = exchange(Reply::new(200, "", vec![b' '; MAX_BODY + 1]), HttpSettings::default()).await.unwrap();
    assert_eq!((longer.body.len(), longer.fault), (MAX_BODY, Some(BodyFault::TooLong)));
    // Nor is there an end to this one.
    let endless = Reply::Bytes([b"HTTP/1.1 200 x\r\n\r\n".to_vec(), vec![b' '; 10_000_000]].concat());
    let endless = exchange(endless, HttpSettings::default()).await.unwrap();
    assert_eq!((endless.body.len(), endless.fault), (MAX_BODY, Some(BodyFault::TooLong)));
}

#[tokio::test]
async fn a_compressed_body_is_not_even_read() {
    for encoding in ["gzip", "br", "identity, gzip"] {
        let reply = Reply::new(200, &format!("content-encoding: {encoding}\r\n"), [0x1f, 0x8b, 8, 0]);
        let answer = exchange(reply, HttpSettings::default()).await.unwrap();
        assert_eq!((answer.body.len(), answer.fault), (0, Some(BodyFault::Encoded)), "{encoding}");
        assert_eq!(answer.illegible().kind(), ErrorKind::UpstreamDown);
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_is_kept_as_far_as_it_came() {
    let reply = Reply::Bytes(b"HTTP/1.1 200 x\r\ncontent-length: 100\r\n\r\n{\"a\":".to_vec());
    let answer = exchange(reply, HttpSettings::default()).await.unwrap();
    assert_eq!((&answer.body[..], answer.fault), (&b"{\"a\":"[..], Some(BodyFault::Truncated)));
    assert!(answer.json().is_none());
}

#[tokio::test]
async fn a_body_that_drips_ends_with_the_time_limit() {
    let head = b"HTTP/1.1 200 x\r\ncontent-length: 60000\r\n\r\n{}".to_vec();
    let answer = exchange(Reply::Drip(head), hasty()).await.unwrap();
    assert_eq!(answer.fault, Some(BodyFault::Slow));
    assert!(answer.body.starts_with(b"{}") && answer.json().is_none());
    assert_eq!(answer.illegible().kind(), ErrorKind::UpstreamSlow);
}

#[tokio::test]
async fn silence_after_the_request_is_slow_and_in_doubt() {
    let failure = exchange(Reply::Silence, hasty()).await.unwrap_err();
    assert!(matches!(failure, HttpFailure::Slow(..)), "{failure}");
    let failure = MintFailure::from(failure);
    assert_eq!((failure.error.kind(), failure.in_doubt), (ErrorKind::UpstreamSlow, true));
}

#[tokio::test]
async fn what_is_not_http_is_a_broken_connection_in_doubt() {
    let huge_header = format!("HTTP/1.1 200 x\r\nx: {}\r\n\r\n", "a".repeat(1_000_000));
    let many_headers = format!("HTTP/1.1 200 x\r\n{}\r\n", "x: y\r\n".repeat(10_000));
    let bad_header = "HTTP/1.1 200 x\r\nx: s3cr3t\0\r\n\r\n";
    for bytes in ["", "s3cr3t", "HTTP/1.1 999999 x\r\n\r\n", &huge_header, &many_headers, bad_header] {
        let failure = exchange(Reply::Bytes(bytes.into()), HttpSettings::default()).await.unwrap_err();
        assert!(matches!(failure, HttpFailure::Broken(_)), "{failure} for {bytes:.40}");
        let failure = MintFailure::from(failure);
        assert_eq!((failure.error.kind(), failure.in_doubt), (ErrorKind::UpstreamDown, true));
        assert!(!format!("{failure:?}").contains("s3cr3t"), "{failure:?}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let server = ScriptedServer::start(vec![Reply::new(307, "location: /elsewhere\r\n", "")]).await.unwrap();
    let answer = client(&HttpSettings::default()).send(call(server.url())).await.unwrap();
    assert_eq!((answer.status.as_u16(), server.requests().len()), (307, 1));
}

#[tokio::test]
async fn a_refused_connection_proves_that_nothing_was_sent() {
    let port = ClosedPort::take().unwrap();
    let url = format!("{}/s3cr3t?s3cr3t", port.url());
    for repeatable in [false, true] {
        let call = Call { repeatable, ..call(&url) };
        let failure = client(&HttpSettings::default()).send(call).await.unwrap_err();
        assert!(failure.to_string().contains("refused") && !failure.to_string().contains("s3cr3t"), "{failure}");
        let failure = MintFailure::from(failure);
        assert_eq!((failure.error.kind(), failure.in_doubt), (ErrorKind::UpstreamDown, false));
    }
}

#[tokio::test]
async fn a_tls_handshake_that_hangs_proves_that_nothing_was_sent() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    let settings = HttpSettings { connect_timeout: Duration::from_millis(100), ..HttpSettings::default() };
    for repeatable in [false, true] {
        let failure = client(&settings).send(Call { repeatable, ..call(&url) }).await.unwrap_err();
        assert!(matches!(failure, HttpFailure::ConnectSlow(..)) && !failure.may_have_been_sent(), "{failure}");
    }
}

#[tokio::test]
async fn plain_http_to_another_machine_is_refused_before_anything_is_sent() {
    let failure = client(&HttpSettings::default()).send(call("http://192.0.2.1/")).await.unwrap_err();
    assert!(matches!(failure, HttpFailure::Insecure(_, InsecureUrl::PlainHttp)), "{failure}");
    assert_eq!(Error::from(failure).kind(), ErrorKind::Misconfigured);
}

#[tokio::test]
async fn a_configured_proxy_gets_the_request() {
    let proxy = ScriptedServer::start(vec![Reply::json(200, "{}")]).await.unwrap();
    let settings =
        HttpSettings { proxy: Some(Url::parse(proxy.url()).unwrap()), allow_http: true, ..HttpSettings::default() };
    client(&settings).send(call("http://idp.invalid/token")).await.unwrap();
    assert!(proxy.requests()[0].starts_with("POST http://idp.invalid/token HTTP/1.1\r\n"), "{:?}", proxy.requests());
}

#[test]
fn each_unusable_file_has_its_own_error() {
    let directory = tempfile::tempdir().unwrap();
    let junk = directory.path().join("junk.pem");
    std::fs::write(&junk, "junk").unwrap();
    let missing = directory.path().join("missing.pem");
    let settings = |ca, cert: Option<&std::path::PathBuf>| HttpSettings {
        ca_file: ca,
        client_cert: cert.map(|path| (path.clone(), path.clone())),
        ..HttpSettings::default()
    };
    let error = |settings| HttpClients::default().get(&settings).unwrap_err();
    assert!(matches!(error(settings(Some(missing), None)), BadClient::File(..)));
    assert!(matches!(error(settings(Some(junk.clone()), None)), BadClient::NoCertificate(_)));
    assert!(matches!(error(settings(None, Some(&junk))), BadClient::BadIdentity(..)));
}

#[test]
fn equal_settings_share_a_client() {
    let clients = HttpClients::default();
    for _ in 0..3 {
        clients.get(&HttpSettings::default()).unwrap();
    }
    clients.get(&hasty()).unwrap();
    assert_eq!(clients.known.lock().unwrap().len(), 2);
}

/// What the server answers to repeatable (`true`) and other calls, one after the other.
async fn answers(replies: Vec<Reply>, calls: &[bool]) -> (Vec<Result<String, HttpFailure>>, usize) {
    let server = ScriptedServer::start(replies).await.expect("a server");
    let client = client(&hasty());
    let mut answers = vec![];
    for repeatable in calls {
        let answer = client.send(Call { repeatable: *repeatable, ..call(server.url()) }).await;
        answers.push(answer.map(|answer| String::from_utf8_lossy(&answer.body).into_owned()));
    }
    (answers, server.requests().len())
}

fn texts(answers: &[Result<String, HttpFailure>]) -> Vec<&str> {
    answers.iter().map(|answer| answer.as_deref().unwrap_or("none")).collect()
}

#[tokio::test]
async fn repeatable_requests_share_a_connection_and_others_have_one_of_their_own() {
    let reply = |body| Reply::new(200, "", body);
    let replies = vec![reply("a1").then(reply("a2")).then(reply("a3")), reply("b1").then(reply("b2")), reply("c1")];
    let (answers, _) = answers(replies, &[true, false, true, false, true]).await;
    assert_eq!(texts(&answers), ["a1", "b1", "a2", "c1", "a3"]);
}

#[tokio::test]
async fn a_repeatable_request_that_meets_the_end_of_a_kept_connection_is_sent_once_more_and_no_other() {
    let (ends, reply) = (|| Reply::Bytes(vec![]), |body| Reply::new(200, "", body));
    let (told, requests) = answers(vec![reply("a1").then(ends()), reply("b1")], &[true, true]).await;
    assert_eq!((texts(&told), requests), (vec!["a1", "b1"], 3));
    let (told, requests) = answers(vec![reply("a1").then(ends()), ends(), reply("c1")], &[true, true]).await;
    assert_eq!((texts(&told), requests), (vec!["a1", "none"], 3), "it is not sent for a third time");
    for repeatable in [true, false] {
        // A connection that was opened for it.
        let (told, requests) = answers(vec![ends(), reply("b1")], &[repeatable]).await;
        assert_eq!(requests, 1);
        assert!(told[0].as_ref().is_err_and(HttpFailure::may_have_been_sent), "{told:?}");
    }
}

#[tokio::test]
async fn a_repeatable_request_that_is_not_answered_in_time_is_not_repeated() {
    let reply = |body| Reply::new(200, "", body);
    let (told, requests) = answers(vec![reply("a1").then(Reply::Silence), reply("b1")], &[true, true]).await;
    assert_eq!(requests, 2);
    assert!(matches!(told[1], Err(HttpFailure::Slow(..))), "{told:?}");
}
