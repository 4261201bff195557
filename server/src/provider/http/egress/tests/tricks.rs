//! What an attacker writes into a URL, answers as a name server or sends as an upstream, to have the broker connect to
//! where it must not. Each is tried over real connections; the traps count who gets through.

use std::{collections::HashSet, sync::Arc, time::Duration};

use ::http::{HeaderMap, Method};
use zeroize::Zeroizing;

use super::{super::*, FakeDns, Traps, rules};
use crate::{
    error::{Error, ErrorKind},
    provider::http::{Answer, Call, HttpClient, HttpClients, HttpFailure, HttpSettings, InsecureUrl},
};

const OK: &str = "HTTP/1.1 200 x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// URLs that lead to this machine, to its network or to its cloud, or that are made to look as if they did not.
const URLS: &[&str] = &[
    // The address, as it is and in every other way that inet_aton knows.
    "http://127.0.0.1:{p}/",
    "https://127.0.0.1:{p}/",
    "HTTP://127.0.0.1:{p}/",
    "http://127.0.0.2:{p}/",
    "http://127.1:{p}/",
    "http://127.0.1:{p}/",
    "http://2130706433:{p}/",
    "http://0x7f000001:{p}/",
    "http://0X7F000001:{p}/",
    "http://0x7f.1:{p}/",
    "http://0x7f.0x0.0x0.0x1:{p}/",
    "http://017700000001:{p}/",
    "http://0177.0.0.1:{p}/",
    "http://0177.0x0.0.01:{p}/",
    "http://127.000.000.001:{p}/",
    "http://127.0.0.1.:{p}/",
    "http://0x7f000001.:{p}/",
    // No address at all, which leads to this machine.
    "http://0:{p}/",
    "http://0.0.0.0:{p}/",
    "http://0x0:{p}/",
    "http://0.1:{p}/",
    "http://[::]:{p}/",
    // Digits and dots of other scripts, and encoded ones.
    "http://１２７.０.０.１:{p}/",
    "http://①②⑦.⓪.⓪.①:{p}/",
    "http://127。0。0。1:{p}/",
    "http://127｡0．0.1:{p}/",
    "http://%31%32%37.0.0.1:{p}/",
    "http://127%2e0%2e0%2e1:{p}/",
    "http://%EF%BC%91%EF%BC%92%EF%BC%97.0.0.1:{p}/",
    // IPv6, and what leads to IPv4 from there.
    "http://[::1]:{p}/",
    "http://[0:0:0:0:0:0:0:1]:{p}/",
    "http://[0000::0001]:{p}/",
    "http://[::ffff:127.0.0.1]:{p}/",
    "http://[::ffff:7f00:1]:{p}/",
    "http://[::FFFF:7F00:0001]:{p}/",
    "http://[::127.0.0.1]:{p}/",
    "http://[::ffff:0:127.0.0.1]:{p}/",
    "http://[64:ff9b::7f00:1]:{p}/",
    "http://[64:ff9b::169.254.169.254]:{p}/",
    "http://[64:ff9b:1::7f00:1]:{p}/",
    "http://[2002:7f00:1::]:{p}/",
    "http://[2001:0:7f00:1::]:{p}/",
    "http://[2001:0:4136:e378:8000:63bf:80ff:fffe]:{p}/",
    "http://[fe80::1]:{p}/",
    "http://[fe80::1%25lo]:{p}/",
    "http://[::1%lo]:{p}/",
    "http://[fec0::1]:{p}/",
    "http://[fc00::1]:{p}/",
    "http://[fd00:ec2::254]/latest/meta-data/",
    "http://[fd20:ce::254]/computeMetadata/v1/",
    "http://[ff02::1]:{p}/",
    "http://[100::1]:{p}/",
    "http://[2001:db8::1]:{p}/",
    "http://[::ffff:169.254.169.254]/",
    // The metadata of clouds.
    "http://169.254.169.254/latest/meta-data/",
    "http://2852039166/latest/meta-data/",
    "http://0xa9fea9fe/latest/meta-data/",
    "http://0251.0376.0251.0376/",
    "http://169.254.43518/",
    "http://169.254.170.2/v2/credentials",
    "http://100.100.100.200/latest/meta-data/",
    "http://168.63.129.16/machine",
    "http://metadata.google.internal/computeMetadata/v1/",
    "http://METADATA.Google.Internal/",
    "http://metadata.google.internal./",
    "http://metadata/",
    "http://instance-data/latest/",
    // Networks that are not the internet.
    "http://10.0.0.1:{p}/",
    "http://172.16.0.1:{p}/",
    "http://172.31.255.255:{p}/",
    "http://192.168.0.1:{p}/",
    "http://100.64.0.1:{p}/",
    "http://169.254.0.1:{p}/",
    "http://192.0.0.8:{p}/",
    "http://192.0.2.1:{p}/",
    "http://198.18.0.1:{p}/",
    "http://198.51.100.1:{p}/",
    "http://203.0.113.1:{p}/",
    "http://224.0.0.1:{p}/",
    "http://240.0.0.1:{p}/",
    "http://255.255.255.255:{p}/",
    // Names of this machine.
    "http://localhost:{p}/",
    "http://LOCALHOST:{p}/",
    "http://localhost.:{p}/",
    "http://a.localhost:{p}/",
    "http://localhost.localdomain:{p}/",
    "http://ip6-localhost:{p}/",
    "http://ｌｏｃａｌｈｏｓｔ:{p}/",
    "http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ:{p}/",
    "http://local\u{ad}host:{p}/",
    "http://%6cocalhost:{p}/",
    // One host to the reader, another one to the parser.
    "http://idp.example@127.0.0.1:{p}/",
    "http://idp.example:443@127.0.0.1:{p}/",
    "http://idp.example%40127.0.0.1:{p}/",
    "http://:@127.0.0.1:{p}/",
    "http://127.0.0.1:{p}\\@idp.example/",
    "http://127.0.0.1:{p}#@idp.example/",
    "http://127.0.0.1:{p}?@idp.example/",
    "http://127.0.0.1:{p}/@idp.example/",
    "http://idp.example\\@127.0.0.1:{p}\\",
    "http:\\\\127.0.0.1:{p}\\",
    "http:127.0.0.1:{p}/",
    "http:/127.0.0.1:{p}/",
    "http:////127.0.0.1:{p}/",
    "\u{1} http://127.0.0.1:{p}/",
    "ht\ntp://127.0\t.0.1:{p}/",
    "http://127.0.0.1 :{p}/",
    "http://127.0.0.1:{p}:80/",
    "http://[127.0.0.1]:{p}/",
    "//127.0.0.1:{p}/",
    // Other protocols.
    "ftp://127.0.0.1:{p}/",
    "ws://127.0.0.1:{p}/",
    "gopher://127.0.0.1:{p}/",
    "file:///etc/passwd",
    "unix:///var/run/docker.sock",
    "data:text/plain,x",
];

/// Names and what they resolve to.
const ANSWERS: &[(&str, &[&str])] = &[
    ("127.0.0.1.nip.io", &["127.0.0.1"]),
    ("7f000001.nip.example", &["127.0.0.1"]),
    ("localtest.example", &["127.0.0.1", "::1"]),
    ("other-loopback.example", &["127.0.0.2"]),
    ("v6.example", &["::1"]),
    ("mapped.example", &["::ffff:127.0.0.1"]),
    ("mapped-metadata.example", &["::ffff:169.254.169.254"]),
    ("compatible.example", &["::127.0.0.1"]),
    ("translated.example", &["64:ff9b::7f00:1"]),
    ("translated-metadata.example", &["64:ff9b::a9fe:a9fe"]),
    ("6to4.example", &["2002:7f00:1::"]),
    ("teredo.example", &["2001:0:7f00:1::"]),
    ("zero.example", &["0.0.0.0"]),
    ("zero-v6.example", &["::"]),
    ("private.example", &["10.0.0.1", "172.16.0.1", "192.168.0.1"]),
    ("carrier.example", &["100.64.0.1"]),
    ("unique-local.example", &["fd00::1"]),
    ("site-local.example", &["fec0::1"]),
    ("link.example", &["169.254.0.1"]),
    ("scoped.example", &["fe80::1%1"]),
    ("metadata.example", &["169.254.169.254"]),
    ("metadata-v6.example", &["fd00:ec2::254"]),
    ("azure.example", &["168.63.129.16"]),
    ("multicast.example", &["224.0.0.1", "ff02::1"]),
    ("broadcast.example", &["255.255.255.255"]),
    ("documentation.example", &["192.0.2.1", "2001:db8::1"]),
    ("mixture.example", &["10.0.0.1", "127.0.0.1", "::1", "fe80::1%1", "0.0.0.0"]),
    // Two letters that are not what they look like.
    ("xn--loclhost-2fg.example", &["127.0.0.1"]),
    ("xn--lcalhost-n8g.example", &["::1"]),
    ("127-0-0-1.example", &["127.0.0.1"]),
    ("idp.example.evil.example", &["127.0.0.1"]),
    ("a.b.c.d.e.f.example", &["127.0.0.1"]),
];

fn settings(egress: Egress) -> HttpSettings {
    // Plain http, so that it is not the scheme that keeps a trick from working.
    HttpSettings { allow_http: true, timeout: Duration::from_secs(20), egress, ..HttpSettings::default() }
        .naming([&Url::parse("https://idp.example/token").expect("a URL")])
}

fn client(settings: &HttpSettings, dns: &Arc<FakeDns>) -> HttpClient {
    HttpClients::with_lookup(Arc::<FakeDns>::clone(dns)).get(settings).expect("a client")
}

async fn send(client: &HttpClient, url: Url) -> Result<Answer, HttpFailure> {
    let body = Zeroizing::new(b"x=s3cr3t".to_vec());
    let call = Call { method: Method::POST, url, headers: HeaderMap::new(), body, within: None, repeatable: false };
    client.send(call).await
}

async fn get(client: &HttpClient, url: &str) -> Result<Answer, HttpFailure> {
    send(client, Url::parse(url).expect(url)).await
}

/// A request ended before there was any connection, because the rules say so.
fn assert_refused(result: Result<Answer, HttpFailure>, what: &str) {
    let failure = result.expect_err(what);
    assert!(matches!(failure, HttpFailure::Insecure(..) | HttpFailure::Forbidden(..)), "{what}: {failure}");
    assert!(!failure.may_have_been_sent(), "{what}");
    assert!(!failure.to_string().contains("s3cr3t"), "{failure}");
}

#[tokio::test]
async fn no_url_leads_to_where_it_must_not() {
    let distinct: HashSet<_> = URLS.iter().collect();
    assert!(distinct.len() == URLS.len() && URLS.len() >= 100, "{} of {}", distinct.len(), URLS.len());
    let traps = Traps::set(OK).await;
    // To a resolver that believes everything the names are this machine.
    let names = ["localhost", "a.localhost", "localhost.localdomain", "ip6-localhost", "idp.example", "metadata"];
    let dns = names.iter().fold(FakeDns::default(), |dns, name| dns.with(name, &[&["127.0.0.1"]]));
    let client = client(&settings(Egress::default()), &Arc::new(dns));
    let mut parsed = 0;
    for text in URLS {
        // What is no URL cannot be configured, and metadata that have it are refused.
        if let Ok(url) = Url::parse(&traps.url(text)) {
            parsed += 1;
            assert_refused(send(&client, url).await, text);
        }
    }
    assert!(parsed >= 100, "only {parsed} are URLs at all");
    assert_eq!(traps.total().await, 0);
}

#[tokio::test]
async fn no_answer_of_a_name_server_leads_to_where_it_must_not() {
    assert!(ANSWERS.len() >= 30, "{}", ANSWERS.len());
    let traps = Traps::set(OK).await;
    let dns = ANSWERS.iter().fold(FakeDns::default(), |dns, (name, answer)| dns.with(name, &[answer]));
    let dns = Arc::new(dns);
    let client = client(&settings(Egress::default()), &dns);
    for (name, answer) in ANSWERS {
        for scheme in ["http", "https"] {
            let result = get(&client, &traps.url(&format!("{scheme}://{name}:{{p}}/"))).await;
            assert!(matches!(result, Err(HttpFailure::Forbidden(..))), "{name} → {answer:?}: {result:?}");
            assert_refused(result, name);
        }
        // It is not looked up again in the hope of something better.
        assert_eq!(dns.asked(name), 2, "{name}");
    }
    assert_eq!(traps.total().await, 0);
}

#[tokio::test]
async fn a_name_that_changes_between_two_connections_is_judged_for_each() {
    let traps = Traps::set(OK).await;
    let dns = FakeDns::default().with("rebind.example", &[&["127.0.0.2"], &["127.0.0.1"], &["::1"], &["127.0.0.2"]]);
    let client = client(&settings(rules(&["127.0.0.2"], None)), &Arc::new(dns));
    let url = traps.url("http://rebind.example:{p}/");
    assert_eq!(get(&client, &url).await.expect("allowed").status, 200);
    for turn in ["second", "third"] {
        assert_refused(get(&client, &url).await, turn);
    }
    assert_eq!(get(&client, &url).await.expect("allowed again").status, 200);
    assert_eq!(traps.connections("127.0.0.2").await, 2);
    assert_eq!(traps.total().await, 2);
}

#[tokio::test]
async fn of_a_mixed_answer_the_allowed_addresses_alone_are_used() {
    let traps = Traps::set(OK).await;
    let mixed: &[&str] = &["127.0.0.1", "::1", "127.0.0.2", "10.0.0.1", "::ffff:127.0.0.1"];
    let refusing: &[&str] = &["127.0.0.1", "127.0.0.3", "::1"];
    let dns = FakeDns::default().with("mixed.example", &[mixed]).with("refusing.example", &[refusing]);
    let client = client(&settings(rules(&["127.0.0.2", "127.0.0.3"], None)), &Arc::new(dns));
    for _ in 0..5 {
        get(&client, &traps.url("http://mixed.example:{p}/")).await.expect("allowed");
    }
    // Where the one that is allowed does not listen, no other is tried instead.
    let failure = get(&client, &traps.url("http://refusing.example:{p}/")).await.expect_err("nobody listens there");
    assert!(matches!(failure, HttpFailure::Connect(..)), "{failure}");
    assert_eq!((traps.connections("127.0.0.2").await, traps.total().await), (5, 5));
}

#[tokio::test]
async fn a_redirect_leads_nowhere() {
    for status in [300, 301, 302, 303, 305, 307, 308] {
        let target = "location: http://127.0.0.1:{p}/stolen\r\nrefresh: 0; url=http://127.0.0.1:{p}/";
        let reply = format!("HTTP/1.1 {status} x\r\n{target}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        let traps = Traps::set(&reply).await;
        let client = client(&settings(rules(&["127.0.0.2"], None)), &Arc::default());
        let answer = get(&client, &traps.url("http://127.0.0.2:{p}/")).await.expect("an answer");
        assert_eq!(answer.status, status);
        assert_eq!((traps.connections("127.0.0.2").await, traps.total().await), (1, 1), "{status}");
    }
}

#[tokio::test]
async fn the_operators_word_is_for_the_host_as_it_is_written() {
    let traps = Traps::set(OK).await;
    let dns = FakeDns::default()
        .with("localhost", &[&["127.0.0.1"], &["10.0.0.1"]])
        .with("a.localhost", &[&["127.0.0.1"]])
        .with("alias.example", &[&["127.0.0.1"]]);
    let dns = Arc::new(dns);
    let named = |text: &str| client(&settings(Egress::default()).naming([&Url::parse(text).expect("a URL")]), &dns);
    let (literal, name) = (named("http://127.0.0.1/token"), named("http://localhost/token"));
    get(&literal, &traps.url("http://127.0.0.1:{p}/")).await.expect("the very address");
    get(&literal, &traps.url("http://0x7f.1:{p}/")).await.expect("another spelling of it");
    get(&name, &traps.url("http://LOCALHOST:{p}/")).await.expect("the very name");
    assert_eq!(traps.connections("127.0.0.1").await, 3);
    assert_refused(get(&name, &traps.url("http://localhost:{p}/")).await, "localhost that is elsewhere");
    for other in ["127.0.0.2", "[::1]", "[::ffff:127.0.0.1]", "localhost", "a.localhost", "alias.example", "0.0.0.0"] {
        assert_refused(get(&literal, &traps.url(&format!("http://{other}:{{p}}/"))).await, other);
    }
    for other in ["127.0.0.1", "127.0.0.2", "[::1]", "a.localhost", "alias.example"] {
        assert_refused(get(&name, &traps.url(&format!("http://{other}:{{p}}/"))).await, other);
    }
    assert_eq!(traps.total().await, 3);
}

#[tokio::test]
async fn with_allow_hosts_no_other_host_is_even_looked_up() {
    let traps = Traps::set(OK).await;
    let dns = FakeDns::default().with("a.corp.example", &[&["127.0.0.2"]]).with("evil.example", &[&["127.0.0.2"]]);
    let dns = Arc::new(dns);
    let client = client(&settings(rules(&["127.0.0.2"], Some(&["*.corp.example"]))), &dns);
    get(&client, &traps.url("http://A.Corp.Example:{p}/")).await.expect("allowed");
    for other in ["evil.example", "127.0.0.2", "corp.example", "a.corp.example.", "a.corp.example.evil.example"] {
        assert_refused(get(&client, &traps.url(&format!("http://{other}:{{p}}/"))).await, other);
    }
    assert_eq!((dns.asked("evil.example"), traps.total().await), (0, 1));
}

#[tokio::test]
async fn a_proxy_is_no_way_around_the_rules() {
    let traps = Traps::set(OK).await;
    let dns = FakeDns::default().with("proxy.example", &[&["127.0.0.2"]]).with("localhost", &[&["127.0.0.1"]]);
    let dns = Arc::new(dns);
    let through = |proxy: &str, egress| {
        let proxy = Some(Url::parse(&traps.url(proxy)).expect("a URL"));
        client(&HttpSettings { proxy, ..settings(egress) }, &dns)
    };
    // The proxy itself, by its name.
    for scheme in ["http", "https"] {
        let by_name = through("http://proxy.example:{p}", Egress::default());
        assert_refused(get(&by_name, &format!("{scheme}://idp.example/")).await, "the proxy's name");
    }
    assert_eq!(traps.total().await, 0);
    get(&through("http://proxy.example:{p}", rules(&["127.0.0.2"], None)), "http://idp.example/")
        .await
        .expect("allowed");
    // Its literal address or `localhost` is the operator's word, for the proxy alone.
    let literal = through("http://127.0.0.1:{p}", Egress::default());
    get(&literal, "http://idp.example/").await.expect("named");
    get(&through("http://localhost:{p}", Egress::default()), "http://idp.example/").await.expect("named");
    assert_eq!(traps.total().await, 3);
    for target in ["127.0.0.1:{p}", "127.0.0.2:{p}", "localhost:{p}", "169.254.169.254", "metadata.google.internal"] {
        for scheme in ["http", "https"] {
            assert_refused(get(&literal, &traps.url(&format!("{scheme}://{target}/"))).await, target);
        }
    }
    assert_eq!(traps.total().await, 3);
}

#[tokio::test]
async fn what_is_written_is_misconfigured_and_what_is_resolved_may_heal() {
    let dns = Arc::new(FakeDns::default().with("idp.example", &[&["10.0.0.1"]]));
    let client = client(&settings(Egress::default()), &dns);
    let resolved = get(&client, "https://idp.example/").await.expect_err("private");
    let text = "idp.example: the host resolves to a private address, which only `http = { allow_addresses = [...] }` of \
                the credential can allow";
    assert_eq!(resolved.to_string(), text);
    assert_eq!(Error::from(resolved).kind(), ErrorKind::UpstreamDown);
    let written = get(&client, "https://10.0.0.1/").await.expect_err("private");
    assert!(matches!(written, HttpFailure::Insecure(_, InsecureUrl::Address(AddressClass::Private))), "{written}");
    assert_eq!(Error::from(written).kind(), ErrorKind::Misconfigured);
}
