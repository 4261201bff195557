//! An issuer whose metadata lead to where the broker must not go.

use std::sync::Arc;

use super::*;
use crate::provider::{
    http::testing::{FakeDns, Traps},
    registry::tests::build_with_lookup,
};

const ANSWER: &str = "HTTP/1.1 200 x\r\ncontent-length: 59\r\nconnection: close\r\n\r\n\
                      {\"access_token\":\"at\",\"token_type\":\"Bearer\",\"expires_in\":60}";

/// What the metadata name, and what the refusal says of it.
const ENDPOINTS: &[(&str, &str)] = &[
    ("http://127.0.0.2:{p}/token", "loopback address"),
    ("https://127.0.0.2:{p}/token", "loopback address"),
    ("http://2130706434:{p}/token", "loopback address"),
    ("http://localhost:{p}/token", "loopback address"),
    ("http://LocalHost:{p}/token", "loopback address"),
    ("http://[::1]:{p}/token", "loopback address"),
    ("https://[::ffff:127.0.0.1]:{p}/token", "loopback address"),
    ("https://0.0.0.0:{p}/token", "unspecified address"),
    ("https://10.0.0.1/token", "private address"),
    ("https://169.254.169.254/latest/meta-data/", "cloud metadata address"),
    ("https://metadata.google.internal/computeMetadata/v1/", "cloud metadata address"),
    ("https://[fd00:ec2::254]/latest/", "cloud metadata address"),
    ("https://user@127.0.0.1:{p}/token", "must not carry a user"),
    ("https://localhost.:{p}/token", "no dot at its end"),
    ("ftp://127.0.0.1:{p}/token", "begins with https://"),
    ("https://rebind.example:{p}/token", "resolves to a loopback address"),
    ("https://internal.example:{p}/token", "resolves to a private address"),
];

fn lookup() -> Arc<FakeDns> {
    let names = [("rebind.example", "127.0.0.2"), ("internal.example", "10.0.0.1"), ("localhost", "127.0.0.1")];
    Arc::new(names.into_iter().fold(FakeDns::default(), |dns, (name, address)| dns.with(name, &[&[address]])))
}

#[tokio::test]
async fn no_endpoint_in_the_metadata_leads_to_where_the_broker_must_not_go() {
    assert!(ENDPOINTS.len() >= 15);
    let traps = Traps::set(ANSWER).await;
    for (endpoint, expected) in ENDPOINTS {
        let endpoint = traps.url(endpoint);
        let issuer = issuer_of(&endpoint).await;
        let keys = format!("{BASE}issuer = \"{}\"", issuer.url());
        let provider = build_with_lookup(lookup(), &keys).unwrap().provider;
        let failure = provider.mint(request()).await.unwrap_err();
        assert!(failure.error.message().contains(expected), "{endpoint}: {}", failure.error.message());
        assert!(!failure.in_doubt && failure.grant.is_none(), "{endpoint}");
    }
    assert_eq!(traps.total().await, 0);
}

#[tokio::test]
async fn what_the_credential_allows_is_allowed_to_its_metadata() {
    let traps = Traps::set(ANSWER).await;
    for allowed in ["allow_addresses = [\"loopback\"]", "allow_addresses = [\"127.0.0.2\"]"] {
        let issuer = issuer_of(&traps.url("http://127.0.0.2:{p}/token")).await;
        let keys = format!("{BASE}issuer = \"{}\"\nhttp = {{ {allowed} }}", issuer.url());
        build_with_lookup(lookup(), &keys).unwrap().provider.mint(request()).await.unwrap();
    }
    assert_eq!((traps.connections("127.0.0.2").await, traps.total().await), (2, 2));
}

#[tokio::test]
async fn metadata_cannot_lead_to_a_host_that_allow_hosts_does_not_have() {
    let issuer = issuer_of("https://evil.example/token").await;
    let keys = format!("{BASE}issuer = \"{}\"\nhttp = {{ allow_hosts = [\"127.0.0.1\"] }}", issuer.url());
    let failure = build_with_lookup(lookup(), &keys).unwrap().provider.mint(request()).await.unwrap_err();
    assert!(failure.error.message().contains("`http.allow_hosts` does not have this host"), "{failure:?}");
    assert_eq!(failure.error.kind(), ErrorKind::Misconfigured);
}

#[test]
fn each_mistake_with_the_egress_rules_has_its_own_message() {
    assert_mistakes(
        "grant = \"client_credentials\"\nclient_id = \"c\"\ntoken_url = \"https://a.example/t\"\n",
        &[
            ("http = { allow_addresses = [\"lan\"] }", "http.allow_addresses[0]: expected \"loopback\""),
            ("http = { allow_addresses = [\"10.0.0.1/8\"] }", "the range is written \"10.0.0.0/8\""),
            ("http = { allow_addresses = \"private\" }", "http.allow_addresses: expected an array"),
            ("http = { allow_hosts = \"b.example\" }", "http.allow_hosts: expected an array"),
            ("http = { allow_hosts = [] }", "http.allow_hosts: without a host none could be reached"),
            ("http = { allow_hosts = [\"a.example.\"] }", "http.allow_hosts[0]: a host has no dot at its end"),
            ("http = { allow_hosts = [\"b.example\"] }", "token_url: `http.allow_hosts` does not have this host"),
            ("http = { proxy = \"http://proxy.example.:1\" }", "http.proxy: the host of a URL has no dot at its end"),
            ("revocation_url = \"https://a.example./r\"", "revocation_url: the host of a URL has no dot at its end"),
        ],
    );
}

#[test]
fn a_range_of_all_addresses_is_warned_of() {
    let keys = format!("{BASE}token_url = \"https://a.example\"\nhttp = {{ allow_addresses = [\"0.0.0.0/0\"] }}");
    let warnings = build(&keys).unwrap().warnings;
    assert!(warnings[0].contains("a range of all addresses"), "{warnings:?}");
}
