//! Who is measured: servers that are started for a run on loopback, each on the server's core, and end with it.

mod etcd;
mod host;
mod nginx;
mod postgres;
mod redis;
mod stand_ins;
mod tls;
mod tokencached;

pub(crate) use self::{
    host::Host,
    stand_ins::start_late,
    tokencached::{Tokencached, WIDE},
};

use std::{fmt, net::SocketAddr, sync::Arc, thread, time::Duration};

use anyhow::{Result, ensure};
use clap::ValueEnum;
use rustls::ClientConfig;

use crate::{
    clock::now,
    load::{self, Keys, Pace, Plan, Tally},
    process::Family,
    talk::{Http2, Postgres, Redis, http2::Calls},
    upstream::TOKEN,
};

/// How long a server may take until it answers.
const READY: Duration = Duration::from_secs(60);

/// All contenders, in the order of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub(crate) enum Name {
    /// The broker, open to all
    Tokencached,
    /// The same over TLS 1.3
    TokencachedTls,
    /// The same with client certificates, grants and an audit file
    TokencachedMtls,
    /// A service of stock tonic that returns a constant: the same bytes
    Tonic,
    /// The same over TLS 1.3
    TonicTls,
    /// hyper alone, sending the same bytes
    Hyper,
    /// nginx, serving the same bytes over HTTP/2 without TLS
    Nginx,
    /// Redis, `GET`
    Redis,
    /// etcd, `Range`, serializable
    Etcd,
    /// Postgres, a prepared `SELECT`
    Postgres,
}

impl Name {
    /// What it is, for people.
    pub(crate) fn about(self) -> &'static str {
        match self {
            Self::Tokencached => "tokencached, open",
            Self::TokencachedTls => "tokencached, TLS 1.3",
            Self::TokencachedMtls => "tokencached, client certificates + grants + audit file",
            Self::Tonic => "stock tonic, constant answer",
            Self::TonicTls => "stock tonic, constant answer, TLS 1.3",
            Self::Hyper => "raw hyper, the same bytes",
            Self::Nginx => "nginx, the same bytes, h2c",
            Self::Redis => "Redis GET",
            Self::Etcd => "etcd Range, serializable",
            Self::Postgres => "PostgreSQL prepared SELECT",
        }
    }

    /// What it is measured against.
    pub(crate) fn base(self) -> Self {
        match self {
            Self::TokencachedTls | Self::TokencachedMtls | Self::TonicTls => Self::TonicTls,
            _ => Self::Tonic,
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.write_str(value.as_ref().map_or("?", |value| value.get_name()))
    }
}

/// How a contender is talked to.
#[derive(Clone, Debug)]
pub(crate) enum Language {
    Http2(Calls),
    Redis,
    Postgres { user: String, database: String },
}

/// A server that runs.
pub(crate) struct Contender {
    pub(crate) name: Name,
    pub(crate) address: SocketAddr,
    pub(crate) tls: Option<Arc<ClientConfig>>,
    pub(crate) language: Language,
    pub(crate) family: Family,
    /// What ends it.
    pub(crate) _guard: Box<dyn std::any::Any>,
}

/// Starts a contender. An error says why it is missing.
pub(crate) fn start(name: Name, host: &Host) -> Result<Contender> {
    match name {
        Name::Tokencached | Name::TokencachedTls | Name::TokencachedMtls => tokencached::start(name, host),
        Name::Tonic | Name::TonicTls | Name::Hyper => stand_ins::start(name, host),
        Name::Nginx => nginx::start(host),
        Name::Redis => redis::start(host),
        Name::Etcd => etcd::start(host),
        Name::Postgres => postgres::start(host),
    }
}

impl Contender {
    /// Puts load on it.
    pub(crate) fn drive(&self, plan: &Plan) -> Result<Tally> {
        let cost = || self.family.cpu();
        match &self.language {
            Language::Http2(calls) => load::run(plan, |slots| Http2::new(calls, slots), cost),
            Language::Redis => load::run(plan, |_| Redis::new(TOKEN), cost),
            Language::Postgres { user, database } => {
                load::run(plan, |_| Postgres::new(user, database, postgres::SELECT, TOKEN), cost)
            }
        }
    }

    /// A plan for this server.
    pub(crate) fn plan(&self, connections: usize, streams: usize, pace: Pace, keys: Keys) -> Plan {
        Plan::new(self.address, self.tls.clone(), (connections, streams), pace, keys)
    }

    /// Asks for the first key until the answer is right: a server may listen before it has opened its store.
    pub(crate) fn serving(&self) -> Result<()> {
        let begun = now();
        loop {
            match self.ask_all(1) {
                Ok(_) => return Ok(()),
                Err(error) if begun.elapsed() > READY => return Err(error.context(format!("after {READY:?}"))),
                Err(_) => thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// Asks for each key once: the right answers are then known to be there.
    pub(crate) fn ask_all(&self, keys: u32) -> Result<Tally> {
        let streams = if matches!(self.language, Language::Http2(_)) { 8 } else { 1 };
        let tally = self.drive(&self.plan(16, streams, Pace::Once, Keys::warm(keys)))?;
        let right = u64::from(keys);
        ensure!(
            tally.right == right,
            "{}: {} of {keys} answers were right: {}",
            self.name,
            tally.right,
            tally.faults()
        );
        Ok(tally)
    }
}
