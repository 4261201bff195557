//! The proxy between programs and a local upstream, with curl as the program.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Stdio};

use http::{Method, header::AUTHORIZATION};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    task::JoinSet,
};

use crate::{
    fake::command,
    minting::MintingBroker,
    upstream::{Upstream, read_head},
};

/// A running proxy.
struct Proxy {
    child: Child,
    url: String,
}

impl Proxy {
    async fn start(broker: &str, upstream: &str, arguments: &[&str]) -> Self {
        let credential = if arguments.contains(&"--credential") { &[][..] } else { &["--credential", "a"] };
        let all = [&["--addr", broker, "proxy", "--upstream", upstream], credential, arguments].concat();
        let mut child = command(&all).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let url = lines.next_line().await.unwrap().expect("the proxy prints where it listens");
        Self { child, url }
    }

    fn address(&self) -> &str {
        self.url.strip_prefix("http://").unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.child.id().unwrap().cast_signed()).unwrap(), signal).unwrap();
    }

    /// The most memory that it has used, in MiB.
    fn most_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id().unwrap())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    }
}

/// What curl prints: the body, then the status on a line of its own.
async fn curl(arguments: &[&str]) -> String {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--noproxy", "*", "--write-out", "\n%{http_code}"]).args(arguments);
    let output = curl.kill_on_drop(true).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// An upstream that takes the broker's current token.
async fn world() -> (MintingBroker, String, Upstream, String) {
    let (broker, endpoint) = MintingBroker::serve().await;
    let minting = broker.clone();
    let (upstream, url) = Upstream::serve_with(move || minting.secret()).await;
    (broker, endpoint, upstream, url)
}

/// An upstream that refuses the first token.
async fn stale_world() -> (MintingBroker, String, Upstream, String) {
    let (broker, endpoint) = MintingBroker::serve().await;
    let (upstream, url) = Upstream::serve_with(|| "token-2".into()).await;
    (broker, endpoint, upstream, url)
}

#[tokio::test]
async fn a_request_gets_the_token_and_loses_what_belongs_to_its_connection() {
    let (_, endpoint, upstream, url) = world().await;
    let proxy = Proxy::start(&endpoint, &format!("{url}/base/"), &[]).await;
    let target = format!("{}/path?q=1", proxy.url);
    let answer = curl(&[
        "-i",
        &target,
        "-H",
        "Authorization: Basic mine",
        "-H",
        "X-Mine: 1",
        "-H",
        "X-Drop: 1",
        "-H",
        "Connection: X-Drop",
        "-H",
        "Keep-Alive: 1",
        "-H",
        "Proxy-Authorization: Basic x",
    ])
    .await;
    assert!(answer.ends_with("\n200") && answer.contains("x-upstream: yes"), "{answer}");
    assert!(!answer.contains("x-hop") && !answer.contains("keep-alive"), "{answer}");
    let seen = &upstream.seen()[0];
    assert_eq!(seen.target, "/base/path?q=1");
    assert_eq!(seen.headers[AUTHORIZATION], "Bearer token-1");
    let mut names: Vec<_> = seen.headers.keys().map(|name| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["accept", "authorization", "host", "user-agent", "x-mine"]);
    assert_eq!(format!("http://{}", seen.headers["host"].to_str().unwrap()), url);
}

#[tokio::test]
async fn the_header_and_its_scheme_can_be_chosen() {
    let (_, endpoint) = MintingBroker::serve().await;
    let (upstream, url) = Upstream::serve(|headers| headers.get("x-session").is_some_and(|v| v == "token-1")).await;
    let proxy = Proxy::start(&endpoint, &url, &["--header", "X-Session", "--scheme", ""]).await;
    let answer = curl(&[&proxy.url, "-H", "Authorization: Basic mine", "-H", "x-session: old"]).await;
    assert!(answer.ends_with("\n200"), "{answer}");
    assert_eq!(upstream.seen()[0].headers[AUTHORIZATION], "Basic mine");
}

#[tokio::test]
async fn a_refused_request_is_sent_again_byte_by_byte() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("body");
    let bytes: Vec<u8> = (0..50_000_u32).map(|i| (i % 251) as u8).collect();
    fs::write(&file, &bytes).unwrap();
    let at = format!("@{}", file.display());
    let bodies: [(&[&str], &[u8]); 3] = [
        (&[], b""),
        (&["--data-binary", &at], &bytes),
        (&["-H", "Transfer-Encoding: chunked", "--data-binary", &at], &bytes),
    ];
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        for (body, expected) in bodies {
            let (broker, endpoint, upstream, url) = stale_world().await;
            let proxy = Proxy::start(&endpoint, &url, &[]).await;
            let answer = curl(&[&[&proxy.url, "-X", method], body].concat()).await;
            assert!(answer.ends_with("\n200"), "{method}");
            let seen = upstream.seen();
            assert_eq!((broker.reports(), seen.len()), (vec!["1".to_owned()], 2), "{method}");
            let mut first = seen[0].headers.clone();
            assert_eq!(first.remove(AUTHORIZATION).unwrap(), "Bearer token-1");
            let mut second = seen[1].headers.clone();
            assert_eq!(second.remove(AUTHORIZATION).unwrap(), "Bearer token-2");
            for seen in &seen {
                assert_eq!((&seen.method, &seen.body[..]), (&method.parse::<Method>().unwrap(), expected));
            }
            assert_eq!(first, second);
        }
    }
}

#[tokio::test]
async fn a_body_too_long_to_keep_streams_and_its_refusal_is_handed_through() {
    let (broker, endpoint, upstream, url) = stale_world().await;
    let proxy = Proxy::start(&endpoint, &url, &["--max-body", "1KiB"]).await;
    let body = "x".repeat(1025);
    let answer = curl(&[&proxy.url, "--data-binary", &body]).await;
    assert_eq!(answer, "refused\n401");
    assert_eq!(upstream.seen()[0].body, body.as_bytes());
    while broker.reports().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(curl(&[&proxy.url, "--data-binary", &body]).await, format!("{body}\n200"));
}

#[tokio::test]
async fn a_storm_of_refusals_costs_one_report() {
    let (broker, endpoint, upstream, url) = stale_world().await;
    let proxy = Proxy::start(&endpoint, &url, &[]).await;
    let mut requests = JoinSet::new();
    for i in 0..200 {
        let address = proxy.address().to_owned();
        requests.spawn(async move {
            let mut stream = TcpStream::connect(&address).await.unwrap();
            let request =
                format!("POST /{i} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\nhi"), "{answer}");
        });
    }
    assert_eq!(requests.join_all().await.len(), 200);
    assert_eq!(broker.reports(), ["1"]);
    assert!((201..=400).contains(&upstream.seen().len()), "{}", upstream.seen().len());
}

#[tokio::test]
async fn http_2_programs_are_served_as_well() {
    let (_, endpoint, upstream, url) = world().await;
    let proxy = Proxy::start(&endpoint, &url, &[]).await;
    let answer = curl(&["--http2-prior-knowledge", "-w", "\n%{http_version}", &proxy.url, "-d", "hi"]).await;
    assert_eq!(answer, "hi\n2");
    assert_eq!(upstream.seen()[0].headers[AUTHORIZATION], "Bearer token-1");
}

#[tokio::test]
async fn a_connection_that_changes_its_protocol_is_passed_through() {
    // The first token is refused, so the request is sent again before the protocols change.
    let (broker, endpoint, _, url) = stale_world().await;
    let proxy = Proxy::start(&endpoint, &url, &[]).await;
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    let host = proxy.address();
    let request = format!("GET /upgrade HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let head = read_head(&mut stream).await.to_lowercase();
    assert!(head.starts_with("http/1.1 101") && head.contains("upgrade: echo"), "{head}");
    assert!(head.contains("connection: upgrade"), "{head}");
    for round in 0_u8..50 {
        let sent = vec![round; 10_000];
        stream.write_all(&sent).await.unwrap();
        let mut received = vec![0; sent.len()];
        stream.read_exact(&mut received).await.unwrap();
        assert_eq!(received, sent);
    }
    assert_eq!(broker.reports(), ["1"]);
    stream.shutdown().await.unwrap();
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_request_for_another_host_or_from_another_site_is_refused() {
    let (_, endpoint, upstream, url) = world().await;
    let proxy = Proxy::start(&endpoint, &url, &[]).await;
    let answer = curl(&[&proxy.url, "-H", "Host: evil.example"]).await;
    assert!(answer.ends_with("\n421"), "{answer}");
    let answer = curl(&[&proxy.url, "-H", "Sec-Fetch-Site: cross-site"]).await;
    assert!(answer.ends_with("\n403"), "{answer}");
    assert!(upstream.seen().is_empty());
    let port = proxy.address().rsplit_once(':').unwrap().1;
    assert!(curl(&[&proxy.url, "-H", &format!("Host: localhost:{port}")]).await.ends_with("\n200"));
}

#[tokio::test]
async fn what_cannot_be_had_is_told_in_a_sentence() {
    let (_, endpoint, _, url) = world().await;
    let proxy = Proxy::start(&endpoint, &url, &["--credential", "away", "--timeout", "1s"]).await;
    let answer = curl(&["-i", &proxy.url]).await;
    assert!(answer.ends_with("\n503") && answer.contains("retry-after: 90"), "{answer}");
    assert!(answer.contains("tokencache: there is no token: it failed (UPSTREAM_DOWN); retry in 1m 29s"), "{answer}");

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nowhere = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let proxy = Proxy::start(&endpoint, &nowhere, &[]).await;
    let answer = curl(&[&proxy.url]).await;
    assert!(answer.ends_with("\n502") && answer.contains("the upstream cannot be reached: "), "{answer}");
}

#[tokio::test]
async fn it_listens_where_only_its_owner_can_call_it() {
    let (_, endpoint, _, url) = world().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("proxy.sock");
    let listen = format!("unix:{}", path.display());
    let mut proxy = Proxy::start(&endpoint, &url, &["--listen", &listen]).await;
    assert_eq!(proxy.url, listen);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let answer = curl(&["--unix-socket", path.to_str().unwrap(), "http://any.example/", "-d", "hi"]).await;
    assert_eq!(answer, "hi\n200");
    proxy.signal(Signal::TERM);
    assert!(proxy.child.wait().await.unwrap().success());
    assert!(!Path::new(&path).exists());

    let refused = ["proxy", "--credential", "a", "--upstream", &url, "--listen", "0.0.0.0:0"];
    let output = command(&refused).output().await.unwrap();
    assert_eq!(output.status.code(), Some(2));
    let clear = ["proxy", "--credential", "a", "--upstream", "http://api.example"];
    let output = command(&clear).output().await.unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("would show the token to the network"));
}

#[tokio::test]
async fn what_was_begun_is_finished_after_a_signal() {
    let (_, endpoint, _, url) = world().await;
    let mut proxy = Proxy::start(&endpoint, &url, &[]).await;
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    let host = proxy.address();
    let head = format!("POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    // It reads the body, so the request has begun.
    assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 100"));
    proxy.signal(Signal::INT);
    while TcpStream::connect(proxy.address()).await.is_ok() {
        tokio::task::yield_now().await;
    }
    stream.write_all(b"late").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\nlate"), "{answer}");
    assert!(proxy.child.wait().await.unwrap().success());
}

/// Sends this much through and back, and returns how much memory that took beside the first requests.
#[expect(clippy::print_stderr, reason = "the figure is what one runs the longer one for")]
async fn stream_through(mebibytes: usize) -> u64 {
    let (_, endpoint, _, url) = world().await;
    let proxy = Proxy::start(&endpoint, &url, &[]).await;
    curl(&[&proxy.url, "-d", "hi"]).await;
    let before = proxy.most_memory();
    let size = mebibytes << 20;
    let target = format!("{}/download/{size}", proxy.url);
    let answer = curl(&["-o", "/dev/null", "-w", "%{size_download} %{http_code}", &target]).await;
    assert_eq!(answer, format!("{size} 200"));
    let upload = format!("head -c {size} /dev/zero | curl -sS --noproxy '*' -T - {}/count", proxy.url);
    let output = Command::new("sh").args(["-c", &upload]).kill_on_drop(true).output().await.unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), size.to_string(), "{output:?}");
    let after = proxy.most_memory();
    eprintln!("{mebibytes} MiB each way: VmHWM {before} MiB before, {after} MiB after");
    after - before
}

#[tokio::test]
async fn bodies_stream_through_without_piling_up() {
    assert!(stream_through(64).await < 16);
}

#[tokio::test]
#[ignore = "a GiB each way takes a while"]
async fn a_gibibyte_streams_through_without_piling_up() {
    assert!(stream_through(1024).await < 16);
}
