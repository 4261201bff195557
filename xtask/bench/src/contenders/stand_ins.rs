//! The servers of [`crate::stand_in`], as processes of their own.

use std::{fs, process::Command};

use anyhow::Result;
use prost::Message as _;
use tokencache_proto::v1::{Freshness, GetTokenRequest, GetTokenResponse, Token};

use super::{Contender, Host, Language, Name, Tokencached, host, tokencached::GET_TOKEN};
use crate::{
    talk::http2::Calls,
    upstream::{TOKEN, token},
};

pub(super) fn start(name: Name, host: &Host) -> Result<Contender> {
    // The broker's request, so that as much is received.
    let request = GetTokenRequest { credential: "k00000000".into(), ..Default::default() };
    start_for(name, host, &request, &[])
}

/// Stock tonic that answers calls for the keys from this one on late, and is asked as the wide credential is.
pub(crate) fn start_late(host: &Host, from: u32) -> Result<Contender> {
    let late_from = ["--late-from".to_owned(), from.to_string()];
    let mut tonic = start_for(Name::Tonic, host, &Tokencached::wide_request(), &late_from)?;
    // It has but one token, whoever asks.
    if let Language::Http2(calls) = tonic.language {
        tonic.language = Language::Http2(calls.unchecked());
    }
    Ok(tonic)
}

fn start_for(name: Name, host: &Host, request: &GetTokenRequest, more: &[String]) -> Result<Contender> {
    let directory = host.directory(&name.to_string())?;
    let [address] = host::addresses()?;
    fs::write(directory.join("answer"), answer())?;
    let kind = if name == Name::Hyper { "hyper" } else { "tonic" };
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["stand-in", kind, "--answer", "answer", "--listen", &address.to_string()]).args(more);
    let tls = (name == Name::TonicTls).then(|| host.certificates.plain.clone());
    if tls.is_some() {
        command.arg("--tls").arg(&host.certificates.directory);
    }
    let scheme = if tls.is_some() { "https" } else { "http" };
    let (guard, family) = host.start(&mut command, &directory, address)?;
    let language = Language::Http2(Calls::grpc(scheme, GET_TOKEN, &request.encode_to_vec(), Some(TOKEN)));
    Ok(Contender { name, address, tls, language, family, _guard: Box::new(guard) })
}

/// What the broker answers when it is asked for the key 0: the same fields of the same lengths.
pub(super) fn answer() -> Vec<u8> {
    let time = |seconds| Some(prost_types::Timestamp { seconds, nanos: 123_000_000 });
    let token = Token {
        access_token: token("00000000"),
        token_type: "Bearer".into(),
        issued_at: time(1_790_000_000),
        expires_at: time(1_792_592_000),
        generation: 1,
        fingerprint: "0123456789abcdef".into(),
        ..Default::default()
    };
    let freshness = Freshness::Verified.into();
    GetTokenResponse { token: Some(token), freshness, server_time: time(1_790_000_100), ..Default::default() }
        .encode_to_vec()
}
