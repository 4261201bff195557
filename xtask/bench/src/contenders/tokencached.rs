//! The broker, as a user would run it on one core.

use std::{fmt::Write as _, fs, net::SocketAddr, process::Command, time::Duration};

use anyhow::Result;
use prost::Message as _;
use tokencache_proto::v1::GetTokenRequest;

use super::{Contender, Host, Language, Name, host, tls::DOMAIN};
use crate::{talk::http2::Calls, upstream::TOKEN};

/// The method that is measured.
pub(crate) const GET_TOKEN: &str = "/tokencache.v1.TokenService/GetToken";

/// A credential whose keys differ in their audience.
pub(crate) const WIDE: &str = "wide";

/// How many calls of its token endpoint there may be at once: as many as there can be.
const BUDGET: u32 = 1024;

/// What a broker is told.
pub(crate) struct Tokencached<'a> {
    pub(crate) name: &'a str,
    /// Where its tokens are kept.
    pub(crate) store: &'a str,
    pub(crate) max_tokens: u32,
    /// How many credentials there are, each with one key.
    pub(crate) credentials: u32,
    /// Who may come in, and how.
    pub(crate) access: Access,
    /// How long before its expiry a token is replaced.
    pub(crate) refresh_window: Option<Duration>,
}

/// Who may come in, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Open,
    Tls,
    /// With client certificates, grants and an audit file.
    Mtls,
}

impl<'a> Tokencached<'a> {
    /// One that is open to all, keeps nothing, and has no credentials but the wide one.
    pub(crate) fn open(name: &'a str) -> Self {
        let (store, max_tokens, access) = ("memory:", 1_000_000, Access::Open);
        Self { name, store, max_tokens, credentials: 0, access, refresh_window: None }
    }

    /// Starts it.
    pub(crate) fn start(&self, host: &Host, name: Name) -> Result<Contender> {
        self.start_with_admin(host, name).map(|(contender, _)| contender)
    }

    /// Starts it; where its operators' API is, too.
    pub(crate) fn start_with_admin(&self, host: &Host, name: Name) -> Result<(Contender, SocketAddr)> {
        let directory = host.directory(self.name)?;
        let [client, admin, metrics] = host::addresses()?;
        fs::write(directory.join("tokencached.toml"), self.configuration(host, client, admin, metrics))?;
        let mut command = Command::new(host.programs.join("tokencached"));
        command.args(["serve", "--config", "tokencached.toml"]).env("RUST_LOG", "warn");
        let (guard, family) = host.start(&mut command, &directory, client)?;
        let tls = match self.access {
            Access::Open => None,
            Access::Tls => Some(host.certificates.plain.clone()),
            Access::Mtls => Some(host.certificates.known.clone()),
        };
        let language =
            Language::Http2(self.calls(&GetTokenRequest { credential: "k########".into(), ..Default::default() }));
        Ok((Contender { name, address: client, tls, language, family, _guard: Box::new(guard) }, admin))
    }

    /// With requests of the wide credential, a key in the audience of each.
    pub(crate) fn start_wide(&self, host: &Host) -> Result<Contender> {
        let mut broker = self.start(host, Name::Tokencached)?;
        broker.language = Language::Http2(self.calls(&Self::wide_request()));
        Ok(broker)
    }

    /// A request of the wide credential.
    pub(crate) fn wide_request() -> GetTokenRequest {
        GetTokenRequest { credential: WIDE.into(), audience: "key-########".into(), ..Default::default() }
    }

    /// Calls with a request that may hold `########` where the key goes.
    pub(crate) fn calls(&self, request: &GetTokenRequest) -> Calls {
        let scheme = if self.access == Access::Open { "http" } else { "https" };
        Calls::grpc(scheme, GET_TOKEN, &request.encode_to_vec(), Some(TOKEN))
    }

    fn configuration(&self, host: &Host, client: SocketAddr, admin: SocketAddr, metrics: SocketAddr) -> String {
        let (upstream, store, max_tokens) = (host.upstream.url(), self.store, self.max_tokens);
        let origin = upstream.trim_end_matches("/token");
        let mut text = format!(
            "[server]\nlisten = \"{client}\"\nadmin_listen = \"{admin}\"\nmetrics_listen = \"{metrics}\"\n{}\n\
             [store]\nurl = \"{store}\"\n[cache]\nmax_tokens = {max_tokens}\n\
             [endpoints.\"{origin}\"]\nmax_concurrent = {BUDGET}\n",
            self.access(host)
        );
        if self.store != "memory:" {
            text.push_str("[encryption]\nactive = \"bench\"\nkeys = { bench = { file = \"tokencache.key\" } }\n");
            text.push_str("accept_plaintext = true\n");
        }
        if let Some(window) = self.refresh_window {
            let _ = writeln!(text, "[defaults]\nrefresh_window = \"{}ms\"", window.as_millis());
        }
        let wide = [(WIDE.to_owned(), WIDE.to_owned())];
        let narrow = (0..self.credentials).map(|key| (format!("k{key:08}"), format!("key-{key:08}")));
        for (name, client_id) in wide.into_iter().chain(narrow) {
            // Writing to a string does not fail.
            let _ = write!(
                text,
                "[credentials.{name}]\nprovider = \"oauth2\"\ngrant = \"client_credentials\"\ntoken_url = \"{upstream}\"\n\
                 client_id = \"{client_id}\"\nclient_auth = \"none\"\n"
            );
        }
        text
    }

    fn access(&self, host: &Host) -> String {
        let directory = host.certificates.directory.display();
        let tls = format!("tls = {{ cert_file = \"{directory}/server.pem\", key_file = \"{directory}/server.key\" }}");
        match self.access {
            Access::Open => "insecure_allow_any_caller = true\n[audit]\nsinks = [\"memory\"]".to_owned(),
            Access::Tls => format!("insecure_allow_any_caller = true\n{tls}\n[audit]\nsinks = [\"memory\"]"),
            Access::Mtls => format!(
                "{tls}\n[authn.mtls]\nca_file = \"{directory}/ca.pem\"\ntrust_domain = \"{DOMAIN}\"\n\
                 [grants.clients]\nsubjects = [\"spiffe://{DOMAIN}/*\"]\ncredentials = [\"k*\", \"{WIDE}\"]\n\
                 actions = [\"get\", \"watch\"]\n[audit]\nsinks = [{{ file = \"audit.jsonl\" }}]"
            ),
        }
    }
}

/// Starts one of those that are compared, with as many credentials as there are keys.
pub(super) fn start(name: Name, host: &Host) -> Result<Contender> {
    let access = match name {
        Name::TokencachedTls => Access::Tls,
        Name::TokencachedMtls => Access::Mtls,
        _ => Access::Open,
    };
    let label = name.to_string();
    Tokencached { credentials: host.keys, access, ..Tokencached::open(&label) }.start(host, name)
}
