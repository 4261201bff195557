//! etcd, one member.

use std::process::Command;

use anyhow::{Context as _, Result};
use prost::Message;

use super::{Contender, Host, Language, Name, host};
use crate::{
    talk::http2::Calls,
    upstream::{TOKEN, token},
};

/// `etcdserverpb.PutRequest`, what is needed of it.
#[derive(Clone, PartialEq, Message)]
struct PutRequest {
    #[prost(bytes, tag = "1")]
    key: Vec<u8>,
    #[prost(bytes, tag = "2")]
    value: Vec<u8>,
}

/// `etcdserverpb.RangeRequest`, what is needed of it.
#[derive(Clone, PartialEq, Message)]
struct RangeRequest {
    #[prost(bytes, tag = "1")]
    key: Vec<u8>,
    /// Answered by this member from what it has: the cheap way.
    #[prost(bool, tag = "7")]
    serializable: bool,
}

pub(super) fn start(host: &Host) -> Result<Contender> {
    let program = host::installed("etcd")?;
    let directory = host.directory("etcd")?;
    let [address, peer] = host::addresses()?;
    let (client, peer) = (format!("http://{address}"), format!("http://{peer}"));
    let mut command = Command::new(program);
    command.args(["--data-dir", "data", "--log-level", "error"]);
    command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
    command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
    command.args(["--initial-cluster", &format!("default={peer}")]);
    let (guard, family) = host.start(&mut command, &directory, address)?;

    let put = PutRequest { key: b"########".to_vec(), value: token("########").into_bytes() }.encode_to_vec();
    let language = Language::Http2(Calls::grpc("http", "/etcdserverpb.KV/Put", &put, None));
    let mut etcd = Contender { name: Name::Etcd, address, tls: None, language, family, _guard: Box::new(guard) };
    etcd.ask_all(host.keys).context("cannot fill etcd")?;

    let range = RangeRequest { key: b"########".to_vec(), serializable: true }.encode_to_vec();
    etcd.language = Language::Http2(Calls::grpc("http", "/etcdserverpb.KV/Range", &range, Some(TOKEN)));
    Ok(etcd)
}
