//! SIGTERM under load, with peers up and with connections that do not close.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use tokencache_proto::v1::{TokenSelector, WatchTokensRequest};
use tokio::{io::AsyncWriteExt as _, net::TcpStream, time::Instant};

use super::{
    Common,
    caller::Load,
    stage::{START, Stage},
    verdict::Verdict,
};
use crate::{
    replica::{END, Replica},
    scene::{Plan, credentials},
};

/// What clients wait for.
const DEADLINE: Duration = Duration::from_secs(8);

/// Ends replicas in order.
#[derive(Debug, Args)]
pub(crate) struct Sigterm {
    #[command(flatten)]
    pub(crate) common: Common,
    /// How often; the promise: 200
    #[arg(long, default_value_t = 1)]
    times: usize,
    /// How many clients call meanwhile
    #[arg(long, default_value_t = 16)]
    callers: usize,
    /// How many connections of each hostile kind there are each time
    #[arg(long, default_value_t = 4)]
    hostile: usize,
    /// `drain_timeout` of the replicas, in seconds; the broker's own default is 20
    #[arg(long, default_value_t = 20)]
    drain_timeout: u64,
}

impl Sigterm {
    pub(crate) fn plan(&self) -> Plan {
        let mut plan = Plan::new(3, credentials(12), self.common.seed);
        plan.server = format!("drain_timeout = \"{}s\"\n", self.drain_timeout);
        plan
    }

    pub(crate) async fn perform(&self, stage: &mut Stage, verdict: &mut Verdict) -> Result<()> {
        let names = stage.names();
        stage.fill(&names).await?;
        let load = Load::start(&stage.caller, &names, self.callers, DEADLINE, self.common.seed);
        let mut took = vec![];
        for i in 0..self.times {
            let replica = &stage.fleet.replicas[i % stage.fleet.replicas.len()];
            let hostile = Hostile::open(replica, self.hostile, &names).await?;
            let begun = Instant::now();
            match replica.terminate().await {
                Ok(Some(status)) if status.success() => took.push(begun.elapsed()),
                Ok(status) => verdict.require(false, format!("r{} ended with {status:?}", replica.index)),
                Err(error) => verdict.require(false, format!("{error:#}")),
            }
            drop(hostile);
            replica.start().await?;
            replica.serving(START).await?;
        }
        verdict.figure("orderly ends", format!("{} of {}", took.len(), self.times));
        verdict.require(took.len() == self.times, "not every SIGTERM led to exit code 0 in time");
        verdict.times("SIGTERM to exit", took, 1.0, END);
        load.end().await.judge(verdict);
        Ok(())
    }
}

/// Connections whose clients will not let go.
struct Hostile {
    _silent: Vec<TcpStream>,
    _watches: Vec<tonic::Streaming<tokencache_proto::v1::WatchTokensResponse>>,
}

impl Hostile {
    /// Some that say nothing, some that stop in the middle of HTTP/2's preface or of an HTTP/1 request, and some that
    /// watch and do not read.
    async fn open(replica: &Replica, count: usize, names: &[String]) -> Result<Self> {
        let mut silent = vec![];
        for words in ["", "PRI * HTTP/2.0\r\n\r\nS", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "POST /x HTTP/1.1\r\nhost: x"]
        {
            for _ in 0..count {
                let mut stream = TcpStream::connect(("127.0.0.1", replica.port())).await?;
                stream.write_all(words.as_bytes()).await?;
                silent.push(stream);
            }
        }
        let selector = |name: &String| TokenSelector { credential: name.clone(), ..Default::default() };
        let selectors: Vec<_> = names.iter().map(selector).collect();
        let mut watches = vec![];
        for _ in 0..count {
            let request = WatchTokensRequest { selectors: selectors.clone() };
            watches.push(replica.tokens()?.watch_tokens(request).await?.into_inner());
        }
        Ok(Self { _silent: silent, _watches: watches })
    }
}
