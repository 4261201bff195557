//! Several replicas: one that cannot serve a call is passed over.

use std::time::Duration;

use tokencache_client::{Client, ErrorKind, GetToken};
use tokio::net::TcpListener;

use crate::fake::{serve_draining, serve_tcp};

/// An address at which nobody listens.
async fn nowhere() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    format!("http://{}", listener.local_addr().expect("an address"))
}

#[tokio::test]
async fn a_dead_replica_is_passed_over_and_then_left_alone() {
    let (dead, live) = (nowhere().await, serve_tcp().await);
    // Whichever order the clients draw.
    for _ in 0..20 {
        let client = Client::builder().endpoints([&dead, &live]).build().expect("a client");
        for _ in 0..50 {
            client.get_token(GetToken::of("demo")).await.expect("the other one answers");
        }
        client.watch(["demo"]).await.expect("the other one answers");
    }
}

#[tokio::test]
async fn a_draining_replica_is_passed_over() {
    let (draining, live) = (serve_draining().await, serve_tcp().await);
    for _ in 0..20 {
        let client = Client::builder().endpoints([&draining, &live]).build().expect("a client");
        client.get_token(GetToken::of("demo")).await.expect("the other one answers");
    }
}

#[tokio::test]
async fn what_the_upstream_fails_is_not_asked_twice() {
    let client = Client::builder().endpoints([serve_tcp().await, serve_tcp().await]).build().expect("a client");
    let error = client.get_token(GetToken::of("down")).await.expect_err("the upstream is down");
    assert_eq!((error.reason(), error.retry_after()), (Some("UPSTREAM_DOWN"), Some(Duration::from_secs(7))));
}

#[tokio::test]
async fn where_nobody_is_the_error_says_so_within_the_deadline() {
    let dead = [nowhere().await, nowhere().await];
    let client = Client::builder().endpoints(dead).build().expect("a client");
    let error = client.get_token(GetToken::of("demo")).await.expect_err("nobody is there");
    assert_eq!(error.kind(), ErrorKind::Unreachable);
}
